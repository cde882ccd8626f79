//! What is in the cache, and taking it out.

use std::time::{Duration, SystemTime};

use bk_build::{BuildError, CacheQuery, CacheRecord, DiskUsage, PruneOptions, Pruned, Refusal};
use bk_proto::control::{DiskUsageRequest, PruneRequest, UsageRecord};

use super::{ControlAdmin, daemon};
use crate::{
    limits::{ADMIN_WORK, MAX_DISK_USAGE},
    requires::{BuildkitVersion, buildkit_of},
    solve::client,
};

/// Every BuildKit has these calls.
const ALWAYS: (BuildkitVersion, &str) = (BuildkitVersion(0, 1), "18.9");
/// What first heeded the limits other than the reserved space.
const LIMITS: BuildkitVersion = BuildkitVersion(0, 17);
/// The first engine with that.
const LIMITS_ENGINE: &str = "28.0";

pub(super) async fn disk_usage(admin: &ControlAdmin, query: &CacheQuery) -> Result<DiskUsage, BuildError> {
    let channel = admin.open().await?;
    let request = DiskUsageRequest {
        filter: query.to_filter().into_iter().collect(),
        // Older daemons ignore the age: it is looked at here.
        age_limit: 0,
    };
    let mut client = client(&channel).max_decoding_message_size(MAX_DISK_USAGE);
    let what = "the list of the cache";
    let answer = admin.answer(what, ADMIN_WORK, client.disk_usage(request)).await;
    let answer = answer.map_err(|e| admin.failed(e, what, ALWAYS.0, ALWAYS.1))?;
    let cutoff = query
        .unused_for
        .and_then(|time| SystemTime::now().checked_sub(time));
    let mut records: Vec<_> = answer.into_inner().record.into_iter().map(record).collect();
    if let Some(cutoff) = cutoff {
        records.retain(|r| r.last_used_at.is_none_or(|used| used <= cutoff));
    }
    Ok(DiskUsage::new(records))
}

pub(super) async fn prune(
    admin: &ControlAdmin,
    options: &PruneOptions,
    each: &mut (dyn FnMut(CacheRecord) + Send),
) -> Result<Pruned, BuildError> {
    let channel = admin.open().await?;
    if options.max_used_space.is_some() || options.min_free_space.is_some() {
        knows_limits(admin, &channel).await?;
    }
    let bytes = |limit: Option<u64>| i64::try_from(limit.unwrap_or(0)).unwrap_or(i64::MAX);
    let request = PruneRequest {
        filter: options.query.to_filter().into_iter().collect(),
        all: options.all,
        keep_duration: nanoseconds(options.query.unused_for),
        reserved_space: bytes(options.reserved_space),
        max_used_space: bytes(options.max_used_space),
        min_free_space: bytes(options.min_free_space),
    };
    let what = "a removal from the cache";
    let failed = |e| admin.failed(e, what, ALWAYS.0, ALWAYS.1);
    let mut client = client(&channel);
    let answer = admin.answer(what, ADMIN_WORK, client.prune(request)).await;
    let mut removed = answer.map_err(failed)?.into_inner();
    let mut sum = Pruned::default();
    while let Some(wire) = admin
        .answer(what, ADMIN_WORK, removed.message())
        .await
        .map_err(failed)?
    {
        let record = record(wire);
        sum.records += 1;
        sum.bytes = sum.bytes.saturating_add(record.size);
        each(record);
    }
    Ok(sum)
}

/// Refuses limits on a daemon that does not know them: it would remove everything.
async fn knows_limits(admin: &ControlAdmin, channel: &crate::Channel) -> Result<(), BuildError> {
    const WHAT: &str = "--max-used-space or --min-free-space";
    let info = admin.dialer.info();
    // The newest BuildKit that engines of a line hold is no promise: only the next line's first one is.
    let engine = info.backend == "docker";
    match buildkit_of(&info) {
        Some(has) if has < LIMITS => return Err(admin.too_old(WHAT, Some(has), LIMITS, LIMITS_ENGINE)),
        Some(has) if !engine || has >= BuildkitVersion(0, 20) => return Ok(()),
        _ => {}
    }
    // A daemon that has such limits among its own rules heeds them.
    let workers = daemon::workers(admin, channel, &[]).await?;
    let own = workers.iter().flat_map(|w| &w.gc_rules);
    if own
        .into_iter()
        .any(|r| r.max_used_space != 0 || r.min_free_space != 0)
    {
        return Ok(());
    }
    if engine && buildkit_of(&info).is_some() {
        return Err(admin.too_old(WHAT, None, LIMITS, LIMITS_ENGINE));
    }
    let text = format!(
        "{WHAT} needs {LIMITS} (Docker Engine {LIMITS_ENGINE}), and the daemon does not say what it is; an older one \
         would remove everything"
    );
    Err(Refusal::new(tonic::Code::FailedPrecondition as i32, text)
        .hint("--reserved-space (--keep-storage) is heeded by every daemon")
        .into())
}

fn nanoseconds(time: Option<Duration>) -> i64 {
    time.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX))
}

fn record(wire: UsageRecord) -> CacheRecord {
    let time = |stamp: Option<prost_types::Timestamp>| stamp.and_then(|t| SystemTime::try_from(t).ok());
    let mut record = CacheRecord::new(wire.id);
    #[expect(deprecated, reason = "all that BuildKit up to 0.9 says")]
    let parent = wire.parent;
    record.parents = match wire.parents.is_empty() {
        true => Some(parent).filter(|p| !p.is_empty()).into_iter().collect(),
        false => wire.parents,
    };
    record.record_type = match wire.record_type.is_empty() {
        true => "regular".to_owned(),
        false => wire.record_type,
    };
    record.description = wire.description;
    record.size = u64::try_from(wire.size).unwrap_or(0);
    record.in_use = wire.in_use;
    record.mutable = wire.mutable;
    record.shared = wire.shared;
    record.created_at = time(wire.created_at);
    record.last_used_at = time(wire.last_used_at);
    record.usage_count = u64::try_from(wire.usage_count).unwrap_or(0);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_records_are_still_records() {
        #[expect(deprecated, reason = "what old daemons send")]
        let wire = UsageRecord {
            id: "x".to_owned(),
            size: -5,
            usage_count: -1,
            parent: "p".to_owned(),
            created_at: Some(prost_types::Timestamp {
                seconds: i64::MIN,
                nanos: -7,
            }),
            ..UsageRecord::default()
        };
        let record = record(wire);
        assert_eq!((record.size, record.usage_count, record.created_at), (0, 0, None));
        assert_eq!(
            (&*record.parents, &*record.record_type),
            (&["p".to_owned()][..], "regular")
        );
        assert_eq!(nanoseconds(Some(Duration::MAX)), i64::MAX);
    }
}
