//! A daemon that sends far too much, or nothing: each client is a process of its own, whose memory is measured, so that what
//! the daemon holds does not count.

use std::{
    path::Path,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use bk_client::{
    Backend, BuildRequest, ConnectOptions, Environment, EventSink, ImageBuilder, Network, connect_with,
};
use bk_testkit::fake::{FakeDaemon, Fault, Moment, Script};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::UnixListener};

use crate::{WORKERS, leaks::memory};

/// The variable that makes this program a client: address, context, seconds, seconds of silence and the kind of the daemon,
/// each on a line.
const CHILD: &str = "BK_FAULTS_CHILD";
/// Memory that no client may need, in MiB: a message of 16 MiB, its parts and what is decoded of it, and the program itself.
const MEMORY: u64 = 256;
/// The silence that a client bears here.
const STALL: Duration = Duration::from_secs(5);
/// How long a client may live. It gives up by itself before, and says so.
const DEADLINE: Duration = Duration::from_secs(120);
/// After which time a client that has no reason to end is ended by its caller.
const PATIENCE: u64 = 10;
/// Bytes of a context that is much more than anybody may hold in memory.
const HUGE: u64 = 1 << 30;

/// What a client did.
#[derive(Debug)]
pub(crate) struct Child {
    /// `right`, `ended by the caller`, or the error.
    pub(crate) outcome: String,
    /// Its largest resident memory, in MiB.
    pub(crate) peak: u64,
    pub(crate) took: Duration,
}

/// Whether this process is a client; then it builds, says what came of it, and is done.
pub(crate) fn child() -> Option<ExitCode> {
    let text = std::env::var(CHILD).ok()?;
    let mut lines = text.lines();
    let (address, context) = (lines.next()?.to_owned(), lines.next()?.to_owned());
    let mut seconds = || Some(Duration::from_secs(lines.next()?.parse().ok()?));
    let (limit, stall) = (seconds()?, seconds()?);
    let backend = match lines.next()? {
        "docker" => Backend::Docker,
        _ => Backend::Buildkitd,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .ok()?;
    let begun = Instant::now();
    let outcome = runtime.block_on(async {
        let building = async {
            let options = ConnectOptions::new()
                .environment(Environment::empty())
                .addr(address)
                .backend(backend);
            let client = Box::pin(connect_with(options)).await?;
            let mut request = BuildRequest::new(Path::new(&context))
                .tag("hostile:1")
                .stall_timeout(Some(stall));
            if backend == Backend::Docker {
                // The engines of this program have none.
                request.steps.network = Network::None;
            }
            client.build(request, EventSink::discard()).await
        };
        match tokio::time::timeout(limit, building).await {
            Ok(Ok(_)) => "right".to_owned(),
            Ok(Err(e)) => format!(
                "{:?}: {}",
                e.fault(),
                bk_testkit::events::chain(&e).replace('\n', " ")
            ),
            Err(_) => "ended by the caller".to_owned(),
        }
    });
    let took = begun.elapsed();
    runtime.shutdown_timeout(Duration::from_secs(1));
    let outcome: String = outcome.chars().take(300).collect();
    println!("{}\t{}\t{outcome}", memory().1, took.as_millis());
    Some(ExitCode::SUCCESS)
}

/// Builds `context` at `address` in a process of its own.
pub(crate) async fn client(address: &str, context: &Path, seconds: u64) -> Result<Child, String> {
    let rest = format!("{seconds}\n{}\nbuildkitd", STALL.as_secs());
    run(format!("{address}\n{}\n{rest}", context.display()), seconds).await
}

/// The same on a Docker Engine, which is given the time that it takes.
pub(crate) async fn docker_client(address: &str, context: &Path, seconds: u64) -> Result<Child, String> {
    let rest = format!("{seconds}\n{seconds}\ndocker");
    run(format!("{address}\n{}\n{rest}", context.display()), seconds).await
}

async fn run(what: String, seconds: u64) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let running = tokio::process::Command::new(program)
        .env(CHILD, what)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let limit = DEADLINE.max(Duration::from_secs(seconds + 60));
    let output = tokio::time::timeout(limit, running)
        .await
        .map_err(|_| format!("the client had not ended after {limit:?}"))?
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut fields = text.trim_end().splitn(3, '\t');
    let mut field = || {
        fields
            .next()
            .ok_or_else(|| format!("the client said {text:?}, {}", output.status))
    };
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
    Ok(Child {
        peak: number(field()?)?,
        took: Duration::from_millis(number(field()?)?),
        outcome: field()?.to_owned(),
    })
}

