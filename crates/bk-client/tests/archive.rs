//! Contexts that are archives, and archives that are made of contexts, on live daemons. The addresses come from the
//! environment; a daemon that is not there is said loudly.
#![cfg(all(feature = "docker", feature = "buildkitd", unix))]

use std::{
    fs,
    io::{self, Cursor, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
    pin::Pin,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::{Duration, UNIX_EPOCH},
};

use bk_client::{
    Archive, Backend, BuildError, BuildRequest, Client, ConnectOptions, ContextTar, DockerRoute, Dockerfile,
    Environment, EventSink, ImageBuilder,
};
use bk_testkit::{
    live::{Daemon, Engine, Route, Target, until},
    snapshot::{ContentDigest, Snapshot},
};
use tokio::io::{AsyncRead, ReadBuf};

/// The oldest and the newest version, by every route.
const PLACES: [(Daemon, Route); 8] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker20_10, Route::Build),
    (Daemon::Docker20_10, Route::Tar),
    (Daemon::Docker28_5, Route::Grpc),
    (Daemon::Docker28_5, Route::Build),
    (Daemon::Docker28_5, Route::Tar),
    (Daemon::Docker28_5Containerd, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
];

/// Runs `test` on those of `places` that are there, one after the other.
fn everywhere(places: &[(Daemon, Route)], name: &str, test: impl AsyncFn(&Place)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    for (daemon, route) in places {
        let Some(target) = Target::find(*daemon, *route, name) else {
            continue;
        };
        runtime.block_on(async {
            let _turn = target.turn().await;
            let place = Place {
                client: connect(&target).await,
                engine: Engine::connect(&target.docker).await.expect("the engine behind"),
                tag: format!("bk-archive-{}", target.name().replace('/', "-").to_lowercase()),
                name: target.name(),
                target: target.clone(),
            };
            test(&place).await;
        });
        target.passed(name);
    }
}

async fn connect(target: &Target) -> Client {
    let options = ConnectOptions::new()
        .environment(Environment::empty())
        .addr(&target.address);
    let docker = |route| options.clone().backend(Backend::Docker).docker_route(route);
    let options = match target.route {
        Route::Grpc => docker(DockerRoute::Grpc),
        Route::Build => docker(DockerRoute::Build),
        Route::Tar => docker(DockerRoute::Tar),
        _ => options.backend(Backend::Buildkitd),
    };
    bk_client::connect_with(options).await.expect("connect")
}

struct Place {
    target: Target,
    client: Client,
    engine: Engine,
    tag: String,
    name: String,
}

impl Place {
    /// Builds and returns what is below `/data` in the image.
    async fn data(&self, request: BuildRequest) -> Snapshot {
        let built = self
            .client
            .build(request.tag(&self.tag), EventSink::discard())
            .await;
        assert!(built.is_ok(), "{}: {built:?}", self.name);
        let data = self
            .engine
            .tree(&self.tag, "data")
            .await
            .expect("the image's files");
        self.engine.remove_image(&self.tag).await.expect("removable");
        data
    }

    async fn failure(&self, request: BuildRequest) -> BuildError {
        let built = self.client.build(request, EventSink::discard()).await;
        built.expect_err(&self.name)
    }
}

/// A context whose files are of this run alone.
fn fill(dir: &Path, dockerfile: &str) -> String {
    let own = format!("{} {:?}", std::process::id(), UNIX_EPOCH.elapsed());
    fs::create_dir_all(dir.join("in/d")).expect("a directory");
    fs::write(dir.join(dockerfile), "FROM scratch\nCOPY in /data\n").expect("writable");
    fs::write(dir.join("in/f"), &own).expect("writable");
    fs::write(dir.join("in/d/big"), own.repeat(20_000)).expect("writable");
    fs::set_permissions(dir.join("in/f"), fs::Permissions::from_mode(0o4711)).expect("ours");
    own
}

