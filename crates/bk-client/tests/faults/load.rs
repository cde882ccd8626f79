//! Many builds at once, large contexts, and many builds one after the other.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bk_client::{
    Backend, BuildRequest, Client, ConnectOptions, DockerRoute, Environment, EventSink, ImageBuilder,
    connect_with,
};
use bk_testkit::fake::{FakeDaemon, Script};

use crate::{
    daemon::{Dockerd, Version},
    home::{tmpfs, unmount_below},
    hostile,
    leaks::{Count, forget_peak, memory},
};

/// Builds at the same time.
const AT_ONCE: usize = 64;
/// Files of a large context.
const FILES: usize = 500_000;
/// Bytes of a large file, which takes no room.
const LARGE: u64 = 20 << 30;
/// Builds one after the other.
const SOAK: usize = 500;
/// Builds after which everything is as large as it gets.
const WARM: usize = 100;
/// How much memory may differ then, in MiB: the allocator keeps a little of everything.
const GROWTH: u64 = 12;

async fn connected(daemon: &Dockerd, route: DockerRoute) -> Result<Client, String> {
    let options = ConnectOptions::new()
        .environment(Environment::empty())
        .addr(format!("unix://{}", daemon.socket().display()))
        .backend(Backend::Docker)
        .docker_route(route);
    Box::pin(connect_with(options)).await.map_err(|e| e.to_string())
}

async fn dockerd() -> Result<Dockerd, String> {
    let started = Dockerd::start(Version::Docker28).await;
    started.map_err(|e| e.to_string())
}

/// One whose data is on a disk.
async fn dockerd_on_disk() -> Result<Dockerd, String> {
    let place = std::env::var_os("BK_LIVE_DATA").ok_or("BK_LIVE_DATA names no directory")?;
    let started = Dockerd::start_on(Version::Docker28, place.as_ref()).await;
    started.map_err(|e| e.to_string())
}

/// Writes a context of a few small files that no cache knows.
fn small(dir: &Path, mark: &str) -> std::io::Result<()> {
    fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY . /\n")?;
    fs::write(dir.join("mark"), mark)?;
    (0..20).try_for_each(|n| fs::write(dir.join(format!("f{n}")), format!("{mark} {n}\n").repeat(500)))
}

/// Many builds at once, and two large ones; returns what is wrong.
pub(crate) async fn load() -> Vec<String> {
    let mut failures = Vec::new();
    println!("\nfaults: load");
    for (what, done) in [
        ("64 builds at once", at_once().await),
        ("500,000 files, to the fake daemon", many_files(false).await),
        ("500,000 files, to Docker 28.5", many_files(true).await),
        ("a file of 20 GiB, to the fake daemon", large_file(false).await),
        ("a file of 20 GiB, to Docker 28.5", large_file(true).await),
    ] {
        match done {
            Ok(text) => println!("| {what} | {text} |"),
            Err(e) => failures.push(format!("{what}: {e}")),
        }
    }
    failures
}

async fn at_once() -> Result<String, String> {
    let daemon = dockerd().await?;
    let client = connected(&daemon, DockerRoute::Auto).await?;
    let mut contexts = Vec::new();
    for n in 0..AT_ONCE {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        small(dir.path(), &format!("at once {n}")).map_err(|e| e.to_string())?;
        contexts.push(dir);
    }
    let before = Count::now(&[]);
    forget_peak();
    let begun = Instant::now();
    let builds: Vec<_> = contexts
        .iter()
        .enumerate()
        .map(|(n, dir)| {
            let request = BuildRequest::new(dir.path()).tag(format!("at-once-{n}:1"));
            let client = client.clone();
            tokio::spawn(async move { client.build(request, EventSink::discard()).await })
        })
        .collect();
    for (n, build) in builds.into_iter().enumerate() {
        match build.await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(format!("build {n}: {}", bk_testkit::events::chain(&e))),
            Err(e) => return Err(format!("build {n}: {e}")),
        }
    }
    let (took, peak) = (begun.elapsed().as_secs_f64(), memory().1);
    Count::back_to(before, &[]).await?;
    Ok(format!("all {AT_ONCE} right | {took:.1} s | {peak} MiB"))
}

/// Builds a context on a fake daemon that looks at every byte and keeps none.
async fn measured(context: &Path) -> Result<(f64, u64), String> {
    let daemon = FakeDaemon::start(Script::healthy()).map_err(|e| e.to_string())?;
    let child = hostile::client(&daemon.address(), context, 3600).await?;
    if child.outcome != "right" {
        return Err(child.outcome);
    }
    if daemon.seen().health_failures > 0 {
        return Err("a health check was not answered in time".to_owned());
    }
    let worst = daemon.seen().health_worst;
    println!("| (its slowest health answer) | {:.2} s |", worst.as_secs_f64());
    Ok((child.took.as_secs_f64(), child.peak))
}

/// The same on a real one with its data on a disk.
async fn measured_on_docker(context: &Path) -> Result<(f64, u64), String> {
    let daemon = dockerd_on_disk().await?;
    let address = format!("unix://{}", daemon.socket().display());
    let child = hostile::docker_client(&address, context, 3600).await?;
    if child.outcome != "right" {
        return Err(child.outcome);
    }
    Ok((child.took.as_secs_f64(), child.peak))
}

