//! A node for each platform: one image out of what several daemons pushed, as `docker buildx` puts it together.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bk_testkit::{
    compare::{Rules, compare},
    live::{Daemon, Route, Target, registry_program},
    snapshot::Snapshot,
    token::{Kind, TokenRegistry, USER},
};
use serde_json::Value;

use super::{Ran, bk, context, endpoints::ok, own::Own, ran, run, text};

/// How long a daemon of a test's own may take to start, and to end.
const READY: Duration = Duration::from_secs(90);

const DOCKERFILE: &str = "FROM scratch\nARG TARGETARCH\nCOPY sh /${TARGETARCH}\n";

/// What a feature is called in the table of what works where.
const FEATURE: &str = "Nodes for platforms (`--node`)";

/// Two routes to the daemon that can push by digest, and a configuration with the credentials of the registry.
struct Place {
    amd: Target,
    arm: Target,
    dir: tempfile::TempDir,
    context: tempfile::TempDir,
    name: String,
}

impl Place {
    fn find(test: &str, dockerfile: &str) -> Option<Self> {
        let amd = Target::find(Daemon::Docker28_5Containerd, Route::Grpc, test)?;
        let arm = Target::find(Daemon::BuildkitUnix, Route::Direct, test)?;
        let place = Self {
            name: format!(
                "{}/nodes/{}",
                amd.base.host,
                test.rsplit("::").next().unwrap_or(test)
            ),
            context: context(dockerfile),
            dir: tempfile::tempdir().expect("a temporary directory"),
            amd,
            arm,
        };
        let base = &place.amd.base;
        place.login(&[(&base.host, &base.user, &base.password)]);
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Docker's configuration, with these accounts.
    fn login(&self, accounts: &[(&str, &str, &str)]) {
        let plugins = PathBuf::from(std::env::var_os("BK_LIVE_DOCKER_CLI_CONFIG").expect("a variable"));
        let auths: BTreeMap<_, _> = accounts
            .iter()
            .map(|(host, user, password)| {
                let auth = base64(&format!("{user}:{password}"));
                (*host, serde_json::json!({"auth": auth}))
            })
            .collect();
        let config = serde_json::json!({
            "auths": auths,
            "cliPluginsExtraDirs": [plugins.join("cli-plugins")],
        });
        fs::write(self.path("config.json"), config.to_string()).expect("writable");
    }

    fn bk(&self, words: &[&str], flags: &[&str]) -> Ran {
        let mut command = bk(words);
        command
            .env("DOCKER_CONFIG", self.dir.path())
            .args(["build", "--progress", "plain"])
            .args(flags)
            .arg(self.context.path());
        run(&mut command)
    }

    /// A build on the first daemon and that address.
    fn build(&self, arm: &str, flags: &[&str]) -> Ran {
        let (amd, arm) = (
            format!("linux/amd64={}", self.amd.address),
            format!("linux/arm64={arm}"),
        );
        self.bk(&[], &[&["--node", &amd, "--node", &arm], flags].concat())
    }

    fn buildx(&self, words: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("BK_LIVE_DOCKER_CLI").expect("a variable"));
        command
            .env("DOCKER_CONFIG", self.dir.path())
            .env("HOME", self.dir.path())
            .env("DOCKER_HOST", format!("unix://{}", self.amd.docker.display()))
            .arg("buildx")
            .args(words);
        command
    }

    /// The bytes of an index in a registry; nothing when there is none.
    fn raw(&self, reference: &str) -> Option<String> {
        let ran = run(&mut self.buildx(&["imagetools", "inspect", "--raw", reference]));
        (ran.code == Some(0)).then_some(ran.out)
    }

    fn index(&self, reference: &str) -> Value {
        let raw = self
            .raw(reference)
            .unwrap_or_else(|| panic!("there is no {reference}"));
        serde_json::from_str(&raw).expect("an index")
    }

