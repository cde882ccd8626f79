//! SSH agents for the daemon: one call for each connection that a process in a step makes.

use std::{path::Path, pin::Pin, sync::Arc};

use bk_build::{DEFAULT_SSH_ID, LocalFailure};
use bk_proto::{
    headers, metadata,
    ssh::{
        BytesMessage, CheckAgentRequest, CheckAgentResponse,
        ssh_server::{SERVICE_NAME, Ssh, SshServer},
    },
};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Request, Response, Status, Streaming};

use super::dispatch::Services;
use crate::{
    agent::{self, Agent, AgentSet, BadFrame, Forward, Frames},
    host::{AgentRead, AgentWrite, split_agent},
    limits::{AGENT_CHUNK, MAX_SSH_MESSAGE},
    session::SessionState,
    text::shown,
};

/// Adds the service that forwards agents, if there are any.
pub(crate) fn serve(services: &mut Services, agents: AgentSet, state: Arc<SessionState>) {
    if agents.is_empty() {
        return;
    }
    let server = SshServer::new(SshService { agents, state }).max_decoding_message_size(MAX_SSH_MESSAGE);
    services.add(SERVICE_NAME, &["CheckAgent", "ForwardAgent"], server);
}

struct SshService {
    agents: AgentSet,
    state: Arc<SessionState>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

impl SshService {
    fn get(&self, id: &str) -> Result<&Forward, Status> {
        let id = if id.is_empty() { DEFAULT_SSH_ID } else { id };
        let unknown = || Status::not_found(format!("no SSH agent or key is forwarded as {}", shown(id)));
        self.agents.get(id).ok_or_else(unknown)
    }

    /// What went wrong is for the user, the daemon only learns that there is no agent.
    fn unavailable(&self, failure: LocalFailure) -> Status {
        self.state.fail(failure.into());
        Status::unavailable("the SSH agent cannot be reached")
    }
}

#[tonic::async_trait]
impl Ssh for SshService {
    type ForwardAgentStream = Messages;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.get(&request.get_ref().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let id = metadata::first(request.metadata(), headers::SSH_ID).unwrap_or_default();
        let forward = self.get(&String::from_utf8_lossy(&id))?;
        let connect = async |path: &Path| agent::connect(path).await.map_err(|e| self.unavailable(e));
        let agent = match forward {
            Forward::Raw(path) => {
                let (read, write) = split_agent(connect(path).await?);
                let pipe = Pipe {
                    inbound: request.into_inner(),
                    read,
                    write: Some(write),
                    pending: Bytes::new(),
                };
                return Ok(Response::new(stream::try_unfold(pipe, Pipe::next).boxed()));
            }
            Forward::Agent(path) => Agent::Socket(connect(path).await?),
            Forward::Keys(keys) => Agent::Keys(keys.clone()),
        };
        let filtered = Filtered {
            inbound: request.into_inner(),
            frames: Frames::default(),
            agent,
        };
        Ok(Response::new(
            stream::try_unfold(filtered, Filtered::next).boxed(),
        ))
    }
}

fn message(data: Bytes) -> BytesMessage {
    BytesMessage { data }
}

/// A connection on which only some requests pass: read, answered and sent one by one.
struct Filtered {
    inbound: Streaming<BytesMessage>,
    frames: Frames,
    agent: Agent,
}

impl Filtered {
    async fn next(mut self) -> Result<Option<(BytesMessage, Self)>, Status> {
        loop {
            let frame = self.frames.next().map_err(|BadFrame(size)| {
                Status::invalid_argument(format!("an SSH agent request cannot be {size} bytes long"))
            })?;
            if let Some(request) = frame {
                let answer = self.agent.answer(request).await.map_err(lost)?;
                return Ok(Some((message(answer), self)));
            }
            match self.inbound.message().await? {
                Some(part) => self.frames.push(&part.data),
                None => return Ok(None),
            }
        }
    }
}

/// A connection whose bytes pass as they are, in both directions at once.
struct Pipe {
    inbound: Streaming<BytesMessage>,
    read: AgentRead,
    /// None once the other side has sent everything: dropping it ends the sending direction.
    write: Option<AgentWrite>,
    /// What came in and is not written yet.
    pending: Bytes,
}

impl Pipe {
    async fn next(mut self) -> Result<Option<(BytesMessage, Self)>, Status> {
        let mut buffer = BytesMut::with_capacity(AGENT_CHUNK);
        loop {
            let writing = !self.pending.is_empty();
            tokio::select! {
                written = write_some(&mut self.write, &mut self.pending), if writing => {
                    if written.is_err() {
                        // The socket takes no more; it may still have something to say.
                        (self.write, self.pending) = (None, Bytes::new());
                    }
                }
                part = self.inbound.message(), if !writing && self.write.is_some() => match part? {
                    Some(part) => self.pending = part.data,
                    None => self.write = None,
                },
                read = self.read.read_buf(&mut buffer) => {
                    return match read.map_err(lost)? {
                        0 => Ok(None),
                        _ => Ok(Some((message(buffer.freeze()), self))),
                    };
                }
            }
        }
    }
}

async fn write_some(write: &mut Option<AgentWrite>, pending: &mut Bytes) -> std::io::Result<()> {
    match write {
        Some(write) => write.write_buf(pending).await.map(drop),
        None => Err(std::io::ErrorKind::BrokenPipe.into()),
    }
}

fn lost(error: std::io::Error) -> Status {
    Status::unavailable(format!("the connection to the SSH agent broke: {error}"))
}
