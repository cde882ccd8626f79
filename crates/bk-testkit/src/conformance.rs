//! One suite for everything that builds images: the same builds, each resulting tree compared byte for byte and mode by
//! mode with what it was built from.
//!
//! A [`Harness`] says how to look into an image and what its builder cannot do, with the reason; an [`ImageBuilder`]
//! builds. [`run`] gives a [`Report`], and [`Table`] collects reports into a table of cases by targets.

mod cases;
mod failures;
mod table;
mod trees;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bk_build::{
    BuildError, BuildOutcome, BuildRequest, Credential, CredentialError, CredentialProvider, ImageBuilder,
};

use crate::{
    compare::{Rules, compare},
    events::{Recorder, chain},
    snapshot::Snapshot,
};

pub use table::{REFUSED, Report, Table, Verdict};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One build of the suite (or a few that belong together).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// A base that a build argument chooses.
    ArgFrom,
    /// A base image from the password-protected registry, with credentials from the request.
    RegistryBase,
    /// A `RUN` whose own output arrives as log events.
    RunLogs,
    /// Several stages, of which one is not needed and could not be built.
    MultiStage,
    /// Dangling links, hard links, odd modes, an ignore file with negations, deep directories, long names.
    RichTree,
    /// 50,000 small files.
    ManyFiles,
    /// A file of 512 MiB.
    BigFile,
    /// Names that are not UTF-8.
    RawNames,
    /// A named pipe, which is sent, and a socket, which is skipped with a warning.
    SpecialFiles,
    /// A Dockerfile outside of the context, one of another name inside, and one that is only text.
    DockerfilePlaces,
    /// A failing `RUN`: exit code, output, place.
    FailingStep,
    /// A Dockerfile that cannot be parsed: file and line.
    SyntaxError,
    /// No Dockerfile where it should be.
    MissingDockerfile,
    /// A `COPY` of something that is not in the context.
    MissingSource,
}

impl Case {
    /// Every case, light ones first.
    pub const ALL: [Self; 14] = [
        Self::ArgFrom,
        Self::RegistryBase,
        Self::RunLogs,
        Self::MultiStage,
        Self::RichTree,
        Self::RawNames,
        Self::SpecialFiles,
        Self::DockerfilePlaces,
        Self::FailingStep,
        Self::SyntaxError,
        Self::MissingDockerfile,
        Self::MissingSource,
        Self::ManyFiles,
        Self::BigFile,
    ];

    /// Its name in tables and tags.
    pub fn name(self) -> &'static str {
        match self {
            Self::ArgFrom => "arg-from",
            Self::RegistryBase => "registry-base",
            Self::RunLogs => "run-logs",
            Self::MultiStage => "multi-stage",
            Self::RichTree => "rich-tree",
            Self::ManyFiles => "many-files",
            Self::BigFile => "big-file",
            Self::RawNames => "raw-names",
            Self::SpecialFiles => "special-files",
            Self::DockerfilePlaces => "dockerfile-places",
            Self::FailingStep => "failing-step",
            Self::SyntaxError => "syntax-error",
            Self::MissingDockerfile => "missing-dockerfile",
            Self::MissingSource => "missing-source",
        }
    }

    /// What it shows, as a row of the table of features.
    pub fn feature(self) -> &'static str {
        match self {
            Self::ArgFrom => "Build arguments, also in `FROM`",
            Self::RegistryBase => "Base image from a registry with a password",
            Self::RunLogs => "Output of steps as events",
            Self::MultiStage => "Stages that are not needed are not built",
            Self::RichTree => "Links, modes, ignore files, deep and long names",
            Self::ManyFiles => "50,000 files",
            Self::BigFile => "A file of 512 MiB",
            Self::RawNames => "Names that are not UTF-8",
            Self::SpecialFiles => "Named pipes",
            Self::DockerfilePlaces => "Dockerfile outside of the context, renamed, or from memory",
            Self::FailingStep => "A failing step: exit code, output, place",
            Self::SyntaxError => "A Dockerfile that cannot be parsed: file and line",
            Self::MissingDockerfile => "A missing Dockerfile is named",
            Self::MissingSource => "A missing source of `COPY` is named",
        }
    }
}

/// How big the two big cases are.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Files of [`Case::ManyFiles`].
    pub files: usize,
    /// Bytes of [`Case::BigFile`].
    pub bytes: u64,
}

impl Scale {
    /// What the suite promises: 50,000 files, 512 MiB.
    pub const FULL: Self = Self {
        files: 50_000,
        bytes: 512 << 20,
    };
}

/// A base image in a registry that wants a password.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its reference.
    pub image: String,
    /// The registry's `host:port`.
    pub host: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// What a builder cannot do in one case, with the reason.
