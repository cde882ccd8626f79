//! The daemon's history of builds.
//!
//! The rule: no request has a limit of records. A daemon of BuildKit 0.25 that has removed a record dies of one.

use std::{collections::BTreeMap, time::SystemTime};

use bk_build::{
    BuildError, BuildEvent, Descriptor, EventSink, HistoryError, HistoryExporter, HistoryRecord,
    HistoryResult, HistoryState, InputError, ProtocolFailure, limits::MAX_HISTORY_BLOB,
};
use bk_proto::{
    control::{
        BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, BuildResultInfo,
        Descriptor as WireDescriptor, StatusRequest, UpdateBuildHistoryRequest,
    },
    rpc_status::Status as RpcStatus,
};
use prost::Message as _;
use tokio::time::timeout;
use tonic::Code;

use super::{ControlAdmin, Failed};
use crate::{
    channel::Channel,
    content::{BlobError, BlobReader},
    fold::StatusFold,
    limits::{ADMIN_ANSWER, ADMIN_WORK, MAX_HISTORY_BYTES, MAX_HISTORY_RECORDS},
    requires::BuildkitVersion,
    solve::client,
};

const WHAT: &str = "the build history";
const SINCE: BuildkitVersion = BuildkitVersion(0, 11);
const ENGINE: &str = "24.0";

pub(super) async fn list(admin: &ControlAdmin) -> Result<Vec<HistoryRecord>, BuildError> {
    let channel = admin.open().await?;
    let records = read(admin, &channel, "").await?;
    let mut records: Vec<_> = records.into_iter().map(from_wire).collect();
    // Without a time comes last; what runs is as new as its beginning.
    records.sort_by(|a, b| {
        let order = b.created_at.cmp(&a.created_at);
        order.then_with(|| a.build_ref.cmp(&b.build_ref))
    });
    Ok(records)
}

pub(super) async fn record(admin: &ControlAdmin, build_ref: &str) -> Result<HistoryRecord, BuildError> {
    let channel = admin.open().await?;
    one(admin, &channel, build_ref).await.map(from_wire)
}

