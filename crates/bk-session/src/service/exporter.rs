//! Outputs that the program adds when the result is known.

use std::{collections::BTreeMap, sync::Arc};

use bk_build::{BuildError, BuiltResult, LocalFailure, Output, SessionExporter, Sink};
use bk_proto::exporter::{
    ExporterRequest, FinalizeExportRequest, FinalizeExportResponse, FindExportersRequest,
    FindExportersResponse,
    exporter_server::{Exporter, ExporterServer, SERVICE_NAME},
};
use tonic::{Request, Response, Status};

use super::dispatch::Services;
use crate::{exports::Exports, limits::MAX_MESSAGE, session::SessionState};

/// The program's exporter, and how its outputs are said to the daemon. Cheap to clone.
#[derive(Clone)]
pub struct LaterOutputs {
    exporter: Arc<dyn SessionExporter>,
    lower: Arc<Lower>,
}

/// Turns outputs into what the daemon is told, and where their bytes go.
pub type Lower = dyn Fn(Vec<Output>) -> Result<Vec<LaterOutput>, BuildError> + Send + Sync;

/// One output that the program adds.
#[derive(Clone, Debug)]
pub struct LaterOutput {
    /// Its number, counted on from the outputs of the request.
    pub output: usize,
    /// The exporter's name on the wire.
    pub kind: String,
    /// The exporter's attributes.
    pub attrs: BTreeMap<String, String>,
    /// Where the bytes go.
    pub sink: Sink,
}

impl LaterOutputs {
    /// Asks `exporter`, and says its outputs by `lower`.
    pub fn new(exporter: Arc<dyn SessionExporter>, lower: Arc<Lower>) -> Self {
        Self { exporter, lower }
    }
}

/// Adds the service that is asked for further exporters, if the program has any.
pub(crate) fn serve(
    services: &mut Services,
    later: Option<LaterOutputs>,
    exports: Exports,
    state: Arc<SessionState>,
) {
    if let Some(later) = later {
        let service = ExporterService {
            later,
            exports,
            state,
        };
        let server = ExporterServer::new(service).max_decoding_message_size(MAX_MESSAGE);
        services.add(SERVICE_NAME, &["FindExporters", "FinalizeExport"], server);
    }
}

struct ExporterService {
    later: LaterOutputs,
    exports: Exports,
    state: Arc<SessionState>,
}

impl ExporterService {
    /// The outputs of the program for a result, and room for them.
    async fn find(&self, result: &BuiltResult) -> Result<Vec<ExporterRequest>, BuildError> {
        let found = self.later.exporter.find(result).await.map_err(|e| {
            LocalFailure::new("session exporter", "the program could not say its outputs").caused_by(e)
        })?;
        let lowered = (self.later.lower)(found)?;
        let mut sinks = Vec::with_capacity(lowered.len());
        let mut exporters = Vec::with_capacity(lowered.len());
        for output in lowered {
            sinks.push((output.output, output.sink));
            exporters.push(ExporterRequest {
                r#type: output.kind,
                attrs: output.attrs,
            });
        }
        self.exports.add(sinks).await?;
        Ok(exporters)
    }

    /// Keeps a failure of this side and tells the daemon that there was one: what failed is for the user.
    fn fail(&self, error: BuildError) -> Status {
        self.state.fail(error);
        Status::failed_precondition("the exporter of the client failed")
    }
}

#[tonic::async_trait]
impl Exporter for ExporterService {
    async fn find_exporters(
        &self,
        request: Request<FindExportersRequest>,
    ) -> Result<Response<FindExportersResponse>, Status> {
        let request = request.into_inner();
        let result = BuiltResult::new(request.metadata, request.refs);
        match Box::pin(self.find(&result)).await {
            Ok(exporters) => Ok(Response::new(FindExportersResponse { exporters })),
            Err(e) => Err(self.fail(e)),
        }
    }

    async fn finalize_export(
        &self,
        request: Request<FinalizeExportRequest>,
    ) -> Result<Response<FinalizeExportResponse>, Status> {
        let answer = request.into_inner().exporter_response;
        match self.later.exporter.finalize(&answer).await {
            Ok(()) => Ok(Response::new(FinalizeExportResponse {})),
            Err(e) => {
                let why = "the program could not finish what was exported";
                Err(self.fail(LocalFailure::new("session exporter", why).caused_by(e).into()))
            }
        }
    }
}