    fn docker(&self) -> Command {
        let mut command = Command::new(std::env::var_os("BK_LIVE_DOCKER_CLI").expect("a variable"));
        command.env("DOCKER_HOST", format!("unix://{}", self.amd.docker.display()));
        command
    }

    /// The images of the engine whose names begin with that of this test.
    fn images(&self) -> Vec<String> {
        let format = "{{.Repository}}@{{.Digest}}";
        let all = ok(self
            .docker()
            .args(["image", "ls", "--all", "--digests", "--format", format]));
        let own = all.lines().filter(|line| line.starts_with(&self.name));
        own.map(str::to_owned).collect()
    }

    /// Removes them: the other program leaves some.
    fn forget_images(&self) {
        // An image with two names is listed with one of them.
        while let [image, ..] = &self.images()[..] {
            ok(self.docker().args(["image", "rm", "--force", image]));
        }
    }

    fn passed(&self, test: &str) {
        self.amd.passed(test);
        self.arm.passed(test);
    }
}

fn base64(text: &str) -> String {
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

fn json(file: &Path) -> BTreeMap<String, Value> {
    serde_json::from_slice(&fs::read(file).expect("written")).expect("JSON")
}

fn platforms(index: &Value) -> Vec<String> {
    let all = index["manifests"].as_array().expect("manifests").iter();
    let part = |m: &Value, key: &str| m["platform"][key].as_str().expect("text").to_owned();
    all.map(|m| format!("{}/{}", part(m, "os"), part(m, "architecture")))
        .collect()
}

/// Ends a program of a test's own, politely at first.
fn end(child: &mut Child) {
    let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // It may have ended by itself.
    let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
    let begun = Instant::now();
    while begun.elapsed() < READY {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(50)); // sleep: `Child` has no wait with an end
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits until a program of a test's own is ready.
fn wait(child: &mut Child, what: &str, log: &Path, mut is_ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_ready() {
        let ended = child.try_wait().expect("a child");
        assert!(
            ended.is_none() && begun.elapsed() < READY,
            "{what}: {}",
            fs::read_to_string(log).unwrap_or_default()
        );
        thread::sleep(Duration::from_millis(50)); // sleep: it tells nobody
    }
}

/// `bk proxy`: a BuildKit endpoint in front of an engine. It ends with the value.
struct Endpoint(Child, String);

impl Endpoint {
    fn start(engine: &str, dir: &Path) -> Self {
        let (socket, log) = (dir.join("buildkit.sock"), dir.join("proxy.log"));
        let address = format!("unix://{}", socket.display());
        let mut child = bk(&["proxy", "--listen", &address, "--to", engine])
            .stderr(fs::File::create(&log).expect("writable"))
            .spawn()
            .expect("bk starts");
        wait(&mut child, "bk proxy", &log, || socket.exists());
        Self(child, address)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// A registry of a test's own that lets everybody do everything. It ends with the value.
struct OwnRegistry {
    child: Child,
    host: String,
    dir: tempfile::TempDir,
}

impl OwnRegistry {
    fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = free.local_addr().expect("an address").to_string();
        drop(free);
        // JSON is YAML.
        let configuration = serde_json::json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": dir.path().join("storage")}},
            "http": {"addr": host},
        });
        let (file, log) = (dir.path().join("config.yml"), dir.path().join("log"));
        fs::write(&file, configuration.to_string()).expect("writable");
        let mut child = Command::new(program)
            .arg("serve")
            .arg(file)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("writable"))
            .spawn()
            .expect("a registry");
        wait(&mut child, "docker-registry", &log, || {
            TcpStream::connect(&host).is_ok()
        });
        Self { child, host, dir }
    }

    /// Makes everything fail in a repository that needs this directory of it.
    fn spoil(&self, repository: &str, part: &str) {
        let root = self.dir.path().join("storage/docker/registry/v2/repositories");
        let place = root.join(repository).join(part);
        fs::create_dir_all(place.parent().expect("a parent")).expect("a directory");
        fs::write(place, "in the way").expect("writable");
    }
}