/// The record of a build.
async fn one(
    admin: &ControlAdmin,
    channel: &Channel,
    build_ref: &str,
) -> Result<BuildHistoryRecord, BuildError> {
    let records = read(admin, channel, build_ref).await?;
    let found = records.into_iter().find(|r| r.r#ref == build_ref);
    found.ok_or_else(|| unknown(build_ref))
}

pub(super) fn unknown(build_ref: &str) -> BuildError {
    let why = format!("the daemon remembers no build `{build_ref}`");
    InputError::new("REF", why, "the whole id of a build").into()
}

/// The records of all builds, or of one, each as it stands now.
pub(super) async fn read(
    admin: &ControlAdmin,
    channel: &Channel,
    build_ref: &str,
) -> Result<Vec<BuildHistoryRecord>, BuildError> {
    // A daemon may tell of the same build for ever.
    let listing = timeout(ADMIN_WORK, listed(admin, channel, build_ref, BOUNDS)).await;
    listing.unwrap_or_else(|_| Err(admin.late(WHAT, ADMIN_WORK)))
}

/// What is held of a list.
#[derive(Clone, Copy)]
struct Bounds {
    records: usize,
    bytes: usize,
}

const BOUNDS: Bounds = Bounds {
    records: MAX_HISTORY_RECORDS,
    bytes: MAX_HISTORY_BYTES,
};

async fn listed(
    admin: &ControlAdmin,
    channel: &Channel,
    build_ref: &str,
    bounds: Bounds,
) -> Result<Vec<BuildHistoryRecord>, BuildError> {
    let request = BuildHistoryRequest {
        r#ref: build_ref.to_owned(),
        early_exit: true,
        ..BuildHistoryRequest::default()
    };
    let failed = |e| match e {
        Failed::Status(s) if !build_ref.is_empty() && s.code() == Code::NotFound => unknown(build_ref),
        e => admin.failed(e, WHAT, SINCE, ENGINE),
    };
    let mut control = client(channel);
    let asked = control.listen_build_history(request);
    let mut events = admin
        .answer(WHAT, ADMIN_ANSWER, asked)
        .await
        .map_err(failed)?
        .into_inner();
    let mut records: BTreeMap<String, BuildHistoryRecord> = BTreeMap::new();
    let mut held = 0;
    while let Some(event) = admin
        .answer(WHAT, ADMIN_ANSWER, events.message())
        .await
        .map_err(failed)?
    {
        // Without an id nothing can be asked about it.
        let Some(record) = event.record.filter(|r| !r.r#ref.is_empty()) else {
            continue;
        };
        if event.r#type == i32::from(BuildHistoryEventType::Deleted) {
            if let Some(gone) = records.remove(&record.r#ref) {
                held -= gone.encoded_len();
            }
            continue;
        }
        if let Some(known) = records.get(&record.r#ref)
            && known.generation > record.generation
        {
            continue;
        }
        held += record.encoded_len();
        if let Some(old) = records.insert(record.r#ref.clone(), record) {
            held -= old.encoded_len();
        }
        if records.len() > bounds.records || held > bounds.bytes {
            let text = format!(
                "the daemon tells of more than {} builds, or {} MiB of them",
                bounds.records,
                bounds.bytes >> 20
            );
            return Err(ProtocolFailure::new(text).into());
        }
    }
    Ok(records.into_values().collect())
}

pub(super) async fn logs(
    admin: &ControlAdmin,
    build_ref: &str,
    events: &EventSink,
) -> Result<(), BuildError> {
    let begun = record(admin, build_ref).await?;
    let running = begun.completed_at.is_none();
    let started = BuildEvent::Started {
        build_ref: build_ref.to_owned(),
        builder: admin.dialer.info(),
        at: begun.created_at.unwrap_or(SystemTime::UNIX_EPOCH),
    };
    events.emit(started).await;
    let channel = admin.open().await?;
    let mut control = client(&channel);
    let request = StatusRequest {
        r#ref: build_ref.to_owned(),
    };
    let what = "the progress of a build";
    let failed = |e| match e {
        Failed::Status(s) if s.code() == Code::NotFound => unknown(build_ref),
        e => admin.failed(e, WHAT, SINCE, ENGINE),
    };
    let answer = admin.answer(what, ADMIN_ANSWER, control.status(request)).await;
    let mut messages = answer.map_err(failed)?.into_inner();
    let (mut fold, mut batch) = (StatusFold::new(), Vec::new());
    loop {
        // A step of a build that runs may be silent for as long as it likes.
        let message = match running {
            true => messages.message().await.map_err(Failed::Status),
            false => admin.answer(what, ADMIN_WORK, messages.message()).await,
        };
        let Some(message) = message.map_err(failed)? else {
            break;
        };
        fold.apply(message, &mut batch);
        for event in batch.drain(..) {
            events.emit(event).await;
        }
    }
    let ended = match running {
        true => record(admin, build_ref).await?,
        false => begun,
    };
    let completed = BuildEvent::Completed {
        at: ended.completed_at.unwrap_or_else(SystemTime::now),
        error: ended.error.map(|e| e.message),
    };
    events.emit(completed).await;
    Ok(())
}

pub(super) async fn blob(admin: &ControlAdmin, blob: &Descriptor) -> Result<Vec<u8>, BuildError> {
    let digest = &*blob.digest;
    let too_large = || {
        let text = format!("{digest} is larger than {} MiB", MAX_HISTORY_BLOB >> 20);
        BuildError::from(ProtocolFailure::new(text))
    };
    if usize::try_from(blob.size).map_or(true, |size| size > MAX_HISTORY_BLOB) {
        return Err(too_large());
    }
    let channel = admin.open().await?;
    let mut reader = piece(admin, digest, BlobReader::open(&channel, digest)).await?;
    let mut bytes = Vec::new();
    while let Some(next) = piece(admin, digest, reader.next()).await? {
        if bytes.len() + next.len() > MAX_HISTORY_BLOB {
            return Err(too_large());
        }
        bytes.extend_from_slice(&next);
    }
    Ok(bytes)
}

/// Waits for a piece of a blob, and says what its failure means.
pub(super) async fn piece<T>(
    admin: &ControlAdmin,
    digest: &str,
    reading: impl Future<Output = Result<T, BlobError>> + Send,
) -> Result<T, BuildError> {
    let reading = async {
        match reading.await {
            Err(BlobError::Status(status)) => Err(status),
            Ok(piece) => Ok(Ok(piece)),
            Err(BlobError::Wrong(why)) => Ok(Err(why)),
        }
    };
    match admin.answer(digest, ADMIN_ANSWER, reading).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(why)) => Err(ProtocolFailure::new(why).into()),
        Err(e) => Err(admin.failed(e, WHAT, SINCE, ENGINE)),
    }
}

