//! The control service of the fake daemon.

use std::{future::pending, sync::Arc};

use bk_proto::{
    control::{
        BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse,
        InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest,
        SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse,
        UsageRecord, Vertex, VertexLog, VertexStatus, control_server::Control,
    },
    ops,
    worker::{BuildkitVersion, WorkerRecord},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    Fault, State,
    details::failure,
    frontend::Build,
    job::{Job, RunningJob},
    session,
};
use crate::limits;

/// Messages of a status stream that wait to be sent.
const MESSAGES: usize = 16;

pub(crate) struct ControlApi {
    state: Arc<State>,
}

impl ControlApi {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn version(&self) -> Option<BuildkitVersion> {
        let version = self.state.script.version.clone()?;
        Some(BuildkitVersion {
            package: "github.com/moby/buildkit".to_owned(),
            version,
            revision: "fake".to_owned(),
            ..BuildkitVersion::default()
        })
    }

    async fn job(&self, reference: &str) -> Result<Arc<Job>, Status> {
        let found = async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(job) = self.state.jobs.get(reference) {
                    return job;
                }
                changed.await;
            }
        };
        let late = |_| Status::not_found(format!("no such job {reference}"));
        tokio::time::timeout(limits::STATUS_WAIT, found)
            .await
            .map_err(late)
    }
}

#[tonic::async_trait]
impl Control for ControlApi {
    type PruneStream = ReceiverStream<Result<UsageRecord, Status>>;
    type StatusStream = ReceiverStream<Result<StatusResponse, Status>>;
    type SessionStream = ReceiverStream<Result<BytesMessage, Status>>;
    type ListenBuildHistoryStream = ReceiverStream<Result<BuildHistoryEvent, Status>>;

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let request = request.into_inner();
        self.state.script.begin();
        self.state.see(|seen| seen.solves.push(request.clone()));
        let Some(running) = RunningJob::begin(&self.state, &request.r#ref) else {
            return Err(Status::already_exists(format!("job ID {} exists", request.r#ref)));
        };
        for fault in self.state.script.faults() {
            match fault {
                Fault::FailSolve {
                    code,
                    message,
                    details,
                } => {
                    return Err(failure(Code::from_i32(*code), message, details.clone()));
                }
                Fault::RawDetails(bytes) => {
                    return Err(Status::with_details(
                        Code::Unknown,
                        "odd details",
                        bytes.clone().into(),
                    ));
                }
                Fault::HeaderBomb(bytes) => {
                    let mut answer = Response::new(SolveResponse::default());
                    super::hostile::bomb(answer.metadata_mut(), "x-bomb", *bytes);
                    return Ok(answer);
                }
                Fault::SilentSolve => pending::<()>().await,
                _ => {}
            }
        }
        if request.frontend != "dockerfile.v0" {
            return Err(Status::unknown(format!(
                "no such frontend {:?}",
                request.frontend
            )));
        }
        let build = Build {
            state: &self.state,
            job: &running.job,
            request: &request,
        };
        let mut exporter_response = build.run().await?;
        if let Some(history) = &self.state.script.history {
            exporter_response.extend(history.answer.clone());
        }
        Ok(Response::new(SolveResponse { exporter_response }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let reference = request.into_inner().r#ref;
        let script = &self.state.script;
        if script.has(|f| *f == Fault::NoStatus) {
            return Err(Status::not_found(format!("no such job {reference}")));
        }
        let (sender, receiver) = mpsc::channel(MESSAGES);
        if script.has(|f| *f == Fault::SilentStatus) {
            let stop = self.state.stop.clone();
            tokio::spawn(async move {
                tokio::select! { () = sender.closed() => {}, () = stop.cancelled() => {} }
            });
            return Ok(Response::new(ReceiverStream::new(receiver)));
        }
        if let Some(bytes) = script.faults().iter().find_map(|f| match f {
            Fault::EndlessStatus(bytes) => Some(*bytes),
            _ => None,
        }) {
            tokio::spawn(super::hostile::endless(sender, bytes));
            return Ok(Response::new(ReceiverStream::new(receiver)));
        }
        let job = self.job(&reference).await?;
        let early = script.has(|f| *f == Fault::StatusEndsEarly);
        let never = script.has(|f| *f == Fault::StatusNeverEnds);
        tokio::spawn(async move {
            let mut next = 0;
            while let Some(messages) = job.messages(next).await {
                for message in messages {
                    next += 1;
                    if sender.send(Ok(message)).await.is_err() || early {
                        return;
                    }
                }
            }
            if never {
                sender.closed().await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let bytes = session::attach(Arc::clone(&self.state), request).await?;
        Ok(Response::new(ReceiverStream::new(bytes)))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let platform = ops::Platform {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            ..ops::Platform::default()
        };
        let worker = WorkerRecord {
            id: "fake-worker".to_owned(),
            platforms: vec![platform],
            buildkit_version: self.version(),
            ..WorkerRecord::default()
        };
        Ok(Response::new(ListWorkersResponse { record: vec![worker] }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        match self.version() {
            Some(version) => Ok(Response::new(InfoResponse {
                buildkit_version: Some(version),
            })),
            None => Err(Status::unimplemented("unknown method Info")),
        }
    }

    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        Ok(Response::new(DiskUsageResponse::default()))
    }

    async fn prune(&self, _: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let (_, receiver) = mpsc::channel(1);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let Some(history) = &self.state.script.history else {
            return Err(Status::unimplemented("no history here"));
        };
        if history.silent {
            pending::<()>().await;
        }
        let (events, endless) = (history.told(&request.into_inner().r#ref), history.endless);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for event in events {
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
            if endless {
                sender.closed().await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        if self.state.script.history.is_none() {
            return Err(Status::unimplemented("no history here"));
        }
        self.state
            .see(|seen| seen.history_updates.push(request.into_inner()));
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

/// Progress that no healthy daemon sends.
pub(crate) fn odd_progress() -> StatusResponse {
    let stamp = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let vertexes = vec![
        Vertex {
            digest: "ends-before-it-starts".to_owned(),
            name: "odd \u{1b}[31mname\u{7}".to_owned(),
            inputs: vec!["never-announced".to_owned(), "ends-before-it-starts".to_owned()],
            completed: stamp(1, 0),
            ..Vertex::default()
        },
        Vertex {
            digest: String::new(),
            started: stamp(i64::MAX, i32::MAX),
            completed: stamp(i64::MIN, -5),
            cached: true,
            error: "odd".to_owned(),
            ..Vertex::default()
        },
    ];
    let statuses = vec![VertexStatus {
        id: "odd".to_owned(),
        vertex: "never-announced".to_owned(),
        current: -1,
        total: i64::MIN,
        ..VertexStatus::default()
    }];
    let logs = vec![VertexLog {
        vertex: "never-announced".to_owned(),
        stream: -9,
        msg: bytes::Bytes::from_static(b"\xff\xfe no line end"),
        ..VertexLog::default()
    }];
    StatusResponse {
        vertexes,
        statuses,
        logs,
        warnings: Vec::new(),
    }
}
