//! Administration of an engine: by BuildKit's control service where the route carries it, else by the engine's own API.
//!
//! The rule: what the engine's API cannot tell is refused with the reason, never answered with something near it.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use bk_build::{
    Able, Administration, BuildError, CacheQuery, CacheRecord, Capability, Comparison, DaemonInfo,
    DaemonTooOld, Descriptor, DiskUsage, EventSink, HistoryExport, HistoryRecord, InputError, Pong,
    PruneOptions, Pruned, Refusal, Sink, Worker,
};
use bk_solve::{ControlAdmin, buildkit_of, capabilities, deadline};
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use crate::{
    backend::DockerBackend,
    daemon::{ApiVersion, Daemon},
    engine,
    http1::{Connection, empty},
    limits::{ADMIN_ANSWER, ADMIN_WORK, MAX_CACHE_LIST, MAX_LINE},
    route::DockerRoute,
    site::Site,
};

/// The newest API whose list of the build cache has this shape; later ones have another.
const LIST_API: ApiVersion = ApiVersion::new(1, 47);
/// From here on the list can be had without those of images and volumes.
const LIST_ALONE_API: ApiVersion = ApiVersion::new(1, 42);
/// From here on a removal heeds limits other than what stays.
const LIMITS_API: ApiVersion = ApiVersion::new(1, 48);
/// gRPC `UNIMPLEMENTED`.
const UNIMPLEMENTED: i32 = 12;

/// Looks after the BuildKit inside an engine.
pub(crate) struct EngineAdmin {
    site: Site,
    daemon: Daemon,
    info: bk_build::BuilderInfo,
    route: DockerRoute,
    control: Option<ControlAdmin>,
}

impl EngineAdmin {
    /// By the control service, which `control` reaches.
    pub(crate) fn control(backend: &DockerBackend, control: ControlAdmin) -> Self {
        Self {
            control: Some(control),
            ..Self::alone(backend)
        }
    }

    /// By the engine's own API alone.
    pub(crate) fn alone(backend: &DockerBackend) -> Self {
        Self {
            site: backend.site.clone(),
            daemon: backend.daemon.clone(),
            info: bk_build::ImageBuilder::info(backend),
            route: backend.route(),
            control: None,
        }
    }

    /// The control service, for what the engine's API does not have.
    fn need(&self, what: &str) -> Result<&ControlAdmin, BuildError> {
        self.control.as_ref().ok_or_else(|| {
            let route = self.route.name();
            let text = format!("{what} cannot be asked for on the Docker route {route}");
            Refusal::new(UNIMPLEMENTED, text)
                .hint("the routes grpc and h2c can")
                .into()
        })
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        time: Duration,
        limit: usize,
    ) -> Result<Value, BuildError> {
        let asking = engine::json_of(&self.site, method, path, limit);
        let path = path.split('?').next().unwrap_or(path);
        deadline(&format!("an answer to {path} from {}", self.site), time, asking).await
    }

    /// Every record of the build cache.
    async fn cache(&self) -> Result<Vec<CacheRecord>, BuildError> {
        let api = self.daemon.used_api.min(LIST_API);
        let alone = if api >= LIST_ALONE_API {
            "?type=build-cache"
        } else {
            ""
        };
        let path = format!("/v{api}/system/df{alone}");
        let mut answer = self.json(Method::GET, &path, ADMIN_WORK, MAX_CACHE_LIST).await?;
        let list = answer.get_mut("BuildCache").map(Value::take).unwrap_or_default();
        let list: Option<Vec<Listed>> = serde_json::from_value(list).map_err(|e| {
            bk_build::ProtocolFailure::new("the engine's list of its cache makes no sense").caused_by(e)
        })?;
        Ok(list
            .unwrap_or_default()
            .into_iter()
            .map(CacheRecord::from)
            .collect())
    }

    /// What the engine says of itself beside its version.
    async fn facts(&self) -> Result<BTreeMap<String, String>, BuildError> {
        let answer = self.json(Method::GET, "/info", ADMIN_ANSWER, MAX_LINE).await?;
        const WANTED: [(&str, &str); 9] = [
            ("Name", "host name"),
            ("OperatingSystem", "operating system"),
            ("KernelVersion", "kernel"),
            ("Architecture", "architecture"),
            ("NCPU", "processors"),
            ("MemTotal", "memory in bytes"),
            ("Driver", "storage driver"),
            ("DockerRootDir", "directory"),
            ("DefaultRuntime", "runtime"),
        ];
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()).filter(|t| !t.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let mut facts: BTreeMap<String, String> = WANTED
            .iter()
            .filter_map(|(key, name)| Some(((*name).to_owned(), text(answer.get(key)?)?)))
            .collect();
        facts.insert("newest API".to_owned(), self.daemon.api.to_string());
        facts.insert("API in use".to_owned(), self.daemon.used_api.to_string());
        Ok(facts)
    }
}

