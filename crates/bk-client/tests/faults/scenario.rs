//! Random runs: one build, one fault at a random moment, and what came of it.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bk_client::{BuildError, BuildEvent, BuildOutcome, EventSink, ImageBuilder};
use bk_testkit::{live::Engine, proxy::Proxy};
use tokio::sync::watch;

use crate::{
    builds::{Job, Out, Random},
    daemon::{Dockerd, Dockerds, Version},
    home::{tmpfs, unmount_below},
    leaks::Count,
    options::Options,
    table::{Ran, Table},
    way::{Open, Way},
};

/// How long a build may take, whatever happens to it: much more than the silence that it bears, for a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);
/// The silence that a build bears when its daemon will not answer again.
const SHORT_STALL: Duration = Duration::from_secs(4);
/// The silence that a build bears when its daemon is only slow.
const LONG_STALL: Duration = Duration::from_secs(30);
/// How long everything of a build that was dropped may take to be gone.
const CANCEL: Duration = Duration::from_secs(2);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill,
    Pause,
    Hang,
    Cut,
    Delay,
    Throttle,
    Corrupt,
    FullHere,
    FullThere,
    Removed,
    Cancel,
    CancelStopped,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Kill,
        Self::Pause,
        Self::Hang,
        Self::Cut,
        Self::Delay,
        Self::Throttle,
        Self::Corrupt,
        Self::FullHere,
        Self::FullThere,
        Self::Removed,
        Self::Cancel,
        Self::CancelStopped,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Hang => "hang",
            Self::Cut => "cut",
            Self::Delay => "delay",
            Self::Throttle => "throttle",
            Self::Corrupt => "corrupt",
            Self::FullHere => "full-here",
            Self::FullThere => "full-there",
            Self::Removed => "removed",
            Self::Cancel => "cancel",
            Self::CancelStopped => "cancel-stopped",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let names: Vec<_> = Self::ALL.iter().map(|k| k.name()).collect();
        Self::ALL.into_iter().find(|k| k.name() == name).ok_or(format!(
            "there is no kind `{name}`; there are {}, hostile",
            names.join(", ")
        ))
    }

    /// Whether a build may end like that.
    fn allows(self, way: Way, outcome: &str) -> bool {
        let allowed: &[&str] = match self {
            Self::Delay | Self::Throttle | Self::Pause => &["right"],
            // Before anything was asked of it, it is one that cannot be reached.
            Self::Kill => &["right", "session lost", "cannot connect", "timeout"],
            Self::Cut => &["right", "session lost"],
            Self::Hang => &["right", "stalled", "timeout"],
            Self::FullHere => &["local"],
            Self::Removed => &["right", "local", "removed in part"],
            Self::Cancel | Self::CancelStopped => &["right", "cancelled"],
            // Who changes a byte under TLS has cut the connection, at most.
            Self::Corrupt if way == Way::Tls => {
                &["right", "session lost", "stalled", "cannot connect", "timeout"]
            }
            Self::FullThere | Self::Corrupt => return true,
        };
        allowed.contains(&outcome)
    }
}

/// A moment of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Begin,
    Listing,
    Sending,
    Solving,
    Exporting,
}

/// Where a run keeps its files.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    /// Temporary files of the client, which are counted.
    pub(crate) scratch: &'a Path,
    /// Contexts and results.
    pub(crate) jobs: &'a Path,
}