/// A step on a real daemon that looks whether `test` holds of the context below `/in`.
fn looked_at(dir: &Path, before: &str, from: &str, test: &str) -> Result<(), String> {
    let said = |e: std::io::Error| e.to_string();
    let busybox = std::env::var_os("BK_LIVE_BUSYBOX").ok_or("BK_LIVE_BUSYBOX names no busybox")?;
    fs::copy(busybox, dir.join("sh")).map_err(said)?;
    let mount = format!("--mount=type=bind,{from}target=/in");
    let text = format!("{before}FROM scratch\nCOPY sh /bin/sh\nRUN {mount} {test}\n");
    fs::write(dir.join("Dockerfile"), text).map_err(said)
}

async fn many_files(real: bool) -> Result<String, String> {
    let said = |e: std::io::Error| e.to_string();
    let dir = tempfile::tempdir().map_err(said)?;
    tmpfs(dir.path(), "size=2g,nr_inodes=600k").map_err(said)?;
    let done = async {
        for n in 0..FILES {
            let parent = dir.path().join(format!("d{}", n / 500));
            if n % 500 == 0 {
                fs::create_dir(&parent).map_err(said)?;
            }
            let content: &[u8] = if n % 10 == 0 { b"x" } else { b"" };
            fs::write(parent.join(format!("file-{n}")), content).map_err(said)?;
        }
        if real {
            let count = |what: &str| format!("\"$(find /in -name 'file-*' {what} | wc -l)\"");
            let (all, full) = (count(""), count("-size +0"));
            let test = format!("[ {all} = {FILES} ] && [ {full} = {} ]", FILES / 10);
            looked_at(dir.path(), "FROM scratch AS all\nCOPY . /\n", "from=all,", &test)?;
            return measured_on_docker(dir.path()).await;
        }
        fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY . /\n").map_err(said)?;
        measured(dir.path()).await
    }
    .await;
    unmount_below(dir.path());
    let (took, peak) = done?;
    Ok(format!("right | {took:.1} s | {peak} MiB"))
}

async fn large_file(real: bool) -> Result<String, String> {
    let said = |e: std::io::Error| e.to_string();
    let dir = tempfile::tempdir().map_err(said)?;
    let file = fs::File::create(dir.path().join("large")).map_err(said)?;
    file.set_len(LARGE).map_err(said)?;
    let (took, peak) = if real {
        // Not copied: the daemon has written all of it to its disk once already.
        let test = format!("[ \"$(stat -c %s /in/large)\" = {LARGE} ]");
        looked_at(dir.path(), "", "", &test)?;
        measured_on_docker(dir.path()).await?
    } else {
        fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY . /\n").map_err(said)?;
        measured(dir.path()).await?
    };
    Ok(format!("right | {took:.1} s | {peak} MiB"))
}

/// Many builds one after the other in one process; returns what is wrong.
pub(crate) async fn soak() -> Vec<String> {
    println!("\nfaults: {SOAK} builds one after the other");
    match soaking().await {
        Ok(()) => Vec::new(),
        Err(e) => vec![format!("soak: {e}")],
    }
}

async fn soaking() -> Result<(), String> {
    let daemon = dockerd().await?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let out = tempfile::tempdir().map_err(|e| e.to_string())?;
    let routes = [DockerRoute::Grpc, DockerRoute::Build, DockerRoute::Tar];
    let mut clients = Vec::new();
    for route in routes {
        clients.push(connected(&daemon, route).await?);
    }
    let begun = Instant::now();
    let mut warm = None;
    for n in 0..SOAK {
        small(dir.path(), &format!("soak {n}")).map_err(|e| e.to_string())?;
        let mut request = BuildRequest::new(dir.path()).tag("soak:1");
        if n % 2 == 0 && n % routes.len() != 2 {
            request.tags.clear();
            request = request.output(bk_client::Output::local(out.path().join("result")));
        }
        let build = clients[n % routes.len()].build(request, EventSink::discard());
        tokio::time::timeout(Duration::from_secs(120), build)
            .await
            .map_err(|_| format!("build {n} does not end"))?
            .map_err(|e| format!("build {n}: {}", bk_testkit::events::chain(&e)))?;
        if (n + 1) % 50 == 0 {
            let (count, (resident, _)) = (Count::now(&[out.path()]), memory());
            println!(
                "after {:>3} builds, {:>4.0} s: {resident} MiB, {} descriptors, {} tasks, {} children",
                n + 1,
                begun.elapsed().as_secs_f64(),
                count.files,
                count.tasks,
                count.children
            );
            let engine = bk_testkit::live::Engine::connect(&daemon.socket()).await;
            if let Ok(engine) = engine {
                drop(engine.prune_builds().await);
            }
        }
        if n + 1 == WARM {
            warm = Some((Count::now(&[out.path()]), memory().0));
        }
    }
    let Some((count, resident)) = warm else {
        return Ok(());
    };
    Count::back_to(count, &[out.path()]).await?;
    let now = memory().0;
    if now > resident + GROWTH {
        return Err(format!(
            "{resident} MiB after {WARM} builds, {now} MiB after {SOAK}"
        ));
    }
    Ok(())
}