/// What the routes without the control service cannot do.
fn by_route(route: DockerRoute) -> &'static [&'static str] {
    const BUILD: &[&str] = &[
        "several platforms",
        "several --output",
        "--call and --check",
        "caches other than registry (to read) and inline",
        "places in the Dockerfile for every failure",
        "the build history",
    ];
    const TAR: &[&str] = &[
        "several platforms",
        "several --output",
        "--call and --check",
        "caches other than registry (to read) and inline",
        "places in the Dockerfile for every failure",
        "the build history",
        "--secret and --ssh",
        "registry credentials",
        "sending only what changed",
    ];
    match route {
        DockerRoute::Build => BUILD,
        DockerRoute::Tar => TAR,
        DockerRoute::Auto | DockerRoute::H2c | DockerRoute::Grpc => &[],
    }
}

/// Conditions as the engine's API takes them; each can be said once, and only as what it is.
fn filters(query: &CacheQuery) -> Result<Option<String>, BuildError> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for condition in &query.conditions {
        let as_is = match condition.comparison {
            Comparison::Is => condition.field != "id",
            Comparison::Matches => condition.field == "id",
            Comparison::Holds => matches!(&*condition.field, "inuse" | "shared" | "private"),
            _ => false,
        };
        // The engine's name for it is that of the time with one parent.
        if !as_is || condition.field == "parents" || all.contains_key(&*condition.field) {
            let why = format!(
                "`{}` cannot be asked of the engine's own API; the routes grpc and h2c can",
                condition.to_filter()
            );
            return Err(InputError::new(
                "--filter",
                why,
                "id=, type= and description= once each, inuse, shared, private",
            )
            .into());
        }
        let values = match condition.comparison {
            Comparison::Holds => vec![],
            _ => vec![condition.value.clone()],
        };
        all.insert(&condition.field, values);
    }
    if let Some(time) = query.unused_for {
        all.insert("until", vec![format!("{}ns", time.as_nanos())]);
    }
    if all.is_empty() {
        return Ok(None);
    }
    // A mark without a value: the API takes it as a key with an empty list of values.
    let object: serde_json::Map<String, Value> = all
        .into_iter()
        .map(|(key, values)| {
            let values: serde_json::Map<_, _> = values.into_iter().map(|v| (v, Value::Bool(true))).collect();
            (key.to_owned(), Value::Object(values))
        })
        .collect();
    Ok(Some(Value::Object(object).to_string()))
}

/// A removal as the engine's API takes it; `limits` says that it heeds the limits of BuildKit 0.17.
fn prune_query(options: &PruneOptions, limits: bool) -> Result<String, BuildError> {
    let mut query = Serializer::new(String::new());
    if options.all {
        query.append_pair("all", "1");
    }
    if let Some(filters) = filters(&options.query)? {
        query.append_pair("filters", &filters);
    }
    let reserved = if limits { "reserved-space" } else { "keep-storage" };
    for (name, bytes) in [
        (reserved, options.reserved_space),
        ("max-used-space", options.max_used_space),
        ("min-free-space", options.min_free_space),
    ] {
        if let Some(bytes) = bytes {
            query.append_pair(name, &bytes.to_string());
        }
    }
    Ok(query.finish())
}

/// Keeps what a query selects.
fn select(records: &mut Vec<CacheRecord>, query: &CacheQuery) -> Result<(), BuildError> {
    for condition in &query.conditions {
        let mut unknown = false;
        records.retain(|r| {
            let holds = condition.holds(r);
            unknown |= holds.is_none();
            holds.unwrap_or(true)
        });
        if unknown {
            let why = format!(
                "`{}`: regular expressions can be asked for on the Docker routes grpc and h2c only",
                condition.to_filter()
            );
            return Err(InputError::new("--filter", why, "letters and digits here").into());
        }
    }
    if let Some(cutoff) = query.unused_for.and_then(|t| SystemTime::now().checked_sub(t)) {
        records.retain(|r| r.last_used_at.is_none_or(|used| used <= cutoff));
    }
    Ok(())
}

#[async_trait]
impl Administration for EngineAdmin {
    async fn disk_usage(&self, query: &CacheQuery) -> Result<DiskUsage, BuildError> {
        if let Some(control) = &self.control {
            return control.disk_usage(query).await;
        }
        let mut records = self.cache().await?;
        select(&mut records, query)?;
        Ok(DiskUsage::new(records))
    }

    async fn prune(
        &self,
        options: &PruneOptions,
        each: &mut (dyn FnMut(CacheRecord) + Send),
    ) -> Result<Pruned, BuildError> {
        if let Some(control) = &self.control {
            return control.prune(options, each).await;
        }
        let limits = self.daemon.api >= LIMITS_API;
        if !limits && (options.max_used_space.is_some() || options.min_free_space.is_some()) {
            let has = buildkit_of(&self.info).map_or_else(|| "an older one".to_owned(), |v| v.to_string());
            let option = "--max-used-space or --min-free-space";
            let needs = "BuildKit 0.17 (Docker Engine 28.0)";
            return Err(DaemonTooOld::new(option, self.info.to_string(), has, needs).into());
        }
        let query = prune_query(options, limits)?;
        // The answer has ids only.
        let known = self.cache().await?;
        let mut known: HashMap<String, CacheRecord> = known.into_iter().map(|r| (r.id.clone(), r)).collect();
        // An API that both sides know has the parameters by the names of its version.
        let api = match limits {
            true => self.daemon.used_api.max(LIMITS_API),
            false => self.daemon.used_api,
        };
        let path = format!("/v{api}/build/prune?{query}");
        let answer = self.json(Method::POST, &path, ADMIN_WORK, MAX_CACHE_LIST).await?;
        let answer: Removed = serde_json::from_value(answer).map_err(|e| {
            bk_build::ProtocolFailure::new("the engine's answer to /build/prune makes no sense").caused_by(e)
        })?;
        let ids = answer.ids.unwrap_or_default();
        let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        for id in ids {
            each(known.remove(&id).unwrap_or_else(|| CacheRecord::new(id)));
        }
        Ok(Pruned::new(count, u64::try_from(answer.bytes).unwrap_or(0)))
    }

