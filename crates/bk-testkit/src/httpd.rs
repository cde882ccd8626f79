//! The HTTP/1.1 under the servers of this crate: one thread for each connection, one request for each connection.
//!
//! It listens on the loopback device only, and it ends when it is dropped.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Longest header and longest request that is read, in bytes; uploads are not what this is for.
const MOST: u64 = 4 << 20;
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub(crate) struct Httpd {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

/// One request.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    /// By their names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Httpd {
    /// Answers each request with the bytes that `handler` makes of it, headers included; over TLS if told how.
    ///
    /// # Errors
    /// When no port can be had.
    pub(crate) fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Request) -> io::Result<Vec<u8>> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (handler, stopped) = (Arc::new(handler), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, tls) = (Arc::clone(&handler), tls.clone());
                if let Ok(stream) = stream {
                    // A client that breaks off is its own business.
                    thread::spawn(move || drop(serve(stream, tls, &*handler)));
                }
            }
        });
        Ok(Self { address, stop })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Httpd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    handler: &dyn Fn(&Request) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let Some(tls) = tls else {
        return exchange(stream, handler);
    };
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    exchange(StreamOwned::new(connection, stream), handler)
}

fn exchange(stream: impl Read + Write, handler: &dyn Fn(&Request) -> io::Result<Vec<u8>>) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    let request = read(&mut input)?;
    let mut output = input.into_inner();
    output.write_all(&handler(&request)?)?;
    output.flush()
}

fn read(input: &mut impl BufRead) -> io::Result<Request> {
    let mut input = input.take(MOST);
    let mut first = String::new();
    input.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                let value = value.trim().to_owned();
                request.headers.insert(name.to_ascii_lowercase(), value)
            }
            None => break,
        };
    }
    let length = request.header("content-length").parse().unwrap_or(0);
    input.take(length).read_to_end(&mut request.body)?;
    Ok(request)
}

/// An answer with a body.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}
