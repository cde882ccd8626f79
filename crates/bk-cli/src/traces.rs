//! The spans of a run as OTLP, for collectors: what the feature `otel` adds.
//!
//! The rule: traces are for others. Whatever goes wrong with them is one warning, takes a bounded time, and changes no
//! exit code.

use std::{
    env, io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bk_client::{Environment, TraceContext};
use bk_dial::TlsOptions;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{client::conn::http1, header};
use hyper_util::rt::TokioIo;
use opentelemetry::{
    Context,
    trace::{
        SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
    },
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer as _, filter::filter_fn, layer::SubscriberExt as _};

use crate::{
    limits::{COLLECTOR_ANSWER, MAX_COLLECTOR_ANSWER, TRACES_GRACE},
    report,
};

/// The variables that name a collector.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// What the program is called when `OTEL_SERVICE_NAME` does not say.
const SERVICE: &str = "bk";

/// The span of the whole run, for the daemon's to be a part of.
static RUN: OnceLock<TraceContext> = OnceLock::new();

/// The trace that builds belong to, if this run exports its own.
pub(crate) fn current() -> Option<TraceContext> {
    RUN.get().cloned()
}

/// Runs `command` in a span, and exports all spans before it returns, if the environment names a collector.
pub(crate) fn during<T>(command: impl FnOnce() -> T) -> T {
    if !wanted(|name| env::var(name).ok()) {
        return command();
    }
    let failure = Failure::default();
    let provider = match provider(failure.clone()) {
        Ok(provider) => provider,
        Err(why) => {
            warn(&why);
            return command();
        }
    };
    let ours = filter_fn(|span| {
        let target = span.target();
        *span.level() <= tracing::Level::INFO && (target.starts_with("bk") || target.starts_with("backend_"))
    });
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(SERVICE));
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(ours));
    let done = tracing::subscriber::set_global_default(subscriber).map_err(|e| e.to_string());
    if let Err(why) = done {
        warn(&why);
        return command();
    }
    let span = tracing::info_span!("bk");
    if let Some(parent) = Environment::from_process().trace().ok().flatten() {
        // It says no only where there is no subscriber, and there is.
        drop(span.set_parent(Context::new().with_remote_span_context(remote(&parent))));
    }
    if let Some(context) = context(&span) {
        let _ = RUN.set(context);
    }
    let result = span.in_scope(command);
    drop(span);
    let ended = provider.shutdown_with_timeout(TRACES_GRACE);
    match (failure.take(), ended) {
        (Some(why), _) => warn(&why),
        (None, Err(e)) => warn(&e.to_string()),
        (None, Ok(())) => {}
    }
    result
}

/// Whether there is a collector, and nobody has turned traces off.
fn wanted(get: impl Fn(&str) -> Option<String>) -> bool {
    let is = |name, value| get(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    ENDPOINTS
        .iter()
        .any(|name| get(name).is_some_and(|v| !v.is_empty()))
        && !is("OTEL_SDK_DISABLED", "true")
        && !is("OTEL_TRACES_EXPORTER", "none")
}

fn warn(why: &str) {
    let why = bk_progress::neutralise_line(why);
    report::to_stderr(&format!(
        "warning: the traces of this run were not exported: {why}\n"
    ));
}

fn provider(failure: Failure) -> Result<SdkTracerProvider, String> {
    let protocol =
        env::var("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|_| env::var("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(other) = protocol.ok().filter(|p| !p.is_empty() && p != "http/protobuf") {
        return Err(format!(
            "`{other}` is not supported; OTEL_EXPORTER_OTLP_PROTOCOL takes http/protobuf"
        ));
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector { failure })
        .build()
        .map_err(|e| e.to_string())?;
    let mut resource = Resource::builder();
    if env::var_os("OTEL_SERVICE_NAME").is_none_or(|v| v.is_empty()) {
        resource = resource.with_service_name(SERVICE);
    }
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build())
}

fn remote(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_hex(context.trace_id()).unwrap_or(TraceId::INVALID),
        SpanId::from_hex(context.span_id()).unwrap_or(SpanId::INVALID),
        if context.is_sampled() {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::NOT_SAMPLED
        },
        true,
        context
            .tracestate()
            .and_then(|s| s.parse::<TraceState>().ok())
            .unwrap_or_default(),
    )
}