/// What is done to a record.
#[derive(Clone, Copy)]
pub(super) enum Change {
    Finalize,
    Pin(bool),
    Remove,
}

pub(super) async fn update(admin: &ControlAdmin, build_ref: &str, change: Change) -> Result<(), BuildError> {
    if build_ref.is_empty() {
        return Err(BuildError::Misuse(
            "a change of the history names no build".to_owned(),
        ));
    }
    let channel = admin.open().await?;
    let pinned = match change {
        Change::Pin(pinned) => pinned,
        // Before BuildKit 0.15 nothing is finalized, and the rest of the request counts.
        Change::Finalize => one(admin, &channel, build_ref).await?.pinned,
        Change::Remove => false,
    };
    let request = UpdateBuildHistoryRequest {
        r#ref: build_ref.to_owned(),
        pinned,
        delete: matches!(change, Change::Remove),
        finalize: matches!(change, Change::Finalize),
    };
    let what = "a change of the build history";
    // A trace is written within seconds of the build's end.
    let limit = match change {
        Change::Finalize => ADMIN_WORK,
        _ => ADMIN_ANSWER,
    };
    let mut control = client(&channel);
    let answer = admin
        .answer(what, limit, control.update_build_history(request))
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(Failed::Status(s)) if s.code() == Code::NotFound => Err(unknown(build_ref)),
        Err(e) => Err(admin.failed(e, WHAT, SINCE, ENGINE)),
    }
}

fn from_wire(wire: BuildHistoryRecord) -> HistoryRecord {
    let time = |stamp: Option<prost_types::Timestamp>| stamp.and_then(|t| SystemTime::try_from(t).ok());
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    let mut record = HistoryRecord::default();
    record.build_ref = wire.r#ref;
    record.frontend = wire.frontend;
    record.attrs = wire.frontend_attrs.into_iter().collect();
    let exporters = wire.exporters.into_iter();
    record.exporters = exporters
        .map(|e| HistoryExporter::new(e.r#type, e.attrs.into_iter().collect()))
        .collect();
    record.created_at = time(wire.created_at);
    record.completed_at = time(wire.completed_at);
    record.state = match &wire.error {
        _ if wire.completed_at.is_none() => HistoryState::Running,
        None => HistoryState::Completed,
        Some(error) if is_cancel(error) => HistoryState::Canceled,
        Some(_) => HistoryState::Error,
    };
    record.error = wire.error.map(|e| HistoryError::new(e.code, e.message));
    record.total_steps = count(wire.num_total_steps);
    record.completed_steps = count(wire.num_completed_steps);
    record.cached_steps = count(wire.num_cached_steps);
    record.warnings = count(wire.num_warnings);
    record.pinned = wire.pinned;
    record.generation = count(wire.generation);
    record.exporter_response = wire.exporter_response.into_iter().collect();
    record.logs = wire.logs.map(descriptor);
    record.trace = wire.trace.map(descriptor);
    record.external_error = wire.external_error.map(descriptor);
    let alone = wire.result.map(|result| (String::new(), result));
    let results = alone.into_iter().chain(wire.results);
    record.results = results.map(|(platform, r)| (platform, result(r))).collect();
    record
}

fn is_cancel(error: &RpcStatus) -> bool {
    error.code == Code::Cancelled as i32
}

fn result(wire: BuildResultInfo) -> HistoryResult {
    let mut result = HistoryResult::default();
    result.results = wire
        .results
        .into_iter()
        .map(|(i, d)| (i, descriptor(d)))
        .collect();
    if let (true, Some(only)) = (result.results.is_empty(), wire.result_deprecated) {
        result.results.insert(0, descriptor(only));
    }
    result.attestations = wire.attestations.into_iter().map(descriptor).collect();
    result
}

fn descriptor(wire: WireDescriptor) -> Descriptor {
    let mut descriptor = Descriptor::new(
        wire.media_type,
        wire.digest,
        u64::try_from(wire.size).unwrap_or(0),
    );
    descriptor.annotations = wire.annotations.into_iter().collect();
    descriptor
}

#[cfg(test)]
mod tests;
