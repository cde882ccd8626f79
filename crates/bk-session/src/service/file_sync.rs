//! Files to the daemon.
use std::sync::Arc;
use std::pin::Pin;
use bk_build::EventSink;
use bk_proto::{filesync::file_sync_server::FileSync, fsutil::Packet};
use futures_core::Stream;
use tonic::{Request, Response, Status, Streaming};
use crate::{session::SessionState, sources::Sources};
pub(crate) struct FileSyncService { sources: Sources, events: EventSink, state: Arc<SessionState> }
impl FileSyncService { pub(crate) fn new(sources: Sources, events: EventSink, state: Arc<SessionState>) -> Self { Self { sources, events, state } } }
type PacketStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;
#[tonic::async_trait]
impl FileSync for FileSyncService {
    type DiffCopyStream = PacketStream;
    type TarStreamStream = PacketStream;
    async fn diff_copy(&self, _r: Request<Streaming<Packet>>) -> Result<Response<PacketStream>, Status> { let _ = (&self.sources, &self.events, &self.state); Err(Status::unimplemented("")) }
    async fn tar_stream(&self, _r: Request<Streaming<Packet>>) -> Result<Response<PacketStream>, Status> { Err(Status::unimplemented("not used")) }
}