/// The span in the words of the header.
fn context(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let own = context.span().span_context().clone();
    let (trace, id, flags) = (own.trace_id(), own.span_id(), own.trace_flags().to_u8());
    let parsed = TraceContext::parse(&format!("00-{trace}-{id}-{flags:02x}")).ok()?;
    let state = own.trace_state().header();
    Some(parsed.clone().state(&state).unwrap_or(parsed))
}

/// The first thing that went wrong.
#[derive(Clone, Debug, Default)]
struct Failure(Arc<Mutex<Option<String>>>);

impl Failure {
    fn keep(&self, why: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(why);
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Posts to the collector. Called on the exporter's own thread, which belongs to no runtime.
#[derive(Debug)]
struct Collector {
    failure: Failure,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let place = request.uri().to_string();
        let sent = post_within(COLLECTOR_ANSWER, request);
        let answer = match sent {
            Ok(answer) if answer.status().is_success() => return Ok(answer),
            Ok(answer) => format!("{place}: the collector answered {}", answer.status()),
            Err(e) => format!("{place}: {e}"),
        };
        self.failure.keep(answer.clone());
        Err(answer.into())
    }
}

/// One request with a deadline. Blocks: the thread has nothing else to do.
fn post_within(limit: Duration, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(limit, post(request))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {limit:?}").into()))
    })
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn post(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let tls = parts.uri.scheme_str() == Some("https");
    let authority = parts.uri.authority().ok_or("it has no host")?.clone();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((&*host, port)).await?;
    let io: Box<dyn Io> = match tls {
        true => Box::new(
            TlsOptions::new()
                .system_roots(roots)
                .connect(&host, &[b"http/1.1"], stream)
                .await?,
        ),
        false => Box::new(stream),
    };
    parts.headers.insert(header::HOST, authority.as_str().parse()?);
    parts.uri = parts.uri.path_and_query().map_or("/", |p| p.as_str()).parse()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let asking = async {
        let answer = sender
            .send_request(Request::from_parts(parts, Full::new(body)))
            .await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_COLLECTOR_ANSWER)
            .collect()
            .await?
            .to_bytes();
        Ok::<_, HttpError>(Response::from_parts(parts, body))
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // What ends the connection is told by the request.
        _ = connection => asking.await,
    }
}

/// The authorities that the system trusts.
fn roots() -> Result<Vec<Vec<u8>>, String> {
    let found = rustls_native_certs::load_native_certs();
    match found.errors.first() {
        Some(error) if found.certs.is_empty() => Err(io::Error::other(error.to_string()).to_string()),
        _ => Ok(found.certs.into_iter().map(|c| c.to_vec()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides() {
        let with = |all: &[(&str, &str)]| {
            wanted(|name| all.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert!(!with(&[]) && !with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
        let there = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        assert!(with(&[there]) && with(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/x")]));
        assert!(!with(&[there, ("OTEL_SDK_DISABLED", "True")]));
        assert!(!with(&[there, ("OTEL_TRACES_EXPORTER", "none")]));
    }

    #[test]
    fn a_trace_context_and_a_span_context_are_the_same_in_other_words() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text)
            .and_then(|c| c.state("a=1"))
            .expect("a context");
        let own = remote(&context);
        assert!(own.is_valid() && own.is_remote() && own.is_sampled());
        assert_eq!(
            (
                own.trace_id().to_string(),
                own.span_id().to_string(),
                own.trace_state().header()
            ),
            (
                context.trace_id().to_owned(),
                context.span_id().to_owned(),
                "a=1".to_owned()
            )
        );
    }
}