    async fn workers(&self, filters: &[String]) -> Result<Vec<Worker>, BuildError> {
        self.need("the list of workers")?.workers(filters).await
    }

    async fn daemon(&self) -> Result<DaemonInfo, BuildError> {
        let mut info = match &self.control {
            Some(control) => control.daemon().await?,
            None => {
                let mut info = DaemonInfo::new(self.info.clone());
                info.capabilities = capabilities(&self.info);
                info.buildkit_line = buildkit_of(&self.info).map(|v| format!("{}.{}", v.0, v.1));
                info
            }
        };
        info.engine = self.facts().await?;
        for name in by_route(self.route) {
            let why = format!(
                "the Docker route {} cannot; the routes grpc and h2c can",
                self.route.name()
            );
            info.capabilities.retain(|c| c.name != *name);
            info.capabilities.push(Capability::new(*name, Able::No(why)));
        }
        Ok(info)
    }

    async fn ping(&self) -> Result<Pong, BuildError> {
        if let Some(control) = &self.control {
            return control.ping().await;
        }
        let pinging = async {
            let begun = Instant::now();
            let mut connection = Connection::open(&self.site).await?;
            let connected = begun.elapsed();
            let sent = connection.send(Method::GET, "/_ping", &[], empty()).await;
            sent.map_err(|e| crate::http1::lost(&self.site.to_string(), e))?;
            Ok(Pong::new(connected, begun.elapsed().saturating_sub(connected)))
        };
        let what = format!("an answer to /_ping from {}", self.site);
        deadline(&what, ADMIN_ANSWER, pinging).await
    }

    async fn history(&self) -> Result<Vec<HistoryRecord>, BuildError> {
        self.need("the build history")?.history().await
    }

    async fn history_record(&self, build_ref: &str) -> Result<HistoryRecord, BuildError> {
        self.need("the build history")?.history_record(build_ref).await
    }

    async fn history_logs(&self, build_ref: &str, events: EventSink) -> Result<(), BuildError> {
        self.need("the build history")?
            .history_logs(build_ref, events)
            .await
    }

    async fn history_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, BuildError> {
        self.need("the build history")?.history_blob(blob).await
    }

    async fn history_export(&self, builds: &[String], to: Sink) -> Result<HistoryExport, BuildError> {
        self.need("the build history")?.history_export(builds, to).await
    }

    async fn history_finalize(&self, build_ref: &str) -> Result<(), BuildError> {
        self.need("the build history")?.history_finalize(build_ref).await
    }

    async fn history_pin(&self, build_ref: &str, pinned: bool) -> Result<(), BuildError> {
        self.need("the build history")?
            .history_pin(build_ref, pinned)
            .await
    }

    async fn history_remove(&self, build_ref: &str) -> Result<(), BuildError> {
        self.need("the build history")?.history_remove(build_ref).await
    }
}

/// A record as the engine lists it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Listed {
    #[serde(rename = "ID")]
    id: String,
    parent: String,
    parents: Option<Vec<String>>,
    r#type: String,
    description: String,
    in_use: bool,
    shared: bool,
    size: i64,
    created_at: Option<String>,
    last_used_at: Option<String>,
    usage_count: i64,
}

impl From<Listed> for CacheRecord {
    fn from(listed: Listed) -> Self {
        let time = |text: Option<String>| bk_build::parse_time(&text?);
        let mut record = CacheRecord::new(listed.id);
        record.parents = match listed.parents {
            Some(parents) if !parents.is_empty() => parents,
            _ => Some(listed.parent)
                .filter(|p| !p.is_empty())
                .into_iter()
                .collect(),
        };
        record.record_type = listed.r#type;
        record.description = listed.description;
        record.in_use = listed.in_use;
        record.shared = listed.shared;
        record.size = u64::try_from(listed.size).unwrap_or(0);
        record.created_at = time(listed.created_at);
        record.last_used_at = time(listed.last_used_at);
        record.usage_count = u64::try_from(listed.usage_count).unwrap_or(0);
        record
    }
}

/// What the engine removed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Removed {
    #[serde(rename = "CachesDeleted")]
    ids: Option<Vec<String>>,
    #[serde(rename = "SpaceReclaimed")]
    bytes: i64,
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
