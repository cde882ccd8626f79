//! What stands before Solve is sent: files and credentials looked at, connected, the session attached.
//!
//! The session is attached first, because daemons wait only five seconds for it.

use std::{collections::BTreeMap, sync::Arc};

use bk_build::{BuildError, BuildRequest, ConnectError, EventSink, HostAddress, InputError, Refusal};
use bk_proto::control::{ListWorkersRequest, SolveRequest};
use bk_session::{Contents, Extras, Pings, RunningSession, Session, SessionConfig, Sources, TunnelSender};
use tonic::Request;
use tracing::{Instrument as _, info_span};

use crate::{
    channel::Channel,
    classify,
    dial::Dialer,
    limits::CONNECT_TIMEOUT,
    lower::lower,
    pulse::{Pulse, Watch, watched},
    solve::{MOBY_LABEL, SolveOptions, client, deadline, open_with},
};

/// What stands before the daemon is asked: a session that has what the request serves.
pub(crate) struct Prepared {
    pub(crate) config: SessionConfig,
    filename: Option<String>,
    source_attrs: BTreeMap<String, String>,
}

/// A session that the daemon knows, and the request as it is sent.
pub(crate) struct Begun {
    pub(crate) channel: Channel,
    pub(crate) session: RunningSession,
    pub(crate) solve: SolveRequest,
    /// The Dockerfile as the user knows it.
    pub(crate) filename: Option<String>,
    /// Over the connections.
    pub(crate) watch: Watch,
}

/// Looks at everything of this machine that `request` names. Local caches become what the daemon is told of them.
pub(crate) async fn prepare(
    request: &mut BuildRequest,
    options: &SolveOptions,
    events: &EventSink,
) -> Result<Prepared, BuildError> {
    let sources = Sources::of(request).await?;
    let filename = sources.dockerfile_name().map(str::to_owned);
    let contents = Contents::of(request, events).await?;
    let mut source_attrs = sources.frontend_attrs();
    source_attrs.extend(contents.frontend_attrs());
    let credentials = request
        .credentials
        .clone()
        .unwrap_or_else(|| options.credentials.clone());
    let extras = Extras::of(request).await?;
    let config = SessionConfig::new(sources, credentials)
        .events(events.clone())
        .extras(extras)
        .contents(contents)
        .pings(Pings::within(request.patience.stall));
    Ok(Prepared {
        config,
        filename,
        source_attrs,
    })
}

impl Prepared {
    /// Connects, attaches the session and lowers the request.
    pub(crate) async fn begin(
        self,
        dialer: &dyn Dialer,
        options: &SolveOptions,
        request: &mut BuildRequest,
        build_ref: &str,
    ) -> Result<Begun, BuildError> {
        let pings = self.config.pings;
        let session = Session::new(self.config);
        let channel = open_with(dialer, pings)
            .await?
            .with_headers(&request.headers, request.trace.as_ref())?;
        let hosts = &request.steps.add_hosts;
        if hosts.iter().any(|h| h.address == HostAddress::Gateway) {
            set_gateway(&channel, request).await?;
        }
        let session_id = session.id().to_owned();
        let (session, pulse) = attach(dialer, &channel, session).await?;
        let watch = Watch::new(pulse.into_iter().chain([channel.pulse()]));
        let filename = self.filename;
        let mut solve = lower(
            request,
            build_ref,
            &session_id,
            filename.as_deref(),
            options.exporter,
        );
        for (key, value) in self.source_attrs {
            solve.frontend_attrs.entry(key).or_insert(value);
        }
        Ok(Begun {
            channel,
            session,
            solve,
            filename,
            watch,
        })
    }
}

/// Puts the address of the engine's machine where the request says `host-gateway`.
async fn set_gateway(channel: &Channel, request: &mut BuildRequest) -> Result<(), BuildError> {
    let workers = deadline("an answer about the daemon's worker", CONNECT_TIMEOUT, async {
        client(channel)
            .list_workers(ListWorkersRequest::default())
            .await
            .map_err(|status| BuildError::from(Refusal::new(status.code() as i32, status.message())))
    })
    .await?
    .into_inner();
    let gateway = workers
        .record
        .iter()
        .find_map(|worker| worker.labels.get(MOBY_LABEL)?.parse().ok())
        .ok_or_else(|| {
            let why = "`host-gateway`: the daemon does not say the address of its machine";
            InputError::new("--add-host", why, "NAME:IP for this daemon")
        })?;
    for host in &mut request.steps.add_hosts {
        if host.address == HostAddress::Gateway {
            host.address = HostAddress::Ip(gateway);
        }
    }
    Ok(())
}

async fn attach(
    dialer: &dyn Dialer,
    channel: &Channel,
    session: Session,
) -> Result<(RunningSession, Option<Arc<Pulse>>), BuildError> {
    let address = dialer.info().address;
    let attaching = async {
        if let Some(io) = dialer.session(&session.headers()).await? {
            let (io, pulse) = watched(io);
            return Ok((session.serve(io), Some(pulse)));
        }
        let (sender, messages) = TunnelSender::new();
        let mut request = Request::new(messages);
        *request.metadata_mut() = session.headers().to_metadata();
        let inbound = client(channel).session(request).await.map_err(|status| {
            classify::transport_failure(&status, &address).unwrap_or_else(|| {
                ConnectError::single(
                    &address,
                    format!("the daemon refused the session: {}", status.message()),
                )
                .into()
            })
        })?;
        // Its bytes are those of the control connection.
        Ok((session.serve(sender.open(inbound.into_inner())), None))
    };
    let attaching = attaching.instrument(info_span!("bk.attach"));
    let what = format!("the session with {address}");
    deadline(&what, dialer.connect_timeout(), attaching).await
}