/// What the system's tar makes of a directory.
fn pack(dir: &Path, flags: &[&str]) -> Vec<u8> {
    let made = Command::new("tar")
        .args(flags)
        .arg("-cC")
        .arg(dir)
        .arg(".")
        .output();
    let made = made.expect("tar is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

fn archive(bytes: Vec<u8>) -> Archive {
    Archive::new("-", Cursor::new(bytes))
}

#[test]
fn an_archive_is_built_by_every_route() {
    everywhere(
        &PLACES,
        "archive::an_archive_is_built_by_every_route",
        async |place| {
            let temp = tempfile::tempdir().expect("a directory");
            let own = fill(temp.path(), "Dockerfile");
            fs::write(temp.path().join("Other"), "FROM scratch\nCOPY in/f /data/only\n").expect("writable");
            // The first begins with a header that the daemon would not take for an archive.
            let plain = pack(temp.path(), &["--format=posix"]);
            assert_eq!(plain[156], b'x');
            for bytes in [plain.clone(), pack(temp.path(), &["-z"])] {
                let data = place.data(BuildRequest::new(archive(bytes))).await;
                let digest = |text: &str| Some(ContentDigest::of(text.as_bytes()));
                assert_eq!(data.entries[&b"f"[..]].digest, digest(&own), "{}", place.name);
                assert_eq!(data.entries[&b"f"[..]].mode & 0o7777, 0o4711, "{}", place.name);
                assert_eq!(
                    data.entries[&b"d/big"[..]].digest,
                    digest(&own.repeat(20_000)),
                    "{}",
                    place.name
                );
            }
            let other =
                BuildRequest::new(archive(plain)).dockerfile(Dockerfile::InContext("Other".to_owned()));
            let data = place.data(other.clone()).await;
            assert!(data.entries.contains_key(&b"only"[..]), "{}", place.name);
            let error = place.failure(other).await;
            assert!(matches!(&error, BuildError::Input(_)), "{}: {error}", place.name);
            assert!(error.to_string().contains("can be read once only"), "{error}");
            place.target.supports("A context that is a tar archive");
        },
    );
}

#[test]
fn a_context_packed_here_builds_the_same_there() {
    everywhere(
        &[
            (Daemon::Docker20_10, Route::Grpc),
            (Daemon::Docker28_5, Route::Grpc),
        ],
        "archive::a_context_packed_here_builds_the_same_there",
        async |place| {
            let temp = tempfile::tempdir().expect("a directory");
            fill(temp.path(), "Dockerfile");
            fs::write(temp.path().join("in/ignored"), "x").expect("writable");
            fs::write(temp.path().join(".dockerignore"), "in/ignored\n").expect("writable");
            let as_files = place.data(BuildRequest::new(temp.path())).await;
            let request = BuildRequest::new(temp.path());
            let tar = ContextTar::of(&request).expect("a context");
            let stop = AtomicBool::new(false);
            let bytes = tar.save(Vec::new(), Path::new("-"), &stop, &|text| panic!("{text}"));
            let packed = place
                .data(BuildRequest::new(archive(bytes.expect("whole"))))
                .await;
            assert!(!as_files.entries.contains_key(&b"ignored"[..]));
            assert_eq!(as_files, packed, "{}", place.name);
        },
    );
}

/// Counts bytes.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sparse_file_arrives_whole_and_is_sent_small() {
    everywhere(
        &[
            (Daemon::Docker20_10, Route::Tar),
            (Daemon::Docker28_5, Route::Tar),
        ],
        "archive::a_sparse_file_arrives_whole_and_is_sent_small",
        async |place| {
            let temp = tempfile::tempdir().expect("a directory");
            let size = 1 << 30;
            let own = fill(temp.path(), "Dockerfile");
            let file = fs::File::create(temp.path().join("in/sparse")).expect("writable");
            file.set_len(size).expect("room");
            for at in [0, (5 << 20) + 17, 700 << 20] {
                file.write_all_at(own.as_bytes(), at).expect("room");
            }
            file.sync_all().expect("room");
            let tar = ContextTar::of(&BuildRequest::new(temp.path())).expect("a context");
            let stop = AtomicBool::new(false);
            let sent = tar
                .save(Count(0), Path::new("-"), &stop, &|_| {})
                .expect("whole")
                .0;
            if file.metadata().expect("there").blocks() * 512 < 1 << 20 {
                assert!(sent < 4 << 20, "{sent}");
            }
            let data = place.data(BuildRequest::new(temp.path())).await;
            let want = Snapshot::of_dir(&temp.path().join("in")).expect("readable");
            let (want, got) = (&want.entries[&b"sparse"[..]], &data.entries[&b"sparse"[..]]);
            assert_eq!((want.size, want.digest), (got.size, got.digest), "{}", place.name);
        },
    );
}

/// Yields a part of an archive, then fails or says nothing more.
struct Odd {
    part: Cursor<Vec<u8>>,
    fails: bool,
    read: Arc<AtomicU64>,
    dropped: Arc<AtomicBool>,
}

impl AsyncRead for Odd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.part).poll_read(cx, buffer);
        let got = buffer.filled().len() - before;
        self.read.fetch_add(got as u64, Ordering::Relaxed);
        match got {
            0 if self.fails => Poll::Ready(Err(io::Error::other("the disk is on fire"))),
            0 => Poll::Pending,
            _ => polled,
        }
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_archive_that_cannot_be_read_is_the_cause_and_none_outlives_its_build() {
    everywhere(
        &PLACES,
        "archive::an_archive_that_cannot_be_read_is_the_cause_and_none_outlives_its_build",
        async |place| {
            let temp = tempfile::tempdir().expect("a directory");
            fill(temp.path(), "Dockerfile");
            let bytes = pack(temp.path(), &["--format=gnu"]);
            let (read, dropped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            let odd = |fails| {
                dropped.store(false, Ordering::Relaxed);
                read.store(0, Ordering::Relaxed);
                let odd = Odd {
                    part: Cursor::new(bytes[..bytes.len() / 2].to_vec()),
                    fails,
                    read: Arc::clone(&read),
                    dropped: Arc::clone(&dropped),
                };
                BuildRequest::new(Archive::new("there.tar", odd))
            };
            let error = place.failure(odd(true)).await;
            assert!(
                matches!(&error, BuildError::Local(_)),
                "{}: {error:?}",
                place.name
            );
            assert!(error.to_string().contains("there.tar"), "{}: {error}", place.name);
            assert!(dropped.load(Ordering::Relaxed), "{}", place.name);

            let limit = Duration::from_secs(20);
            let begun = async || read.load(Ordering::Relaxed) > 1024;
            let request = odd(false);
            tokio::select! {
                built = place.client.build(request, EventSink::discard()) => panic!("{}: {built:?}", place.name),
                yes = until(limit, Duration::from_millis(20), begun) => assert!(yes, "{}", place.name),
            }
            let gone = async || dropped.load(Ordering::Relaxed);
            assert!(
                until(limit, Duration::from_millis(20), gone).await,
                "{}",
                place.name
            );
        },
    );
}
