//! The builder that [`connect`](crate::connect) picked.

use std::sync::Arc;

use async_trait::async_trait;
use bk_build::{
    AdminOptions, Administration, BuildError, BuildOutcome, BuildRequest, BuilderInfo, Call, CallAnswer,
    CallHeaders, EventSink, ImageBuilder, InputError, Refusal, TokenExchange, TraceContext,
};
use bk_solve::{BoxedIo, Dialer};

use crate::tokens;

/// A builder on a daemon that was reached. Cheap to clone; clones build at the same time without waiting for each
/// other.
#[derive(Clone)]
pub struct Client {
    builder: Arc<dyn ImageBuilder>,
    tokens: Option<Arc<dyn TokenExchange>>,
    headers: CallHeaders,
    trace: Option<TraceContext>,
    dialer: Option<Arc<dyn Dialer>>,
    #[cfg(feature = "daemon")]
    private: Option<Arc<bk_daemon::Lease>>,
}

impl Client {
    /// Wraps any builder, for instance one with an own configuration or a third party's.
    pub fn from_builder(builder: impl ImageBuilder + 'static) -> Self {
        Self {
            builder: Arc::new(builder),
            tokens: None,
            headers: CallHeaders::new(),
            trace: None,
            dialer: None,
            #[cfg(feature = "daemon")]
            private: None,
        }
    }

    /// Sets how byte streams to the daemon are opened; the default is that there is no way.
    #[cfg_attr(
        not(any(feature = "docker", feature = "buildkitd")),
        expect(dead_code, reason = "there is no daemon without them")
    )]
    pub(crate) fn dialer(mut self, dialer: Option<Arc<dyn Dialer>>) -> Self {
        self.dialer = dialer;
        self
    }

    /// Opens a byte stream to BuildKit's own API: HTTP/2 with prior knowledge, on a new connection, for programs that speak it
    /// themselves. Dropping it closes the connection.
    ///
    /// # Errors
    /// [`BuildError::Connect`] or [`BuildError::Timeout`] when the daemon cannot be reached any more, [`BuildError::Input`]
    /// when the route to it has no such stream, or when the builder came from elsewhere.
    pub async fn open_stream(&self) -> Result<BoxedIo, BuildError> {
        match &self.dialer {
            Some(dialer) => dialer.control().await,
            None => {
                let why = format!("{} has no stream of BuildKit's own API", self.builder.info());
                let allowed = "a buildkitd, or a Docker Engine with the route grpc or h2c";
                Err(InputError::new("the daemon", why, allowed).into())
            }
        }
    }

    /// Keeps a private daemon as long as this client or a clone of it is there.
    #[cfg(feature = "daemon")]
    pub(crate) fn keeping(mut self, lease: bk_daemon::Lease) -> Self {
        self.private = Some(Arc::new(lease));
        self
    }

    /// The private daemon behind this client, if it is one.
    #[cfg(feature = "daemon")]
    pub fn private_daemon(&self) -> Option<&bk_daemon::DaemonFacts> {
        self.private.as_deref().map(bk_daemon::Lease::daemon)
    }

    /// Sets who fetches tokens for the credentials that a request brings; the default is nobody.
    pub(crate) fn tokens(mut self, tokens: Option<Arc<dyn TokenExchange>>) -> Self {
        self.tokens = tokens;
        self
    }

    /// Looks after the daemon: its cache, its workers, its history.
    ///
    /// # Errors
    /// [`BuildError::Refused`] when nothing but builds can be asked of this builder.
    pub fn admin(&self) -> Result<Arc<dyn Administration>, BuildError> {
        self.administration(AdminOptions::new()).ok_or_else(|| {
            let text = format!("{} takes builds only", self.builder.info());
            // gRPC's code for what is not implemented.
            Refusal::new(12, text).into()
        })
    }

    /// Adds headers to every call of each build and of [`admin`](Self::admin); those of a request win. The default is none. A build whose headers
    /// are not allowed fails before anything is sent.
    #[must_use]
    pub fn headers(mut self, headers: &CallHeaders) -> Self {
        self.headers = self.headers.and(headers);
        self
    }

    /// Sets the trace of [`admin`](Self::admin)'s calls, and of builds whose request names none; the default is that of the environment
    /// ([`Environment`](crate::Environment)) for a client that was connected, else none.
    #[must_use]
    pub fn trace(mut self, context: Option<TraceContext>) -> Self {
        self.trace = context;
        self
    }

    /// The request, with what this client adds to it.
    fn complete(&self, mut request: BuildRequest) -> BuildRequest {
        #[cfg(feature = "daemon")]
        if let Some(daemon) = self.private_daemon() {
            crate::private::complete(daemon, &mut request);
        }
        request.headers = self.headers.clone().and(&request.headers);
        request.trace = request.trace.or_else(|| self.trace.clone());
        request.credentials = request
            .credentials
            .map(|provider| tokens::with(provider, self.tokens.as_ref()));
        request
    }
}

#[async_trait]
impl ImageBuilder for Client {
    async fn build(&self, request: BuildRequest, events: EventSink) -> Result<BuildOutcome, BuildError> {
        self.builder.build(self.complete(request), events).await
    }

    async fn check(&self, request: &BuildRequest) -> Result<(), BuildError> {
        self.builder.check(&self.complete(request.clone())).await
    }

    async fn call(
        &self,
        request: BuildRequest,
        call: Call,
        events: EventSink,
    ) -> Result<CallAnswer, BuildError> {
        self.builder.call(self.complete(request), call, events).await
    }

    fn administration(&self, mut options: AdminOptions) -> Option<Arc<dyn Administration>> {
        options.headers = self.headers.clone().and(&options.headers);
        options.trace = options.trace.or_else(|| self.trace.clone());
        self.builder.administration(options)
    }

    fn info(&self) -> BuilderInfo {
        self.builder.info()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.builder.info()).finish()
    }
}
