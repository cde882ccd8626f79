//! One HTTP request, one connection: to a registry or its token server, through a proxy or not.
//!
//! The rule: everything is bounded (time by the caller, bytes here), nothing is spawned, redirects are not followed:
//! who wants to follow one decides where to.

use std::{fmt, future::Future, pin::pin};

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use super::{proxy::Proxies, tls::Trust};
use crate::limits::{MAX_ANSWER_HEAD, MAX_TOKEN_ANSWER};

/// A scheme, a host and a port: what must not change when credentials are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Origin {
    /// The origin of an absolute URL; none for one without a host, of another scheme, or with a user in it.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        Some(Self {
            tls,
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        })
    }

    /// `host:port`, or the host alone with its usual port.
    pub(super) fn authority(&self) -> String {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// What to send.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn get(uri: Uri) -> Self {
        Self {
            method: Method::GET,
            uri,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }
}

/// What came back. The body may be a token: it is wiped.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Http {
    pub(super) proxies: Proxies,
    pub(super) trust: Trust,
}

impl Http {
    /// Sends a request. `registry` is the one that it is about, whose certificates count too.
    pub(super) async fn send(&self, asked: Asked, registry: &str) -> Result<Answer, String> {
        let origin = Origin::of(&asked.uri).ok_or("not an http or https address")?;
        let proxied = !origin.tls && self.proxies.of(false, &origin.host, origin.port).is_some();
        let (io, proxy_login) = self.connect(&origin, registry).await?;
        let mut request = Request::new(Full::new(asked.body));
        *request.method_mut() = asked.method;
        *request.headers_mut() = asked.headers;
        let host = HeaderValue::from_str(&origin.authority()).map_err(|e| e.to_string())?;
        request.headers_mut().insert(header::HOST, host);
        let agent = HeaderValue::from_static(concat!("bk/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        if proxied {
            if let Some(login) = proxy_login {
                request.headers_mut().insert(header::PROXY_AUTHORIZATION, login);
            }
            *request.uri_mut() = asked.uri;
        } else {
            let path = asked.uri.path_and_query().map_or("/", |p| p.as_str());
            *request.uri_mut() = path.parse().map_err(|_| "not an address")?;
        }
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_ANSWER_HEAD)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|e| chain(&e))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| chain(&e))?;
            let (head, body) = response.into_parts();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: collect(body).await?,
            })
        };
        beside(exchange, connection).await
    }

    /// Only connects, as far as the TLS handshake: whether somebody is there.
    pub(super) async fn reach(&self, origin: &Origin, registry: &str) -> Result<(), String> {
        self.connect(origin, registry).await.map(drop)
    }

    /// A connection, and what a proxy wants to be told with each request.
    async fn connect(
        &self,
        origin: &Origin,
        registry: &str,
    ) -> Result<(Box<dyn Io>, Option<HeaderValue>), String> {
        let proxy = self.proxies.of(origin.tls, &origin.host, origin.port);
        let (tcp, login) = match proxy {
            None => (tcp(&origin.host, origin.port).await?, None),
            Some(text) => {
                let proxy = Proxy::parse(text)?;
                let io = tcp(&proxy.host, proxy.port)
                    .await
                    .map_err(|e| format!("the proxy {}:{}: {e}", proxy.host, proxy.port))?;
                if origin.tls {
                    let io = tunnel(io, origin, proxy.login)
                        .await
                        .map_err(|e| format!("the proxy {}:{}: {e}", proxy.host, proxy.port))?;
                    return Ok((self.tls(io, origin, registry).await?, None));
                }
                (io, proxy.login)
            }
        };
        match origin.tls {
            true => Ok((self.tls(tcp, origin, registry).await?, None)),
            false => Ok((Box::new(tcp), login)),
        }
    }

    async fn tls<T: Io + 'static>(
        &self,
        io: T,
        origin: &Origin,
        registry: &str,
    ) -> Result<Box<dyn Io>, String> {
        let mut hosts = vec![registry.to_owned(), origin.authority()];
        hosts.dedup();
        let connector = self.trust.connector(hosts).await?;
        let bare = origin
            .host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(bare).map_err(|e| e.to_string())?;
        let tls = connector.connect(name, io).await.map_err(|e| chain(&e))?;
        Ok(Box::new(tls))
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((bare, port)).await.map_err(|e| e.to_string())
}

