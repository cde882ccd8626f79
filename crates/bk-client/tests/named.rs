//! The conformance suite on an endpoint that a person names: `cargo xtask live --addr ADDR` runs this.
//!
//! Nothing but the endpoint is needed. What a build makes comes back through the session as a tar archive, so the daemon
//! may be anywhere and need not be a Docker Engine. Without `BK_LIVE_ADDR` there is nothing to test, and the test says so.
#![cfg(all(feature = "docker", feature = "buildkitd", unix))]

#[path = "named/programs.rs"]
mod programs;

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs::{self, File},
    io::BufReader,
    path::PathBuf,
    sync::Mutex,
    time::Duration,
};

use async_trait::async_trait;
use bk_client::{
    BuildError, BuildOutcome, BuildRequest, BuilderInfo, Client, ConnectOptions, EventSink, ImageBuilder,
    Output,
};
use bk_testkit::{
    compare::Rules,
    conformance::{self, Base, Case, Exception, Harness, Table},
    events::chain,
    live::{Support, record_named, say},
    snapshot::Snapshot,
};
use tempfile::TempDir;

/// A slow line to a far daemon is no failure; a hang is.
const LIMIT: Duration = Duration::from_secs(3600);

type BoxError = Box<dyn Error + Send + Sync>;

/// A builder whose results are archives in a directory, found again by the tag of the build.
struct Archives {
    client: Client,
    place: TempDir,
    made: Mutex<HashMap<String, PathBuf>>,
}

impl Archives {
    fn archive(&self, tag: &str) -> Result<PathBuf, BoxError> {
        let made = self.made.lock().map_err(|_| "a build panicked")?;
        let found = made.get(tag).cloned();
        found.ok_or_else(|| format!("no build made {tag}").into())
    }
}

#[async_trait]
impl ImageBuilder for Archives {
    async fn build(&self, request: BuildRequest, events: EventSink) -> Result<BuildOutcome, BuildError> {
        let file = {
            let mut made = self
                .made
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let file = self.place.path().join(format!("{}.tar", made.len()));
            for tag in &request.tags {
                made.insert(tag.clone(), file.clone());
            }
            file
        };
        self.client.build(request.output(Output::tar(file)), events).await
    }

    fn info(&self) -> BuilderInfo {
        self.client.info()
    }
}

/// What the person named, and how results are looked at.
struct Named<'a> {
    archives: &'a Archives,
    busybox: PathBuf,
    base: Option<Base>,
}

impl Named<'_> {
    fn route(&self) -> Option<String> {
        self.archives.info().route
    }

    /// Whether it is a Docker Engine with BuildKit 0.8, or that BuildKit alone.
    fn is_old(&self) -> bool {
        let info = self.archives.info();
        let version = info.version.unwrap_or_default();
        version.starts_with("20.10.") || version.trim_start_matches('v').starts_with("0.8.")
    }
}