impl Drop for OwnRegistry {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

#[test]
fn two_nodes_make_what_buildx_makes() {
    let test = "cli::two_nodes_make_what_buildx_makes";
    // One more engine: the BuildKit of one takes no two builds of `docker buildx` with one reference.
    let (Some(place), Some(engine)) = (Place::find(test, DOCKERFILE), Own::start(test, true)) else {
        return;
    };
    let endpoint = Endpoint::start(&engine.address(), place.dir.path());
    for (more, platform, address) in [
        (None, "linux/amd64", &place.arm.address),
        (Some("--append"), "linux/arm64", &endpoint.1),
    ] {
        let words = [
            "create",
            "--name",
            "both",
            "--driver",
            "remote",
            "--platform",
            platform,
        ];
        ok(place.buildx(&words).args(more).arg(address));
    }
    let (first, second, other) = (
        format!("{}/a:1", place.name),
        format!("{}/a:2", place.name),
        format!("{}/b:1", place.name),
    );
    let names = ["-t", &first, "-t", &second, "-t", &other];
    let files = |who: &str| {
        (
            place.path(&format!("{who}.json")),
            place.path(&format!("{who}.id")),
        )
    };
    let flags = |who: &str, more: &[&str]| -> Vec<String> {
        let (metadata, id) = files(who);
        let own = [
            "--push",
            "--metadata-file",
            text(&metadata),
            "--iidfile",
            text(&id),
        ];
        let all = [&own, &names[..], more].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let words = |flags: &[String]| -> Vec<String> { flags.to_vec() };
    let theirs = |flags: &[&str]| {
        let mut command = place.buildx(&["--builder", "both", "build", "--progress=plain"]);
        let ran = run(command
            .args(["--platform", "linux/amd64,linux/arm64"])
            .args(flags)
            .arg(place.context.path()));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    };
    // Docker Engine itself, and a BuildKit endpoint.
    let ours = |flags: &[&str]| {
        let amd = format!("linux/amd64={}", place.amd.address);
        let arm = format!("linux/arm64/v8={}", endpoint.1);
        let ran = place.bk(&[], &[&["--node", &amd, "--node", &arm], flags].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.err
    };
    place.forget_images();
    let plain = [
        "--provenance=false",
        "--annotation",
        "index:who=nodes",
        "--annotation",
        "manifest-descriptor:what=entry",
        "--annotation",
        "manifest[linux/arm64]:only=arm",
    ];
    let own = words(&flags("ours", &plain));
    let said = ours(&own.iter().map(String::as_str).collect::<Vec<_>>());
    for part in [
        &format!(
            "building linux/amd64 with docker 28.5.2+dfsg4 (grpc) at {}\n",
            place.amd.address
        ) as &str,
        &format!("building linux/arm64 with buildkitd at {}\n", endpoint.1),
        "[linux/amd64 1/1] COPY sh /amd64",
        "[linux/arm64 1/1] COPY sh /arm64",
        "[linux/arm64] exporting to image",
        &format!("[index] putting {first}, {second}, {other} together"),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let index = place.raw(&first).expect("an index");
    assert_eq!(place.raw(&second).as_ref(), Some(&index));
    assert_eq!(place.raw(&other).as_ref(), Some(&index));
    let left = place.images();
    assert!(left.is_empty(), "nothing of it stays in the engine: {left:?}");
    let other_flags = flags("theirs", &plain);
    theirs(&other_flags.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(place.raw(&first).as_ref(), Some(&index), "byte for byte");
    let parsed: Value = serde_json::from_str(&index).expect("JSON");
    assert_eq!(platforms(&parsed), ["linux/amd64", "linux/arm64"]);
    assert_eq!(parsed["annotations"]["who"], "nodes");
    assert_eq!(parsed["manifests"][1]["annotations"]["what"], "entry");

    let ((ours_json, ours_id), (theirs_json, theirs_id)) = (files("ours"), files("theirs"));
    let (mut ours_json, theirs_json) = (json(&ours_json), json(&theirs_json));
    let digest = ours_json["containerimage.digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    assert_eq!(fs::read_to_string(ours_id).expect("written"), digest);
    assert_eq!(theirs_json["containerimage.digest"], digest.as_str());
    assert_eq!(fs::read_to_string(theirs_id).expect("written"), digest);
    // It names no build, of which there are several here; we name the first.
    ours_json.remove("buildx.build.ref").expect("a reference");
    // It says less: nothing but the digest, and what it knows of one node.
    let said = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        said(&ours_json),
        "buildx.build.provenance/linux/amd64 buildx.build.provenance/linux/arm64 containerimage.descriptor \
         containerimage.digest image.name"
    );
    for (key, value) in &theirs_json {
        assert_eq!(ours_json.get(key), Some(value), "{key} of {}", said(&theirs_json));
    }
    assert_eq!(ours_json["image.name"], format!("{first},{second},{other}"));
    assert_eq!(ours_json["containerimage.descriptor"]["size"], index.len());
    assert_eq!(place.raw(&format!("{}/b@{digest}", place.name)), Some(index));

    // The statements of each node, and what they are about.
    let statements = |reference: &str| -> Vec<(String, String)> {
        let index = place.index(reference);
        let all = index["manifests"].as_array().expect("manifests").clone();
        let about = |m: &Value| {
            let of = m["annotations"]["vnd.docker.reference.digest"].as_str()?;
            let at = all
                .iter()
                .position(|m| m["digest"] == of)
                .expect("in the same index");
            Some(at.to_string())
        };
        let kind = |m: &Value| {
            let kind = m["annotations"]["vnd.docker.reference.type"].as_str();
            kind.unwrap_or("image").to_owned()
        };
        all.iter()
            .map(|m| (kind(m), about(m).unwrap_or_default()))
            .collect()
    };
    let stated = ["--push", "-t", &first, "--provenance=mode=min"];
    ours(&stated);
    let own = statements(&first);
    let expected = [
        ("image", ""),
        ("attestation-manifest", "0"),
        ("image", ""),
        ("attestation-manifest", "2"),
    ];
    assert_eq!(own, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    theirs(&stated);
    assert_eq!(statements(&first), own);

    // Files, a directory for each platform.
    let (mine, yours) = (place.path("mine"), place.path("yours"));
    ours(&["-o", text(&mine)]);
    theirs(&["-o", text(&yours)]);
    let seen = |dir: &Path| Snapshot::of_dir(dir).expect("files");
    compare(&seen(&yours), &seen(&mine), Rules::exact()).unwrap_or_else(|e| panic!("{e}"));
    assert!(mine.join("linux_arm64/arm64").is_file() && mine.join("linux_amd64/amd64").is_file());
    ours(&["-o", "type=cacheonly"]);
    place.forget_images();
    for target in [&place.amd, &place.arm] {
        target.supports(FEATURE);
    }
    place.passed(test);
}

#[test]
fn every_node_gets_the_secrets_and_the_agent() {
    let test = "cli::every_node_gets_the_secrets_and_the_agent";
    let dockerfile = "FROM scratch AS run\nCOPY busybox /bin/busybox\nARG TARGETARCH\n\
         RUN --mount=type=secret,id=file,required --mount=type=secret,id=piped,required --mount=type=ssh,required \
         [\"/bin/busybox\", \"sh\", \"-ec\", \"cd /run/secrets; /bin/busybox mkdir /out; \
         /bin/busybox cp file /out/file; /bin/busybox cp piped /out/piped; \
         /bin/busybox test -S $SSH_AUTH_SOCK; /bin/busybox echo $TARGETARCH > /out/arch\"]\n\
         FROM scratch\nCOPY --from=run /out /\n";
    let Some(place) = Place::find(test, dockerfile) else {
        return;
    };
    fs::copy(&place.amd.busybox, place.context.path().join("busybox")).expect("copied");
    let (file, agent) = (place.path("secret"), place.path("agent"));
    fs::write(&file, "hush").expect("writable");
    let _agent = UnixListener::bind(&agent).expect("a socket");
    // More than a pipe holds, so that two who read from it would each get a part.
    let piped: Vec<u8> = (0..300_000_u32)
        .flat_map(|n| n.to_string().into_bytes())
        .take(300_000)
        .collect();
    let (amd, arm) = (
        format!("linux/amd64={}", place.amd.address),
        format!("linux/arm64={}", place.arm.address),
    );
    let out = place.path("out");
    let mut build = bk(&["build", "--progress", "plain", "--no-cache"]);
    let mut child = build
        .env("DOCKER_CONFIG", place.dir.path())
        .args(["--node", &amd, "--node", &arm, "-o", text(&out)])
        .args(["--secret", &format!("id=file,src={}", text(&file))])
        .args(["--secret", "id=piped,src=/dev/fd/0"])
        .args(["--ssh", &format!("default={}", text(&agent))])
        .arg(place.context.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bk starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let wanted = piped.clone();
    let writing = thread::spawn(move || pipe.write_all(&wanted));
    let ran = ran(child.wait_with_output().expect("bk ends"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    writing.join().expect("no panic").expect("all of it was read");
    for arch in ["amd64", "arm64"] {
        let got = out.join(format!("linux_{arch}"));
        let read = |name: &str| fs::read(got.join(name)).expect("written");
        assert_eq!(read("arch"), format!("{arch}\n").into_bytes());
        assert_eq!(read("file"), b"hush");
        assert!(read("piped") == piped, "{arch}: {} bytes", read("piped").len());
    }
    place.passed(test);
}

#[test]
fn a_cache_in_a_directory_is_refused_before_anything_is_built() {
    let test = "cli::a_cache_in_a_directory_is_refused_before_anything_is_built";
    let Some(place) = Place::find(test, DOCKERFILE) else {
        return;
    };
    let cache = place.path("cache");
    let to = format!("type=local,dest={}", text(&cache));
    let flags = ["-o", "type=cacheonly", "--cache-to", &to];
    let ran = place.build(&place.arm.address, &flags);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert_eq!(
        ran.err,
        format!(
            "ERROR: --cache-to: several nodes would write their caches under one name in {}, where only the last is \
             kept\n  hint: --cache-to takes type=inline with several nodes, or else a build of each platform with a \
             directory of its own\n",
            cache.display()
        )
    );
    assert!(!cache.exists());
    // One of the nodes alone may write it.
    let one = [&flags[..], &["--platform", "linux/arm64"]].concat();
    let ran = place.build(&place.arm.address, &one);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(cache.join("index.json").is_file());
    place.passed(test);
}

#[test]
fn nodes_that_cannot_push_by_digest_are_refused_before_anything_is_built() {
    let test = "cli::nodes_that_cannot_push_by_digest_are_refused_before_anything_is_built";
    let Some(place) = Place::find(test, DOCKERFILE) else {
        return;
    };
    let name = format!("{}:1", place.name);
    for (daemon, route) in [
        (Daemon::Docker20_10, Route::Grpc),
        (Daemon::Docker26_1, Route::Grpc),
        (Daemon::Docker28_5, Route::Grpc),
        (Daemon::BuildkitTcp, Route::Direct),
        (Daemon::BuildkitTcp26_1, Route::Direct),
    ] {
        let Some(target) = Target::find(daemon, route, test) else {
            return;
        };
        let ran = place.build(&target.address, &["--push", "-t", &name]);
        assert_eq!(ran.code, Some(2), "{}: {}", target.name(), ran.err);
        let end = "the node for linux/arm64 cannot do its part; nothing was built\n\
                   ERROR: --output: `push-by-digest` is not possible on an engine with graph drivers\n  \
                   hint: --output takes an engine with the containerd image store, or a standalone buildkitd\n";
        assert!(ran.err.ends_with(end), "{}: {}", target.name(), ran.err);
        assert!(!ran.err.contains('#'), "nothing was begun: {}", ran.err);
        target.refuses(
            FEATURE,
            "ERROR: --output: `push-by-digest` is not possible on an engine with graph drivers",
        );
        target.passed(test);
        // Files need no registry.
        let out = place.path(target.daemon.name());
        let ran = place.build(&target.address, &["-o", text(&out)]);
        assert_eq!(ran.code, Some(0), "{}: {}", target.name(), ran.err);
        assert!(out.join("linux_arm64/arm64").is_file() && out.join("linux_amd64/amd64").is_file());
    }
    assert_eq!(place.raw(&name), None);
    for (flags, why) in [
        (
            &["-t", &name][..],
            "--output: what several nodes build is put together in a registry or in a directory",
        ),
        (
            &["--load", "-t", &name],
            "--output: what several nodes build is put together in a registry or in a directory",
        ),
        (
            &["-o", "type=oci,dest=/nonexistent/x"],
            "--output: what several nodes build is put together",
        ),
        (&["--push"], "--push: an image that is pushed needs a name"),
        (
            &["--push", "-t", &name, "--platform", "linux/s390x"],
            "--node: no node is for linux/s390x",
        ),
        (&["--push", "-t", &name, "--node", "linux/arm64/v8=tcp://h:1"], ""),
    ] {
        let ran = place.build(&place.arm.address, flags);
        assert_eq!(
            ran.code,
            Some(if why.is_empty() { 1 } else { 2 }),
            "{flags:?}: {}",
            ran.err
        );
        assert!(
            ran.err.contains(&format!("ERROR: {why}")),
            "{flags:?}: {}",
            ran.err
        );
    }
    let same = format!("linux/aarch64={}", place.amd.address);
    let ran = place.build(&place.arm.address, &["--push", "-t", &name, "--node", &same]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(
        ran.err
            .contains("ERROR: --node: more than one node is for linux/arm64\n"),
        "{}",
        ran.err
    );
    place.passed(test);
}

#[test]
fn no_name_is_written_when_a_node_fails() {
    let test = "cli::no_name_is_written_when_a_node_fails";
    let dockerfile = "ARG TARGETARCH\nFROM scratch AS of-amd64\nCOPY busybox /bin/sh\nRUN sleep 300\n\
                      FROM scratch AS of-arm64\nCOPY --from=of-amd64-never sh /\nFROM of-${TARGETARCH}\n";
    let dockerfile = dockerfile.replace("--from=of-amd64-never sh", "missing");
    let Some(place) = Place::find(test, &dockerfile) else {
        return;
    };
    fs::copy(&place.amd.busybox, place.context.path().join("busybox")).expect("copied");
    let name = format!("{}:1", place.name);
    let begun = Instant::now();
    let ran = place.build(&place.arm.address, &["--push", "-t", &name]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let told = "the node for linux/arm64 failed; the others were stopped, and no name was written\n";
    assert!(ran.err.contains(told), "{}", ran.err);
    assert!(ran.err.contains("\"/missing\": not found"), "{}", ran.err);
    assert_eq!(place.raw(&name), None);
    place.passed(test);
}

#[test]
fn registries_are_asked_as_they_want_it() {
    let test = "cli::registries_are_asked_as_they_want_it";
    let (Some(place), Some(program)) = (Place::find(test, DOCKERFILE), registry_program(test)) else {
        return;
    };
    let push = |name: &str| place.build(&place.arm.address, &["--push", "-t", name]);
    let fails = |name: &str, parts: &[&str]| {
        let ran = push(name);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        for part in parts {
            assert!(ran.err.contains(part), "{part}: {}", ran.err);
        }
        ran.err
    };

    // With tokens: this program asks for its own, and the password goes to the token server alone.
    let tokens = TokenRegistry::start(&program, Kind::default(), "nodes").expect("a registry with tokens");
    let name = format!("{}/team/nodes:1", tokens.host());
    place.login(&[(tokens.host(), USER, tokens.password())]);
    let ran = push(&name);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(platforms(&place.index(&name)), ["linux/amd64", "linux/arm64"]);
    let asked = tokens.asked();
    let scope = "repository:team/nodes:pull,push".to_owned();
    let own: Vec<_> = asked.iter().filter(|a| a.agent.starts_with("bk/")).collect();
    assert!(own.iter().all(|a| a.given && a.proof == "password"), "{own:#?}");
    assert!(own.last().is_some_and(|a| a.scopes == [scope]), "{own:#?}");
    place.login(&[(tokens.host(), USER, "wrong")]);
    let again = format!("{}/team/nodes:2", tokens.host());
    let said = fails(
        &again,
        &["failed; the others were stopped, and no name was written\n"],
    );
    assert!(said.contains(tokens.host()), "{said}");
    place.login(&[(tokens.host(), USER, tokens.password())]);
    assert_eq!(place.raw(&again), None);

    // With a password that goes to the registry itself; everything else here pushes with the right one.
    let base = &place.amd.base;
    let name = format!("{}:wrong", place.name);
    place.login(&[(&base.host, &base.user, "wrong")]);
    let said = fails(
        &name,
        &["failed; the others were stopped, and no name was written\n"],
    );
    assert!(said.contains(&base.host), "{said}");
    place.login(&[(&base.host, &base.user, &base.password)]);
    assert_eq!(place.raw(&name), None);

    // Without anything.
    let open = OwnRegistry::start(&program);
    place.login(&[]);
    let name = format!("{}/open/nodes:1", open.host);
    let ran = push(&name);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(platforms(&place.index(&name)), ["linux/amd64", "linux/arm64"]);

    // One that takes images but no names, for the second of two.
    open.spoil("half/nodes", "_manifests/tags");
    let (good, bad) = (
        format!("{}/half/good:1", open.host),
        format!("{}/half/nodes:1", open.host),
    );
    let ran = place.build(&place.arm.address, &["--push", "-t", &good, "-t", &bad]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let told = format!("ERROR: cannot write {bad}: the registry answered HTTP 500 ");
    assert!(ran.err.contains(&told), "{}", ran.err);
    assert!(
        ran.err.contains(&format!(" (written already: {good})")),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("the node for"), "{}", ran.err);
    assert_eq!(place.raw(&bad), None);
    assert_eq!(platforms(&place.index(&good)), ["linux/amd64", "linux/arm64"]);
    // And one that does not take all images.
    open.spoil("none/nodes", "_uploads");
    let name = format!("{}/none/nodes:1", open.host);
    let said = fails(
        &name,
        &[
            "failed; the others were stopped, and no name was written\n",
            "500",
        ],
    );
    assert!(
        said.contains("the node for linux/a") && said.contains(&open.host),
        "{said}"
    );
    assert_eq!(place.raw(&name), None);
    for target in [&place.amd, &place.arm] {
        target.supports("Nodes for platforms: the index in registries with tokens, a password, or nothing");
    }
    place.passed(test);
}

#[test]
fn nodes_of_a_builder_build_their_platforms() {
    let test = "cli::nodes_of_a_builder_build_their_platforms";
    let Some(place) = Place::find(test, DOCKERFILE) else {
        return;
    };
    let socket = place.arm.address.strip_prefix("unix://").expect("a socket");
    let link = |name: &str| {
        let path = place.path(name);
        symlink(socket, &path).expect("a link");
        format!("unix://{}", path.display())
    };
    let (first, second, third) = (link("1.sock"), link("2.sock"), link("3.sock"));
    let dead = format!("unix://{}", place.path("dead.sock").display());
    let create = |name: &str, nodes: &[(&str, &str)]| {
        for (at, (platforms, address)) in nodes.iter().enumerate() {
            let mut command = place.buildx(&["create", "--name", name, "--driver", "remote"]);
            command.args((at > 0).then_some("--append"));
            if !platforms.is_empty() {
                command.args(["--platform", platforms]);
            }
            ok(command.arg(address));
        }
    };
    let build = |builder: &str, platforms: &str, flags: &[&str]| {
        let flags = [&["--platform", platforms], flags].concat();
        place.bk(&["--builder", builder], &flags)
    };
    let store = || Snapshot::of_dir(&place.path("buildx")).expect("files");
    let name = format!("{}:1", place.name);
    let push = ["--push", "-t", &name];

    // What the store says decides, and nodes that are not needed are not asked.
    create(
        "said",
        &[
            ("linux/amd64", &first),
            ("linux/arm64,linux/arm/v7", &second),
            ("linux/s390x", &dead),
        ],
    );
    let ran = build("said", "linux/arm/v7,linux/amd64,linux/arm64/v8", &push);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let begin = format!(
        "building linux/arm/v7,linux/arm64 with buildkitd at {second}\n\
         building linux/amd64 with buildkitd at {first}\n"
    );
    assert!(ran.err.starts_with(&begin), "{}", ran.err);
    assert_eq!(
        platforms(&place.index(&name)),
        ["linux/arm", "linux/arm64", "linux/amd64"]
    );
    let before = store();
    // One node for all platforms of a build: no index has to be put together.
    let ran = build("said", "linux/arm64", &["-o", "type=cacheonly"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.err
            .starts_with(&format!("#0 building with buildkitd at {second}\n")),
        "{}",
        ran.err
    );
    // Variables and `docker buildx use` mean the same builder.
    let mut command = bk(&[
        "build",
        "--progress",
        "plain",
        "--platform",
        "linux/arm64",
        "-o",
        "type=cacheonly",
    ]);
    let ran = run(command
        .env("DOCKER_CONFIG", place.dir.path())
        .env("BUILDX_BUILDER", "said")
        .arg(place.context.path()));
    assert!(
        ran.err
            .starts_with(&format!("#0 building with buildkitd at {second}\n")),
        "{}",
        ran.err
    );
    // A node that is named for a platform has to be there.
    let ran = build("said", "linux/amd64,linux/s390x", &push);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let told = format!("{dead} (builder `said`): there is no such socket");
    assert!(
        ran.err.contains(&told) && !ran.err.contains("passing over"),
        "{}",
        ran.err
    );
    // What cannot be put together is refused.
    let ran = build("said", "linux/amd64,linux/arm64", &["--load", "-t", &name]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(
        ran.err
            .contains("ERROR: --output: what several nodes build is put together"),
        "{}",
        ran.err
    );
    assert_eq!(store(), before, "nothing is written there");

    // What it does not say, the daemons do: all are for linux/amd64 here, so the first that answers is.
    create("asked", &[("", &dead), ("", &third), ("linux/arm64", &second)]);
    let ran = build("asked", "linux/amd64,linux/arm64", &push);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let begin = format!(
        "passing over {dead}: there is no such socket; is buildkitd running there?\n\
         building linux/amd64 with buildkitd at {third}\n\
         building linux/arm64 with buildkitd at {second}\n"
    );
    assert!(ran.err.starts_with(&begin), "{}", ran.err);
    // What nobody has, the first builds.
    let ran = build("asked", "linux/riscv64", &["-o", "type=cacheonly"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.err
            .contains(&format!("#0 building with buildkitd at {third}\n")),
        "{}",
        ran.err
    );
    // Without a platform it is the first that answers.
    let ran = place.bk(&["--builder", "asked"], &["-o", "type=cacheonly"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.err
            .contains(&format!("#0 building with buildkitd at {third}\n")),
        "{}",
        ran.err
    );
    place
        .arm
        .supports("Builders of `docker buildx` with several nodes");
    place.passed(test);
}
