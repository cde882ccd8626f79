//! Blobs for the daemon, and from it: one thin adapter over the layouts of a build.
//!
//! The rule: the daemon chooses among the stores that the request named, and what it says becomes a path only as a digest
//! that was checked or as a hash. Every step that touches the disk runs on a thread for that, one at a time for each
//! stream, so a slow disk holds up nothing but its stream.

use std::{
    io,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bk_build::LocalFailure;
use bk_proto::{
    content::{
        self, AbortRequest, DeleteContentRequest, InfoRequest, InfoResponse, ListContentRequest,
        ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
        ReadContentResponse, StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteAction,
        WriteContentRequest, WriteContentResponse,
        content_server::{Content, ContentServer, SERVICE_NAME},
    },
    headers, metadata,
};
use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use prost_types::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming};

use super::dispatch::Services;
use crate::{
    content::{BlobInfo, Contents, Digest, Fault, Ingest, IngestStatus, Store, abort, status, statuses},
    limits::{CONTENT_CHUNK, CONTENT_LIST, MAX_INGEST_REF, MAX_INGESTS, MAX_MESSAGE},
    session::SessionState,
    text::shown,
};

/// Adds the service for blobs, if there are layouts.
pub(crate) fn serve(services: &mut Services, contents: Contents, state: Arc<SessionState>) {
    if contents.is_empty() {
        return;
    }
    let service = ContentService {
        contents,
        state,
        uploads: Arc::new(Semaphore::new(MAX_INGESTS)),
    };
    let server = ContentServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(usize::MAX);
    let methods = &[
        "Abort",
        "Delete",
        "Info",
        "List",
        "ListStatuses",
        "Read",
        "Status",
        "Update",
        "Write",
    ];
    services.add(SERVICE_NAME, methods, server);
}

struct ContentService {
    contents: Contents,
    state: Arc<SessionState>,
    uploads: Arc<Semaphore>,
}

/// A store, and who is told when it fails.
#[derive(Clone)]
struct At {
    store: Arc<Store>,
    state: Arc<SessionState>,
}

impl ContentService {
    fn at<T>(&self, request: &Request<T>) -> Result<At, Status> {
        let id = metadata::first(request.metadata(), headers::STORE_ID)
            .ok_or_else(|| Status::invalid_argument("no content store is named"))?;
        let store = self.contents.get(&id).ok_or_else(|| {
            Status::not_found(format!(
                "there is no content store {}",
                shown(&String::from_utf8_lossy(&id))
            ))
        })?;
        Ok(At {
            store: store.clone(),
            state: self.state.clone(),
        })
    }

    fn writable<T>(&self, request: &Request<T>) -> Result<At, Status> {
        let at = self.at(request)?;
        match at.store.is_writable() {
            true => Ok(at),
            false => Err(Status::permission_denied("this content store is read only")),
        }
    }
}

/// Runs what blocks.
async fn off<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Status::internal(format!("the work ended early: {e}"))))
}

fn digest_of(text: &str) -> Result<Digest, Status> {
    Digest::parse(text).ok_or_else(|| Status::invalid_argument(format!("{} is no digest", shown(text))))
}

fn reference_of(text: &str) -> Result<&str, Status> {
    match text.len() {
        1..=MAX_INGEST_REF => Ok(text),
        0 => Err(Status::invalid_argument("the upload has no name")),
        _ => Err(Status::invalid_argument("the name of the upload is too long")),
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp {
        seconds: number(since.as_secs()),
        nanos: i32::try_from(since.subsec_nanos()).ok()?,
    })
}

fn info_of(digest: &Digest, info: BlobInfo) -> content::Info {
    content::Info {
        digest: digest.to_string(),
        size: number(info.size),
        created_at: timestamp(info.modified),
        updated_at: timestamp(info.modified),
        ..content::Info::default()
    }
}

fn status_of(status: &IngestStatus, expected: Option<&Digest>) -> content::Status {
    content::Status {
        started_at: timestamp(status.started),
        updated_at: timestamp(status.updated),
        r#ref: status.reference.clone(),
        offset: number(status.offset),
        total: number(status.total),
        expected: expected.map(ToString::to_string).unwrap_or_default(),
    }
}