#[async_trait]
impl Harness for Named<'_> {
    fn name(&self) -> String {
        let info = self.archives.info();
        let words = [Some(info.backend), info.version, info.route];
        words.into_iter().flatten().collect::<Vec<_>>().join("/")
    }

    async fn tree(&self, image: &str, dir: &str) -> Result<Snapshot, BoxError> {
        let file = self.archives.archive(image)?;
        let read = tokio::task::spawn_blocking(move || Snapshot::of_tar(BufReader::new(File::open(file)?)));
        Ok(read.await??.below(dir))
    }

    async fn forget(&self, image: &str) -> Result<(), BoxError> {
        Ok(fs::remove_file(self.archives.archive(image)?)?)
    }

    fn shell(&self) -> PathBuf {
        self.busybox.clone()
    }

    fn base(&self) -> Base {
        let nowhere = || Base {
            image: String::new(),
            host: String::new(),
            user: String::new(),
            password: String::new(),
        };
        self.base.clone().unwrap_or_else(nowhere)
    }

    fn exception(&self, case: Case) -> Option<Exception> {
        let fails = matches!(
            case,
            Case::FailingStep | Case::SyntaxError | Case::MissingDockerfile | Case::MissingSource
        );
        if self.route().as_deref() == Some("tar") && !fails {
            return Some(Exception::Skip(
                "without a session no result comes back to be looked at",
            ));
        }
        let without_directory_times = Rules {
            dir_times: false,
            ..self.rules()
        };
        match case {
            Case::RegistryBase if self.base.is_none() => Some(Exception::Skip("no registry was named")),
            Case::RawNames if !self.is_old() => Some(Exception::MayRefuse(
                "this daemon takes no names over gRPC that are not UTF-8",
            )),
            Case::SpecialFiles if self.is_old() => Some(Exception::Loose(
                Rules {
                    dir_times: false,
                    pipes: false,
                    ..self.rules()
                },
                "BuildKit 0.8 copies no named pipes and gives directories a new time",
            )),
            Case::RichTree | Case::RawNames | Case::ManyFiles if self.is_old() => Some(Exception::Loose(
                without_directory_times,
                "BuildKit 0.8 gives copied directories a new time",
            )),
            Case::MultiStage => Some(Exception::Loose(
                without_directory_times,
                "some versions give directories a new time that are copied between stages",
            )),
            _ => None,
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            rounded_times: true,
            ..Rules::image()
        }
    }

    fn places(&self) -> bool {
        let upload = matches!(self.route().as_deref(), Some("build" | "tar"));
        !upload && !self.is_old()
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The options of the person: the address, and how to talk to it.
fn options(addr: &str) -> ConnectOptions {
    let mut options = ConnectOptions::new().addr(addr);
    if let Some(backend) = variable("BK_LIVE_ADDR_BACKEND") {
        options = options.backend(
            backend
                .parse()
                .unwrap_or_else(|e| panic!("--backend {backend}: {e}")),
        );
    }
    if let Some(route) = variable("BK_LIVE_ADDR_ROUTE") {
        options = options.docker_route(
            route
                .parse()
                .unwrap_or_else(|e| panic!("--docker-route {route}: {e}")),
        );
    }
    options
}

fn base() -> Option<Base> {
    Some(Base {
        image: variable("BK_LIVE_REGISTRY_BASE")?,
        host: variable("BK_LIVE_REGISTRY")?,
        user: variable("BK_LIVE_REGISTRY_USER")?,
        password: variable("BK_LIVE_REGISTRY_PASSWORD")?,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoint_that_is_named() {
    let Some(addr) = variable("BK_LIVE_ADDR") else {
        say("the endpoint that is named: none is (BK_LIVE_ADDR; see cargo xtask live)");
        return;
    };
    let client = bk_client::connect_with(options(&addr))
        .await
        .unwrap_or_else(|e| panic!("{addr}: {}", chain(&e)));
    let archives = Archives {
        client,
        place: tempfile::tempdir().expect("a directory"),
        made: Mutex::default(),
    };
    let named = Named {
        archives: &archives,
        busybox: variable("BK_LIVE_BUSYBOX").expect("BK_LIVE_BUSYBOX").into(),
        base: base(),
    };
    let suite = conformance::run(&archives, &named, &Case::ALL);
    let report = tokio::time::timeout(LIMIT, suite).await.expect("it ends");
    let failures = report.failures();
    for (case, verdict) in report.verdicts() {
        record_named(&named.name(), case.feature(), &verdict.support());
    }
    let mut table = Table::new();
    table.add(report);
    say(&table.to_string());
    let mut failures = Vec::from_iter(failures);
    let verifier = tokio::time::timeout(LIMIT, programs::policy_verifier(&archives.client));
    let exporter = tokio::time::timeout(LIMIT, programs::session_exporter(&archives.client));
    for (feature, outcome) in [
        (
            "Decisions of a program about sources (`PolicyVerifier`)",
            verifier.await,
        ),
        (
            "Outputs that a program adds when the result is known (`SessionExporter`)",
            exporter.await,
        ),
    ] {
        let support = outcome.expect("it ends").unwrap_or_else(|error| {
            let why = chain(&*error);
            failures.push(format!("{feature}: {why}"));
            Support::Fails(why)
        });
        record_named(&named.name(), feature, &support);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
