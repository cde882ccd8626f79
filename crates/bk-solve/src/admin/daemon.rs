//! Who the daemon is, and whether it answers.

use std::time::Instant;

use bk_build::{BuildError, BuildkitInfo, DaemonInfo, GcRule, Pong, Worker};
use bk_proto::{
    control::{InfoRequest, ListWorkersRequest},
    worker::{BuildkitVersion as WireVersion, WorkerRecord},
};
use tonic::Code;

use super::{ControlAdmin, Failed, able};
use crate::{
    channel::Channel,
    limits::ADMIN_ANSWER,
    requires::{BuildkitVersion, buildkit_of},
    solve::client,
};

pub(super) async fn workers(
    admin: &ControlAdmin,
    channel: &Channel,
    filters: &[String],
) -> Result<Vec<Worker>, BuildError> {
    let request = ListWorkersRequest {
        filter: filters.to_vec(),
    };
    let what = "the list of workers";
    let mut client = client(channel);
    let answer = admin
        .answer(what, ADMIN_ANSWER, client.list_workers(request))
        .await;
    let answer = answer.map_err(|e| admin.failed(e, what, BuildkitVersion(0, 3), "18.9"))?;
    Ok(answer.into_inner().record.into_iter().map(worker).collect())
}

pub(super) async fn info(admin: &ControlAdmin) -> Result<DaemonInfo, BuildError> {
    let channel = admin.open().await?;
    let mut info = DaemonInfo::new(admin.dialer.info());
    let workers = workers(admin, &channel, &[]).await?;
    let mut control = client(&channel);
    let what = "the daemon's version";
    let asked = admin
        .answer(what, ADMIN_ANSWER, control.info(InfoRequest {}))
        .await;
    let (said, tells) = match asked {
        Ok(answer) => (answer.into_inner().buildkit_version.map(buildkit), true),
        // Before BuildKit 0.11.
        Err(Failed::Status(status)) if status.code() == Code::Unimplemented => (None, false),
        Err(e) => return Err(admin.failed(e, what, BuildkitVersion(0, 11), "24.0")),
    };
    info.buildkit = said.or_else(|| workers.first().and_then(|w| w.buildkit.clone()));
    let line = buildkit_of(&info.builder).or_else(|| {
        // A buildkitd says it here, if it did not say it when it was connected to.
        let version = &info.buildkit.as_ref()?.version;
        buildkit_of(&bk_build::BuilderInfo::new("buildkitd", "").version(version))
    });
    info.buildkit_line = line.map(|BuildkitVersion(major, minor)| format!("{major}.{minor}"));
    info.capabilities = able::of(line, info.builder.backend == "docker", tells, &workers);
    info.workers = Some(workers);
    Ok(info)
}

pub(super) async fn ping(admin: &ControlAdmin) -> Result<Pong, BuildError> {
    let begun = Instant::now();
    let channel = admin.open().await?;
    let connected = begun.elapsed();
    workers(admin, &channel, &[]).await?;
    Ok(Pong::new(connected, begun.elapsed().saturating_sub(connected)))
}

fn worker(wire: WorkerRecord) -> Worker {
    let mut worker = Worker::default();
    worker.id = wire.id;
    worker.labels = wire.labels.into_iter().collect();
    worker.platforms = wire.platforms.iter().map(crate::solve::platform).collect();
    let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
    let rules = wire.gc_policy.into_iter().map(|wire| {
        let mut rule = GcRule::default();
        rule.all = wire.all;
        rule.filters = wire.filters;
        rule.keep_seconds = bytes(wire.keep_duration) / 1_000_000_000;
        rule.reserved_space = bytes(wire.reserved_space);
        rule.max_used_space = bytes(wire.max_used_space);
        rule.min_free_space = bytes(wire.min_free_space);
        rule
    });
    worker.gc_rules = rules.collect();
    worker.buildkit = wire.buildkit_version.map(buildkit);
    worker.devices = wire.cdi_devices.into_iter().map(|d| d.name).collect();
    worker
}

fn buildkit(wire: WireVersion) -> BuildkitInfo {
    let mut info = BuildkitInfo::default();
    info.package = wire.package;
    info.version = wire.version;
    info.revision = wire.revision;
    info.dockerfile = wire.dockerfile_version;
    info
}