impl At {
    /// What the daemon is told of a failure of the disk. What it was is for the user.
    fn io(&self, what: &str, error: io::Error) -> Status {
        if error.kind() == io::ErrorKind::NotFound {
            return Status::not_found(format!("{what}: there is no such thing"));
        }
        let text = format!("{what} failed on the client's side");
        let status = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::resource_exhausted(text),
            _ => Status::failed_precondition(text),
        };
        let failure = LocalFailure::new(self.store.path(), format!("{what} failed")).caused_by(error);
        if self.store.is_vital() {
            self.state.fail(failure.into());
        } else {
            // The build goes on without the cache; who asked for it hears of it in the end.
            self.store.note(failure);
        }
        status
    }

    /// The same for a blob that is to be read. Whether it can be done without is for the daemon to know.
    fn unread(&self, digest: &Digest, error: io::Error) -> Status {
        if error.kind() == io::ErrorKind::NotFound {
            self.state.missing(digest.to_string(), self.store.lack(digest));
            return Status::not_found(format!("there is no blob {digest}"));
        }
        self.io(&format!("reading {digest}"), error)
    }

    fn fault(&self, what: &str, fault: Fault) -> Status {
        match fault {
            Fault::Exists(digest) => Status::already_exists(format!("{digest} is there")),
            Fault::Busy => Status::unavailable("another one writes this upload"),
            Fault::OutOfRange(text) => Status::out_of_range(text),
            Fault::Mismatch(text) => Status::failed_precondition(text),
            Fault::Io(error) => self.io(what, error),
        }
    }
}