/// All runs; returns what is wrong.
pub(crate) async fn runs(options: &Options, places: Places<'_>) -> Vec<String> {
    let mut daemons = Dockerds::default();
    // The first one starts the runtime of all proxies, whose descriptors stay.
    drop(Proxy::start("unix:///nowhere"));
    let (mut table, mut failures) = (Table::default(), Vec::new());
    for number in 0..options.runs {
        let kind = options.only.unwrap_or(Kind::ALL[number % Kind::ALL.len()]);
        let mut random = Random::new(options.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let begun = Instant::now();
        let (ran, problems) = match one(&mut daemons, kind, &mut random, places).await {
            Ok(done) => done,
            Err(e) => {
                failures.push(format!("run {number} ({}): {e}", kind.name()));
                break;
            }
        };
        println!(
            "run {number:>3} {:<14} {:<16} {:<15} {:<16} {:>5.1} s of {:>5.1} s{}",
            ran.kind,
            ran.daemon,
            ran.way,
            ran.outcome,
            ran.took.as_secs_f64(),
            begun.elapsed().as_secs_f64(),
            problems
                .iter()
                .map(|p| format!("\n    WRONG: {p}"))
                .collect::<String>()
        );
        table.add(ran);
        failures.extend(
            problems
                .into_iter()
                .map(|p| format!("run {number} ({}): {p}", kind.name())),
        );
    }
    println!("\n{table}");
    failures
}

/// One run: how it ended, and what is wrong with that. An error is one of the surroundings.
async fn one(
    daemons: &mut Dockerds,
    kind: Kind,
    random: &mut Random,
    places: Places<'_>,
) -> Result<(Ran, Vec<String>), String> {
    let said = |e: std::io::Error| e.to_string();
    let version = *random.of(&Version::WEIGHTED);
    let way = way(kind, random);
    let out = match kind {
        Kind::FullHere | Kind::Removed => *random.of(&[Out::Directory, Out::Archive]),
        _ if way.is_tar() => Out::Image,
        _ => *random.of(&[Out::Image, Out::Directory, Out::Archive]),
    };
    let daemon = daemons.get(version).await.map_err(said)?;
    let job = Job::make(random, out, kind == Kind::Throttle, places.jobs).map_err(said)?;
    let moment = match kind {
        Kind::Removed => Moment::Exporting,
        _ => *random.of(&[
            Moment::Begin,
            Moment::Listing,
            Moment::Sending,
            Moment::Solving,
            Moment::Exporting,
        ]),
    };
    let pause = Duration::from_millis(random.below(200));
    let retries = random.below(2) as u32;
    let stall = match kind {
        Kind::Hang | Kind::Corrupt => SHORT_STALL,
        _ => LONG_STALL,
    };
    if kind == Kind::FullHere {
        tmpfs(job.place(), "size=1m").map_err(said)?;
    }
    let counted = [places.scratch];
    let before = Count::now(&counted);
    let open = Open::to(&daemon.socket(), way).map_err(said)?;
    let proxy = &open.proxy;
    match kind {
        Kind::Delay => {
            let delay = Duration::from_millis(2 + random.below(10));
            proxy.slow_down(delay, delay);
        }
        Kind::Throttle => proxy.throttle(50_000),
        Kind::FullThere => daemon.fill_up().map_err(said)?,
        _ => {}
    }
    let begun = Instant::now();
    let mut stopped = None;
    let mut torn = false;
    let result = {
        let client = open.connect().await.map_err(|e| format!("connecting: {e}"))?;
        let (sink, reached) = moments();
        let build = client.build(job.request(retries, stall), sink);
        let mut build = std::pin::pin!(tokio::time::timeout(DEADLINE, build));
        let mut acting = std::pin::pin!(act(daemon, proxy, kind, random, &job, reached, (moment, pause)));
        tokio::select! {
            biased;
            result = &mut build => Some(result),
            halfway = &mut acting => {
                torn = halfway;
                stopped = Some(Instant::now());
                match kind {
                    // Dropped behind this block.
                    Kind::Cancel | Kind::CancelStopped => None,
                    _ => Some(build.await),
                }
            }
        }
    };
    let took = begun.elapsed();
    if kind != Kind::CancelStopped {
        daemon.go_on();
    }
    daemon.make_room();
    drop(open);
    let mut problems = Vec::new();
    let left = Count::back_to(before, &counted).await;
    if let (Some(stopped), None) = (stopped, &result)
        && stopped.elapsed() > CANCEL
    {
        problems.push(format!("all was gone only after {:?}", stopped.elapsed()));
    }
    daemon.go_on();
    if !answers(daemon).await {
        daemon.restart().await.map_err(said)?;
    }
    let engine = Engine::connect(&daemon.socket())
        .await
        .map_err(|e| e.to_string())?;
    let (outcome, wrong) = judge(&job, (kind, way), torn, result, &engine).await;
    problems.extend(wrong);
    if !kind.allows(way, &outcome) {
        problems.push(format!("`{outcome}` is no end of this kind"));
    }
    let mut leaks = job.beside().len();
    problems.extend(
        job.beside()
            .into_iter()
            .map(|n| format!("left beside the result: {n}")),
    );
    if let Err(e) = left {
        leaks += 1;
        problems.push(e);
    }
    drop(engine.remove_image(&job.tag).await);
    drop(engine.prune_builds().await);
    unmount_below(job.place());
    let kind = kind.name();
    let (version, way) = (version.name(), way.name());
    let context = format!("{out:?} on {version} by {way}, {moment:?} + {pause:?}, {retries} retries");
    let problems = problems.into_iter().map(|p| format!("{p} ({context})")).collect();
    let ran = Ran {
        kind,
        daemon: version,
        way,
        outcome,
        took,
        leaks,
    };
    Ok((ran, problems))
}

/// A way on which that can happen, and be noticed.
fn way(kind: Kind, random: &mut Random) -> Way {
    let fits = |way: &Way| match kind {
        // Only images come by it, and a daemon that hangs is noticed by nobody.
        Kind::FullHere | Kind::Removed | Kind::Hang => !way.is_tar(),
        _ => true,
    };
    let ways: Vec<_> = Way::WEIGHTED.into_iter().filter(fits).collect();
    match kind {
        // Half of them: there is a promise to keep.
        Kind::Corrupt if random.below(2) == 0 => Way::Tls,
        _ => *random.of(&ways),
    }
}

/// Whether the daemon still works after what it went through.
async fn answers(daemon: &Dockerd) -> bool {
    let asking = async {
        match Engine::connect(&daemon.socket()).await {
            Ok(engine) => engine.versions().await.is_ok(),
            Err(_) => false,
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking)
        .await
        .unwrap_or(false)
}

/// A sink, and how far the build has come.
fn moments() -> (EventSink, watch::Receiver<Moment>) {
    let (told, reached) = watch::channel(Moment::Begin);
    let told = Arc::new(told);
    let sink = EventSink::from_fn(move |event| {
        let moment = match &event {
            BuildEvent::Transfer(t) if t.source == "context" && t.report.sent_bytes > 0 => Moment::Sending,
            BuildEvent::Transfer(_) => Moment::Listing,
            BuildEvent::VertexStarted(v) if v.name.contains("RUN ") || v.name.contains("COPY tree") => {
                Moment::Solving
            }
            BuildEvent::VertexStarted(v) if v.name.starts_with("exporting ") => Moment::Exporting,
            _ => return,
        };
        told.send_if_modified(|now| {
            let later = moment > *now;
            *now = (*now).max(moment);
            later
        });
    });
    (sink, reached)
}

/// Waits for the moment, and does what goes wrong then. Ends when the build may go on alone, and says whether a removal of
/// the destination gave up halfway: it had removed what was there, and met what had come since.
async fn act(
    daemon: &mut Dockerd,
    proxy: &Proxy,
    kind: Kind,
    random: &mut Random,
    job: &Job,
    mut reached: watch::Receiver<Moment>,
    (moment, pause): (Moment, Duration),
) -> bool {
    if reached.wait_for(|m| *m >= moment).await.is_err() {
        return false;
    }
    // sleep: the moment itself is random
    tokio::time::sleep(pause).await;
    match kind {
        Kind::Kill => {
            daemon.kill();
            // A build that begins again finds it.
            drop(daemon.restart().await);
        }
        Kind::Pause => {
            daemon.stop();
            // sleep: how long the daemon stands still
            tokio::time::sleep(Duration::from_millis(300 + random.below(1500))).await;
            daemon.go_on();
        }
        Kind::Hang => daemon.stop(),
        Kind::CancelStopped => {
            daemon.stop();
            // sleep: the silence in which the build is dropped
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Kind::Cut => proxy.cut(),
        Kind::Corrupt => {
            let (up, down) = (proxy.bytes_to_daemon(), proxy.bytes_to_client());
            if random.below(2) == 0 {
                proxy.corrupt(Some(up + random.below(4000)), None);
            } else {
                proxy.corrupt(None, Some(down + random.below(400)));
            }
        }
        Kind::Removed => {
            let removed = std::fs::remove_dir_all(job.place());
            return removed.is_err_and(|e| e.kind() == std::io::ErrorKind::DirectoryNotEmpty);
        }
        Kind::Delay | Kind::Throttle | Kind::FullHere | Kind::FullThere | Kind::Cancel => {}
    }
    false
}

type Built = Result<Result<BuildOutcome, BuildError>, tokio::time::error::Elapsed>;

/// The class of an end, and what is wrong with it.
async fn judge(
    job: &Job,
    (kind, way): (Kind, Way),
    torn: bool,
    result: Option<Built>,
    engine: &Engine,
) -> (String, Vec<String>) {
    let mut wrong = Vec::new();
    let outcome = match result {
        None => "cancelled".to_owned(),
        Some(Err(_)) => {
            wrong.push(format!("it had not ended after {DEADLINE:?}"));
            "HANG".to_owned()
        }
        Some(Ok(Ok(_))) if kind == Kind::Removed && !job.destination().exists() => "right".to_owned(),
        Some(Ok(Ok(_))) => match job.check(engine).await {
            Ok(()) => "right".to_owned(),
            // Nothing in the protocol would tell: that is what TLS is for.
            Err(_) if kind == Kind::Corrupt && way != Way::Tls => "other bytes".to_owned(),
            // Who removes files behind the back of a writer, and leaves their directory, has a directory without them.
            Err(_) if torn && job.check_failed().is_ok() => "removed in part".to_owned(),
            Err(e) => {
                wrong.push(format!("it succeeded with a wrong result: {e}"));
                "WRONG".to_owned()
            }
        },
        Some(Ok(Err(e))) => {
            if let Err(left) = job.check_failed().or_else(|e| match kind {
                Kind::Corrupt if way != Way::Tls => Ok(()),
                _ => Err(e),
            }) {
                wrong.push(left);
            }
            let class = class(&e);
            if !kind.allows(way, class) {
                wrong.push(bk_testkit::events::chain(&e));
            }
            class.to_owned()
        }
    };
    (outcome, wrong)
}

fn class(error: &BuildError) -> &'static str {
    match error {
        BuildError::SessionLost(_) => "session lost",
        BuildError::Stalled(_) => "stalled",
        BuildError::Connect(_) => "cannot connect",
        BuildError::Timeout { .. } => "timeout",
        BuildError::Local(_) => "local",
        BuildError::Refused(_) => "refused",
        BuildError::Protocol(_) => "protocol",
        BuildError::Step(_) => "step failed",
        BuildError::Dockerfile(_) => "dockerfile",
        BuildError::Cancelled => "said to be cancelled",
        BuildError::Input(_) => "input",
        BuildError::Auth { .. } => "auth",
        BuildError::TooOld(_) => "too old",
        _ => "other",
    }
}