#[derive(Clone, Copy, Debug)]
pub enum Exception {
    /// The case makes no sense here and is not run.
    Skip(&'static str),
    /// The build must fail, with an error that names the thing at fault.
    Refuses(&'static str),
    /// The build works, or it fails with an error that names the thing at fault; what daemon this is is not known.
    MayRefuse(&'static str),
    /// The build works, but these rules are all that can be asked.
    Loose(Rules, &'static str),
}

/// How to look at what a builder built.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The target's name in the table.
    fn name(&self) -> String;

    /// The file system of an image below `dir`.
    async fn tree(&self, image: &str, dir: &str) -> Result<Snapshot, BoxError>;

    /// Forgets an image.
    async fn forget(&self, image: &str) -> Result<(), BoxError>;

    /// A statically linked shell (busybox) to put into images.
    fn shell(&self) -> PathBuf;

    /// The base image in the password-protected registry.
    fn base(&self) -> Base;

    /// What cannot be done here. Default: everything can.
    fn exception(&self, _: Case) -> Option<Exception> {
        None
    }

    /// What is asked of results where no exception says otherwise. Default: [`Rules::image`].
    fn rules(&self) -> Rules {
        Rules::image()
    }

    /// Whether failures carry their place in the Dockerfile. Default: yes.
    fn places(&self) -> bool {
        true
    }

    /// How big the big cases are. Default: [`Scale::FULL`].
    fn scale(&self) -> Scale {
        Scale::FULL
    }
}

/// Runs `cases` one after the other.
pub async fn run(builder: &dyn ImageBuilder, harness: &dyn Harness, cases: &[Case]) -> Report {
    let mut report = Report::new(harness.name());
    for &case in cases {
        let begun = Instant::now();
        let verdict = match harness.exception(case) {
            Some(Exception::Skip(reason)) => Verdict::Cannot(reason.to_owned()),
            exception => {
                let bench = Bench {
                    builder,
                    harness,
                    case,
                    exception,
                };
                match bench.run().await {
                    Ok(done) => Verdict::passed(begun.elapsed(), done, exception),
                    Err(e) => Verdict::Failed(chain(&*e)),
                }
            }
        };
        report.add(case, verdict);
    }
    report
}

/// One case at work.
struct Bench<'a> {
    builder: &'a dyn ImageBuilder,
    harness: &'a dyn Harness,
    case: Case,
    exception: Option<Exception>,
}

/// How a case that holds came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// With the results that were asked for.
    Built,
    /// With the refusal that is right here.
    Refused,
}

/// A build that ended well.
struct Built {
    tag: String,
    outcome: BuildOutcome,
    recorder: Recorder,
}

impl Bench<'_> {
    async fn run(&self) -> Result<Done, BoxError> {
        match self.case {
            Case::ArgFrom => self.arg_from().await,
            Case::RegistryBase => self.registry_base().await,
            Case::RunLogs => self.run_logs().await,
            Case::MultiStage => self.multi_stage().await,
            Case::DockerfilePlaces => self.dockerfile_places().await,
            Case::RichTree => self.rich_tree().await,
            Case::ManyFiles => self.many_files().await,
            Case::BigFile => self.big_file().await,
            Case::RawNames => return self.raw_names().await,
            Case::SpecialFiles => self.special_files().await,
            Case::FailingStep => self.failing_step().await,
            Case::SyntaxError => self.syntax_error().await,
            Case::MissingDockerfile => self.missing_dockerfile().await,
            Case::MissingSource => self.missing_source().await,
        }?;
        Ok(Done::Built)
    }

    /// Builds under a fresh tag; checks the promises that every build keeps.
    async fn build(&self, request: BuildRequest) -> Result<Built, BoxError> {
        let tag = fresh_tag(self.case.name());
        let recorder = Recorder::new();
        let result = self.builder.build(request.tag(&tag), recorder.sink()).await;
        recorder.check(result.is_ok())?;
        Ok(Built {
            tag,
            outcome: result?,
            recorder,
        })
    }

    /// Builds what must fail.
    async fn build_fails(&self, request: BuildRequest) -> Result<(BuildError, Recorder), BoxError> {
        let tag = fresh_tag(self.case.name());
        let recorder = Recorder::new();
        match self.builder.build(request.tag(&tag), recorder.sink()).await {
            Ok(_) => Err(format!("{tag} was built, although it must fail").into()),
            Err(e) => {
                recorder.check(false)?;
                Ok((e, recorder))
            }
        }
    }

    fn rules(&self) -> Rules {
        match self.exception {
            Some(Exception::Loose(rules, _)) => rules,
            _ => self.harness.rules(),
        }
    }

    /// Compares what the image holds below `dir`, then forgets the image.
    async fn expect(&self, built: &Built, dir: &str, expected: &Snapshot) -> Result<(), BoxError> {
        let got = self.harness.tree(&built.tag, dir).await?;
        self.harness.forget(&built.tag).await?;
        Ok(compare(expected, &got, self.rules())?)
    }
}

/// A tag that no other build of this machine has.
pub fn fresh_tag(name: &str) -> String {
    format!("bk-conformance/{name}:{}", fresh_token())
}

/// A word that no other build of this machine has; busts the cache of a step that uses it.
pub fn fresh_token() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{}-{next}", now.as_micros(), std::process::id())
}

/// Knows one registry, and counts how often it was asked.
#[derive(Debug)]
pub struct OneRegistry {
    base: Base,
    asked: AtomicUsize,
}

impl OneRegistry {
    /// Knows the registry of `base`.
    pub fn new(base: Base) -> Arc<Self> {
        Arc::new(Self {
            base,
            asked: AtomicUsize::new(0),
        })
    }

    /// How often the credentials of that registry were asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl CredentialProvider for OneRegistry {
    async fn credential(&self, host: &str) -> Result<Option<Credential>, CredentialError> {
        if host != self.base.host {
            return Ok(None);
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(Some(Credential::basic(&self.base.user, &self.base.password)))
    }
}