/// An answer of several messages.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Content for ContentService {
    type ListStream = Messages<ListContentResponse>;
    type ReadStream = Messages<ReadContentResponse>;
    type WriteStream = Messages<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let at = self.at(&request)?;
        let digest = digest_of(&request.into_inner().digest)?;
        off(move || {
            let found = at.store.read(|layout| Ok(layout.blob(&digest)?.1));
            let info = found.map_err(|e| at.unread(&digest, e))?;
            Ok(Response::new(InfoResponse {
                info: Some(info_of(&digest, info)),
            }))
        })
        .await
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        self.at(&request)?;
        Err(Status::failed_precondition("blobs on disk have no labels"))
    }

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        let at = self.at(&request)?;
        if !request.into_inner().filters.is_empty() {
            return Err(Status::unimplemented("blobs on disk are not filtered"));
        }
        let blobs = off(move || {
            let list = at.store.read(|layout| layout.list());
            list.map_err(|e| at.io("listing the blobs", e))
        })
        .await?;
        let list = stream::unfold(blobs.into_iter(), |mut blobs| async move {
            let info: Vec<_> = blobs
                .by_ref()
                .take(CONTENT_LIST)
                .map(|(digest, info)| info_of(&digest, info))
                .collect();
            (!info.is_empty()).then_some((Ok(ListContentResponse { info }), blobs))
        });
        Ok(Response::new(Box::pin(list)))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        self.at(&request)?;
        Err(Status::permission_denied(
            "blobs on the client's disk are not removed by a daemon",
        ))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let at = self.at(&request)?;
        let asked = request.into_inner();
        let digest = digest_of(&asked.digest)?;
        let name = digest.clone();
        let opening = at.clone();
        let (file, size) = off(move || {
            let found = opening.store.read(|layout| layout.blob(&name));
            let (file, info) = found.map_err(|e| opening.unread(&name, e))?;
            Ok((Arc::new(file), info.size))
        })
        .await?;
        let offset = u64::try_from(asked.offset)
            .ok()
            .filter(|offset| *offset <= size)
            .ok_or_else(|| Status::out_of_range(format!("{digest} has {size} bytes")))?;
        let end = match u64::try_from(asked.size) {
            Ok(0) | Err(_) => size,
            Ok(wanted) => offset.saturating_add(wanted).min(size),
        };
        // The next piece is read when this one was taken: a daemon that has enough cancels the call.
        let pieces = stream::try_unfold(offset, move |offset| {
            let (file, at, digest) = (file.clone(), at.clone(), digest.clone());
            async move {
                if offset >= end {
                    return Ok(None);
                }
                off(move || {
                    let wanted = (end - offset).min(CONTENT_CHUNK as u64);
                    let mut data = vec![0; usize::try_from(wanted).unwrap_or(CONTENT_CHUNK)];
                    file.read_exact_at(&mut data, offset)
                        .map_err(|e| at.io(&format!("reading {digest}"), e))?;
                    let piece = ReadContentResponse {
                        offset: number(offset),
                        data: Bytes::from(data),
                    };
                    Ok(Some((piece, offset + wanted)))
                })
                .await
            }
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let at = self.at(&request)?;
        let reference = request.into_inner().r#ref;
        reference_of(&reference)?;
        off(move || {
            let found = at.store.read(|layout| status(layout, &reference));
            let found = found.map_err(|e| at.io("looking at the upload", e))?;
            Ok(Response::new(StatusResponse {
                status: Some(status_of(&found, None)),
            }))
        })
        .await
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        let at = self.at(&request)?;
        if !request.into_inner().filters.is_empty() {
            return Err(Status::unimplemented("uploads on disk are not filtered"));
        }
        off(move || {
            let found = match at.store.read(statuses) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
                found => found.map_err(|e| at.io("listing the uploads", e))?,
            };
            Ok(Response::new(ListStatusesResponse {
                statuses: found.iter().map(|s| status_of(s, None)).collect(),
            }))
        })
        .await
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let at = self.writable(&request)?;
        let permit = self
            .uploads
            .clone()
            .try_acquire_owned()
            .map_err(|_| Status::unavailable("too many uploads at once"))?;
        let writing = Writing {
            inbound: request.into_inner(),
            upload: Some(Upload {
                ingest: None,
                at,
                total: 0,
                expected: None,
            }),
            _permit: permit,
        };
        // Each request is answered before the next one is looked at.
        let answers = stream::try_unfold(writing, |mut writing| async move {
            let Some(mut upload) = writing.upload.take() else {
                return Ok(None);
            };
            let Some(message) = writing.inbound.message().await? else {
                return Ok(None);
            };
            let ends = message.action() == WriteAction::Commit;
            let (upload, answer) = off(move || {
                let answer = upload.step(message)?;
                Ok((upload, answer))
            })
            .await?;
            writing.upload = (!ends).then_some(upload);
            Ok(Some((answer, writing)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        let at = self.writable(&request)?;
        let reference = request.into_inner().r#ref;
        reference_of(&reference)?;
        off(move || {
            let done = at.store.read(|layout| Ok(abort(layout, &reference)));
            let done = done.unwrap_or_else(|e| Err(Fault::Io(e)));
            done.map_err(|fault| at.fault("removing the upload", fault))?;
            Ok(Response::new(()))
        })
        .await
    }
}

/// A stream that writes one blob.
struct Writing {
    inbound: Streaming<WriteContentRequest>,
    /// Gone when the blob is complete.
    upload: Option<Upload>,
    _permit: OwnedSemaphorePermit,
}

/// One blob that is written.
struct Upload {
    /// Goes before the store: what is left of it is removed before the store tidies up.
    ingest: Option<Ingest>,
    at: At,
    total: u64,
    expected: Option<Digest>,
}

impl Upload {
    /// Takes one request. Blocks.
    fn step(&mut self, message: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        let at = self.at.clone();
        let size = |n: i64| {
            u64::try_from(n).map_err(|_| Status::invalid_argument(format!("{n} is no number of bytes")))
        };
        let (total, offset) = (size(message.total)?, size(message.offset)?);
        let action = message.action();
        if WriteAction::try_from(message.action).is_err() {
            return Err(Status::invalid_argument("there is no such step"));
        }
        if total != 0 {
            self.total = total;
        }
        if !message.expected.is_empty() {
            self.expected = Some(digest_of(&message.expected)?);
        }
        let expected = self.expected.as_ref();
        let ingest = match &mut self.ingest {
            Some(ingest) => ingest,
            None => {
                let reference = reference_of(&message.r#ref)?;
                let begun = at.store.begin(reference, self.total, expected);
                self.ingest
                    .insert(begun.map_err(|fault| at.fault("beginning a blob", fault))?)
            }
        };
        if total != 0 {
            ingest.set_total(total);
        }
        let failed = |fault| at.fault("writing a blob", fault);
        if action != WriteAction::Stat
            && (offset != 0 || !message.data.is_empty() || action == WriteAction::Write)
        {
            at.store.write(ingest, offset, &message.data).map_err(failed)?;
        }
        let digest = match action {
            WriteAction::Commit => at.store.commit(ingest, self.total, expected).map_err(failed)?,
            _ => ingest.digest(),
        };
        let status = ingest.status();
        Ok(WriteContentResponse {
            action: action.into(),
            started_at: timestamp(status.started),
            updated_at: timestamp(status.updated),
            offset: number(status.offset),
            total: number(self.total),
            digest: digest.to_string(),
        })
    }
}
