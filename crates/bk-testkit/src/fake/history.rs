//! What a fake daemon keeps of its builds: a record with provenance, and a content store, honest or not.

use std::collections::BTreeMap;

use bk_proto::{
    content::{
        AbortRequest, DeleteContentRequest, InfoRequest, InfoResponse, ListContentRequest,
        ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
        ReadContentResponse, StatusRequest, StatusResponse, UpdateRequest, UpdateResponse,
        WriteContentRequest, WriteContentResponse, content_server::Content,
    },
    control::{BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildResultInfo, Descriptor},
};
use bytes::Bytes;
use tokio_stream::{Iter, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::snapshot::ContentDigest;

/// What a fake daemon keeps of each build.
#[derive(Clone, Debug, Default)]
pub struct History {
    provenance: BTreeMap<String, String>,
    blobs: BTreeMap<String, Vec<(i64, Bytes)>>,
    pub(crate) answer: BTreeMap<String, String>,
    pub(crate) silent: bool,
    pub(crate) forgets: bool,
    pub(crate) events: Option<Vec<BuildHistoryEvent>>,
    pub(crate) endless: bool,
}

impl History {
    /// A history that keeps nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a blob; returns its digest.
    pub fn blob(&mut self, bytes: &[u8]) -> String {
        let hex: String = ContentDigest::of(bytes)
            .0
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let digest = format!("sha256:{hex}");
        self.odd_blob(&digest, vec![(0, Bytes::copy_from_slice(bytes))]);
        digest
    }

    /// Adds a blob that is sent in these pieces, each with where it claims to stand, whatever its digest says.
    pub fn odd_blob(&mut self, digest: &str, pieces: Vec<(i64, Bytes)>) {
        self.blobs.insert(digest.to_owned(), pieces);
    }

    /// Says that the provenance for `platform` is the blob `digest`; an empty platform is that of a build for one.
    #[must_use]
    pub fn provenance(mut self, platform: &str, digest: &str) -> Self {
        self.provenance.insert(platform.to_owned(), digest.to_owned());
        self
    }

    /// Adds to what the exporters answer.
    #[must_use]
    pub fn answer(mut self, key: &str, value: &str) -> Self {
        self.answer.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Never answers when it is asked about a build.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Has no record of any build.
    #[must_use]
    pub fn forgets(mut self) -> Self {
        self.forgets = true;
        self
    }

    /// Tells of these builds, and not of those that were made here.
    #[must_use]
    pub fn events(mut self, events: Vec<BuildHistoryEvent>) -> Self {
        self.events = Some(events);
        self
    }

    /// Never ends a list.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// What is told to whoever asks for that build, or for all.
    pub(crate) fn told(&self, reference: &str) -> Vec<BuildHistoryEvent> {
        match &self.events {
            _ if self.forgets => Vec::new(),
            Some(events) => {
                let is_meant = |event: &&BuildHistoryEvent| {
                    let of = event.record.as_ref().map(|record| &*record.r#ref);
                    reference.is_empty() || of == Some(reference)
                };
                events.iter().filter(is_meant).cloned().collect()
            }
            None => vec![BuildHistoryEvent {
                r#type: BuildHistoryEventType::Complete.into(),
                record: Some(self.record(reference)),
            }],
        }
    }

    /// The record of a build.
    fn record(&self, reference: &str) -> BuildHistoryRecord {
        let result = |digest: &String| BuildResultInfo {
            attestations: vec![Descriptor {
                media_type: "application/vnd.in-toto+json".to_owned(),
                digest: digest.clone(),
                annotations: [(
                    "in-toto.io/predicate-type".to_owned(),
                    "https://slsa.dev/provenance/v0.2".to_owned(),
                )]
                .into(),
                ..Descriptor::default()
            }],
            ..BuildResultInfo::default()
        };
        let named = self
            .provenance
            .iter()
            .filter(|(platform, _)| !platform.is_empty());
        BuildHistoryRecord {
            r#ref: reference.to_owned(),
            result: self.provenance.get("").map(result),
            results: named.map(|(p, digest)| (p.clone(), result(digest))).collect(),
            ..BuildHistoryRecord::default()
        }
    }
}

/// The content service: it only reads.
pub(crate) struct ContentApi(pub(crate) BTreeMap<String, Vec<(i64, Bytes)>>);

impl ContentApi {
    pub(crate) fn new(history: Option<&History>) -> Self {
        Self(history.map(|h| h.blobs.clone()).unwrap_or_default())
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("this store is only read"))
}

#[tonic::async_trait]
impl Content for ContentApi {
    type ListStream = ReceiverStream<Result<ListContentResponse, Status>>;
    type ReadStream = Iter<std::vec::IntoIter<Result<ReadContentResponse, Status>>>;
    type WriteStream = ReceiverStream<Result<WriteContentResponse, Status>>;

    async fn read(&self, request: Request<ReadContentRequest>) -> Answer<Self::ReadStream> {
        let digest = request.into_inner().digest;
        let Some(pieces) = self.0.get(&digest) else {
            return Err(Status::not_found(format!("content {digest}: not found")));
        };
        let pieces: Vec<_> = pieces
            .iter()
            .map(|(offset, data)| {
                Ok(ReadContentResponse {
                    offset: *offset,
                    data: data.clone(),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Answer<InfoResponse> {
        no()
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Answer<UpdateResponse> {
        no()
    }

    async fn list(&self, _: Request<ListContentRequest>) -> Answer<Self::ListStream> {
        no()
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Answer<()> {
        no()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        no()
    }

    async fn list_statuses(&self, _: Request<ListStatusesRequest>) -> Answer<ListStatusesResponse> {
        no()
    }

    async fn write(&self, _: Request<Streaming<WriteContentRequest>>) -> Answer<Self::WriteStream> {
        no()
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Answer<()> {
        no()
    }
}