/// One kind of hostility: what the daemon does, and with what the outcome begins.
struct Attack {
    name: &'static str,
    faults: Vec<Fault>,
    ends: &'static [&'static str],
    seconds: u64,
}

fn attacks() -> Vec<Attack> {
    let attack = |name, faults: &[Fault], ends| Attack {
        name,
        faults: faults.to_vec(),
        ends,
        seconds: 90,
    };
    let endless = |name, bytes| Attack {
        seconds: PATIENCE,
        ..attack(
            name,
            &[Fault::EndlessStatus(bytes), Fault::SilentSolve],
            &["ended by the caller"],
        )
    };
    vec![
        attack(
            "64 MiB of headers in an answer",
            &[Fault::HeaderBomb(64 << 20)],
            &["Network", "Daemon"],
        ),
        attack(
            "64 MiB of headers in a question",
            &[Fault::SessionHeaderBomb(64 << 20)],
            &["Network", "Daemon"],
        ),
        endless("messages of 16 MiB without end", (16 << 20) - 4096),
        endless("steps without end", 100),
        attack(
            "steps without end, also after the build",
            &[Fault::EndlessStatus(100)],
            &["right"],
        ),
        attack(
            "10,000 streams at once",
            &[Fault::ManyStreams(10_000)],
            &["Network"],
        ),
        Attack {
            seconds: PATIENCE,
            ..attack(
                "asks for files and reads none",
                &[Fault::NeverReads],
                &["ended by the caller"],
            )
        },
        attack("stands still", &[Fault::Freeze(Moment::FirstData)], &["Network"]),
        attack(
            "a million requests for one file",
            &[Fault::RequestFlood(1_000_000)],
            &["Network", "Daemon"],
        ),
    ]
}

/// All of them; returns what is wrong.
pub(crate) async fn all() -> Vec<String> {
    let mut failures = Vec::new();
    let mut rows = String::from("| the daemon | the client | peak memory | after |\n|---|---|---|---|\n");
    let context = match context() {
        Ok(context) => context,
        Err(e) => return vec![format!("no context: {e}")],
    };
    println!("\nfaults: a hostile daemon");
    let mut ran = Vec::new();
    for attack in attacks() {
        let script = attack
            .faults
            .iter()
            .fold(Script::healthy(), |s, f| s.fault(f.clone()));
        let daemon = match FakeDaemon::start(script) {
            Ok(daemon) => daemon,
            Err(e) => return vec![format!("no fake daemon: {e}")],
        };
        let done = client(&daemon.address(), context.path(), attack.seconds).await;
        println!("{}: {done:?}", attack.name);
        ran.push((attack.name, attack.ends, done));
    }
    ran.push(("a byte a second", &["Network"], loris(context.path()).await));
    for (name, ends, done) in ran {
        match done {
            Err(e) => failures.push(format!("{name}: {e}")),
            Ok(child) => {
                if !ends.iter().any(|end| child.outcome.starts_with(end)) {
                    failures.push(format!("{name}: {child:?}"));
                }
                if child.peak > MEMORY {
                    failures.push(format!("{name}: {} MiB", child.peak));
                }
                let seconds = child.took.as_secs_f64();
                rows += &format!(
                    "| {name} | {} | {} MiB | {seconds:.1} s |\n",
                    child.outcome, child.peak
                );
            }
        }
    }
    println!("\n{rows}");
    failures
}

/// A Dockerfile and a file that has far more bytes than anybody may hold, and takes no room.
fn context() -> std::io::Result<TempDir> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY a /\n")?;
    std::fs::write(dir.path().join("a"), "a\n")?;
    std::fs::File::create(dir.path().join("huge"))?.set_len(HUGE)?;
    Ok(dir)
}

/// Something that answers, a byte a second.
async fn loris(context: &Path) -> Result<Child, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let socket = dir.path().join("loris.sock");
    let listener = UnixListener::bind(&socket).map_err(|e| e.to_string())?;
    let answering = async {
        let mut open = Vec::new();
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            open.push(tokio::spawn(async move {
                // The beginning of settings, and then what they hold, as slowly as can be.
                for byte in [0u8, 0x3f, 0xff, 4, 0, 0, 0, 0, 0]
                    .into_iter()
                    .chain(std::iter::repeat(0))
                {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    // sleep: that is the attack
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }));
        }
    };
    let address = format!("unix://{}", socket.display());
    tokio::select! {
        () = answering => Err("nobody listens".to_owned()),
        done = client(&address, context, 60) => done,
    }
}
