//! A node for each platform: one image out of what two daemons pushed, as `docker buildx` puts it together.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bk_testkit::live::{Daemon, Route, Target};

use super::{Ran, bk, context, run, text};

/// Two routes to daemons, and a configuration with the credentials of the registry.
struct Place {
    amd: Target,
    arm: Target,
    dir: tempfile::TempDir,
    context: tempfile::TempDir,
    name: String,
}

impl Place {
    fn find(test: &str) -> Option<Self> {
        let amd = Target::find(Daemon::Docker28_5Containerd, Route::Grpc, test)?;
        let arm = Target::find(Daemon::BuildkitUnix, Route::Direct, test)?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let login = base64(&format!("{}:{}", amd.base.user, amd.base.password));
        let plugins = PathBuf::from(std::env::var_os("BK_LIVE_DOCKER_CLI_CONFIG").expect("a variable"));
        let config = serde_json::json!({
            "auths": { &amd.base.host: { "auth": login } },
            "cliPluginsExtraDirs": [plugins.join("cli-plugins")],
        });
        fs::write(dir.path().join("config.json"), config.to_string()).expect("writable");
        Some(Self {
            name: format!(
                "{}/nodes/{}",
                amd.base.host,
                test.rsplit("::").next().unwrap_or(test)
            ),
            context: context("FROM scratch\nARG TARGETARCH\nCOPY sh /${TARGETARCH}\n"),
            amd,
            arm,
            dir,
        })
    }

    fn build(&self, arm: &str, flags: &[&str]) -> Ran {
        let (amd, arm) = (
            format!("linux/amd64={}", self.amd.address),
            format!("linux/arm64={arm}"),
        );
        let mut command = bk(&["build", "--progress", "plain", "--node", &amd, "--node", &arm]);
        command
            .env("DOCKER_CONFIG", self.dir.path())
            .args(flags)
            .arg(self.context.path());
        run(&mut command)
    }

    fn imagetools(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(std::env::var_os("BK_LIVE_DOCKER_CLI").expect("a variable"));
        command
            .env("DOCKER_CONFIG", self.dir.path())
            .env("DOCKER_HOST", format!("unix://{}", self.amd.docker.display()))
            .args(["buildx", "imagetools"])
            .args(arguments);
        run(&mut command)
    }

    fn index(&self, tag: &str) -> serde_json::Value {
        let ran = self.imagetools(&["inspect", "--raw", &format!("{}:{tag}", self.name)]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        serde_json::from_str(&ran.out).expect("an index")
    }
}

fn base64(text: &str) -> String {
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

#[test]
fn two_nodes_make_the_index_that_buildx_makes() {
    let test = "cli::two_nodes_make_the_index_that_buildx_makes";
    let Some(mut place) = Place::find(test) else {
        return;
    };
    // Only a standalone buildkitd pushes by digest: two addresses of such, for who has them.
    let Ok(nodes) = std::env::var("BK_LIVE_NODES") else {
        return;
    };
    let (amd, arm) = nodes.split_once(',').expect("two addresses");
    (place.amd.address, place.arm.address) = (amd.to_owned(), arm.to_owned());
    let (first, second) = (format!("{}:1", place.name), format!("{}:2", place.name));
    let metadata = place.dir.path().join("metadata.json");
    let ran = place.build(
        &place.arm.address,
        &[
            "--push",
            "-t",
            &first,
            "-t",
            &second,
            "--annotation",
            "index:who=nodes",
            "--metadata-file",
            text(&metadata),
        ],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for part in [
        "[linux/amd64 ",
        "[linux/arm64 ",
        &format!("putting {first}, {second} together"),
    ] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    let ours = place.index("1");
    assert_eq!(place.index("2"), ours);
    let platforms: Vec<String> = ours["manifests"]
        .as_array()
        .expect("manifests")
        .iter()
        .map(|m| format!("{}/{}", m["platform"]["os"], m["platform"]["architecture"]).replace('"', ""))
        .collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    let digests: Vec<String> = ours["manifests"]
        .as_array()
        .expect("manifests")
        .iter()
        .map(|m| format!("{}@{}", place.name, m["digest"].as_str().expect("a digest")))
        .collect();
    let theirs = format!("{}:buildx", place.name);
    let ran = place.imagetools(&[
        "create",
        "-t",
        &theirs,
        "--annotation",
        "index:who=nodes",
        &digests[0],
        &digests[1],
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(ours, place.index("buildx"));
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs::read(&metadata).expect("written")).expect("JSON");
    assert_eq!(metadata["image.name"], format!("{first},{second}"));
    let told = metadata["containerimage.digest"].as_str().expect("a digest");
    let ran = place.imagetools(&["inspect", "--raw", &format!("{}@{told}", place.name)]);
    assert_eq!(ran.code, Some(0), "the digest leads there: {}", ran.err);

    // Statements of the nodes are part of it.
    let third = format!("{}:3", place.name);
    let ran = place.build(
        &place.arm.address,
        &["--push", "-t", &third, "--provenance=mode=min"],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let index = place.index("3");
    let manifests = index["manifests"].as_array().expect("manifests");
    assert_eq!(manifests.len(), 4, "{index}");
    for (image, statement) in [(0, 1), (2, 3)] {
        let annotations = &manifests[statement]["annotations"];
        assert_eq!(annotations["vnd.docker.reference.type"], "attestation-manifest");
        assert_eq!(
            annotations["vnd.docker.reference.digest"],
            manifests[image]["digest"]
        );
    }
}

#[test]
fn no_name_is_written_when_a_node_fails() {
    let test = "cli::no_name_is_written_when_a_node_fails";
    let Some(place) = Place::find(test) else {
        return;
    };
    let Some(graph) = Target::find(Daemon::Docker26_1, Route::Grpc, test) else {
        return;
    };
    let name = format!("{}:1", place.name);
    let ran = place.build(&graph.address, &["--push", "-t", &name]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(
        ran.err
            .contains("the node for linux/arm64 failed; the others were stopped, and no name was written\n"),
        "{}",
        ran.err
    );
    assert!(
        ran.err
            .contains("`push-by-digest` is not possible on an engine with graph drivers"),
        "{}",
        ran.err
    );
    assert_ne!(place.imagetools(&["inspect", "--raw", &name]).code, Some(0));
    graph.passed(test);
}

#[test]
fn what_cannot_be_put_together_is_told_before_anything_is_sent() {
    let dir = context("FROM scratch\n");
    let fails = |flags: &[&str]| {
        let ran = run(bk(&["build"]).args(flags).arg(dir.path() as &Path));
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        ran.err
    };
    assert_eq!(
        fails(&["--node", "arm64"]),
        "ERROR: --node: `arm64`\n  hint: --node takes OS/ARCH[/VARIANT]=ADDR\n"
    );
    assert!(
        fails(&["--node", "linux/arm64=tcp://a:1", "--addr", "tcp://b:1"]).contains("cannot be used with")
    );
    assert_eq!(
        fails(&["--node", "linux/arm64=tcp://a:1", "--check"]),
        "ERROR: --node: there is nothing to build\n  hint: --node takes builds only\n"
    );
    let daemon = super::fake::fake(bk_testkit::fake::Script::healthy());
    let node = format!("linux/amd64={}", daemon.address());
    let text = "ERROR: --node: what several nodes build is put together in a registry\n  hint: --node takes builds with \
                --push or --output type=registry and no other output\n";
    assert_eq!(
        fails(&["--backend", "buildkitd", "--node", &node, "-t", "a"]),
        text
    );
    assert!(daemon.seen().solves.is_empty());
}