/// Runs an exchange beside the connection that it needs.
async fn beside<T, C>(exchange: impl Future<Output = Result<T, String>>, connection: C) -> Result<T, String>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        ended = connection => {
            // Usually with the exchange, whose own words are better.
            let broken = ended.err().map(|e| chain(&e));
            match tokio::time::timeout(std::time::Duration::ZERO, exchange).await {
                Ok(result) => result,
                Err(_) => Err(broken.unwrap_or_else(|| "the connection ended".to_owned())),
            }
        }
    }
}

async fn collect(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut whole = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|e| chain(&e))?.into_data() {
            if whole.len() + data.len() > MAX_TOKEN_ANSWER {
                return Err(format!("the answer is longer than {MAX_TOKEN_ANSWER} bytes"));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}

struct Proxy {
    host: String,
    port: u16,
    login: Option<HeaderValue>,
}

impl Proxy {
    /// Never quotes the text: it may hold a password.
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || "the proxy's address is not http://[USER:PASSWORD@]HOST[:PORT]".to_owned();
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest,
            Some(_) => return Err(bad()),
        };
        let rest = rest.split('/').next().unwrap_or(rest);
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let uri: Uri = format!("http://{place}/").parse().map_err(|_| bad())?;
        let origin = Origin::of(&uri).ok_or_else(bad)?;
        let login = login.map(|login| {
            let plain = Zeroizing::new(percent_encoding::percent_decode_str(login).collect::<Vec<u8>>());
            basic(&plain)
        });
        Ok(Self {
            host: origin.host,
            port: origin.port,
            login: login.transpose()?,
        })
    }
}

/// The value of a header that proves a `user:password`.
pub(super) fn basic(login: &[u8]) -> Result<HeaderValue, String> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(login);
    let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(encoded)));
    let mut value = HeaderValue::from_str(&text).map_err(|e| e.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Asks a proxy for a connection to `origin`.
async fn tunnel<T: Io + 'static>(
    io: T,
    origin: &Origin,
    login: Option<HeaderValue>,
) -> Result<TokioIo<hyper::upgrade::Upgraded>, String> {
    let target = format!("{}:{}", origin.host, origin.port);
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target.parse().map_err(|_| "not an address")?;
    let host = HeaderValue::from_str(&target).map_err(|e| e.to_string())?;
    request.headers_mut().insert(header::HOST, host);
    if let Some(login) = login {
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, login);
    }
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER_HEAD)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| chain(&e))?;
    let mut connection = pin!(connection.with_upgrades());
    let asking = sender.send_request(request);
    let response = tokio::select! {
        biased;
        response = asking => response.map_err(|e| chain(&e))?,
        ended = &mut connection => {
            return Err(ended.err().map_or_else(|| "it closed the connection".to_owned(), |e| chain(&e)));
        }
    };
    if !response.status().is_success() {
        return Err(format!("it answered HTTP {}", response.status().as_u16()));
    }
    // The connection hands its bytes over when it ends.
    let (upgraded, _ended) = tokio::join!(hyper::upgrade::on(response), connection);
    Ok(TokioIo::new(upgraded.map_err(|e| chain(&e))?))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let of = |text: &str| Origin::of(&text.parse().expect(text)).map(|o| o.to_string());
        assert_eq!(
            of("https://Auth.example/token?x=1").as_deref(),
            Some("https://auth.example")
        );
        assert_eq!(
            of("https://auth.example:443/").as_deref(),
            Some("https://auth.example")
        );
        assert_eq!(of("http://[::1]:5001/t").as_deref(), Some("http://[::1]:5001"));
        for bad in ["/token", "ftp://h/", "https://good.example@evil.example/"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn proxies_are_parsed_and_never_quoted() {
        let proxy = Proxy::parse("http://user:p%40ss@proxy.example:3128/").expect("sound");
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.login.expect("login"), "Basic dXNlcjpwQHNz");
        assert_eq!(Proxy::parse("proxy").expect("sound").port, 80);
        for bad in [
            "socks5://u:hunter2@p:1",
            "http://u:hunter2@",
            "http://u:hunter2@a b",
        ] {
            let error = Proxy::parse(bad).err().expect(bad);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
