//! The examples of this crate are programs that do what they say, on live daemons found by the environment as a person's
//! would be.
#![cfg(all(feature = "docker", feature = "buildkitd", unix))]

use std::{
    collections::BTreeSet,
    env, fs,
    path::PathBuf,
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bk_client::{BuildRequest, ConnectOptions, Context, Dockerfile, Environment, EventSink, ImageBuilder};
use bk_testkit::{
    conformance::{OneRegistry, fresh_tag, fresh_token},
    live::{Daemon, Engine, Route, Target},
    oci::json_of,
    snapshot::{ContentDigest, Snapshot},
};

/// The oldest and the newest version, and a BuildKit endpoint.
const PLACES: [(Daemon, Route); 3] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker28_5, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
];
/// Where whole archives of images are made.
const ARCHIVES: [(Daemon, Route); 2] = [
    (Daemon::Docker28_5Containerd, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
];

/// A daemon in turn, and an empty directory to stand in.
struct Place<'a> {
    target: &'a Target,
    engine: Engine,
    dir: tempfile::TempDir,
}

fn on(places: &[(Daemon, Route)], name: &str, test: impl AsyncFn(&Place<'_>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for (daemon, route) in places {
        let Some(target) = Target::find(*daemon, *route, name) else {
            continue;
        };
        runtime.block_on(async {
            let _turn = target.turn().await;
            let place = Place {
                engine: Engine::connect(&target.docker).await.expect("the engine behind"),
                dir: tempfile::tempdir().expect("a temporary directory"),
                target: &target,
            };
            test(&place).await;
        });
        target.passed(name);
    }
}

/// Cargo puts examples beside the directory of this test's program.
fn program(name: &str) -> PathBuf {
    let test = env::current_exe().expect("this program");
    let profile = test.ancestors().nth(2).expect("the directory of the profile");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{}: cargo build --examples", path.display());
    path
}

impl Place<'_> {
    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("writable");
    }

    /// Runs an example in the directory, which must succeed, and comes back with both of its outputs.
    fn run(&self, name: &str, arguments: &[&str], around: &[(&str, &str)]) -> (String, String) {
        let address = match self.target.route {
            Route::Direct => "BUILDKIT_HOST",
            _ => "DOCKER_HOST",
        };
        let ran = Command::new(program(name))
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("DOCKER_CONFIG", self.dir.path())
            .env(address, &self.target.address)
            .envs(around.iter().copied())
            .output()
            .expect("the example runs");
        let Output {
            status,
            stdout,
            stderr,
        } = ran;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&stdout), text(&stderr));
        assert!(status.success(), "{}: {name}: {out}{err}", self.target.name());
        (out, err)
    }

    async fn image(&self, name: &str) -> Snapshot {
        let tree = self.engine.tree(name, "").await.expect("the image");
        self.engine.remove_image(name).await.expect("removable");
        tree
    }

    #[track_caller]
    fn holds(&self, image: &Snapshot, path: &str, text: &str) {
        let found = image.entries.get(path.as_bytes()).and_then(|e| e.digest);
        let wanted = Some(ContentDigest::of(text.as_bytes()));
        assert_eq!(found, wanted, "{}: {path}", self.target.name());
    }
}

#[test]
fn a_directory_is_built() {
    on(&PLACES, "examples::a_directory_is_built", async |place| {
        let token = fresh_token();
        place.write("file", &token);
        place.write(
            "Dockerfile",
            "FROM scratch\nARG VERSION\nLABEL v=$VERSION\nCOPY file /v$VERSION\n",
        );
        let (out, _) = place.run("build", &[], &[]);
        assert!(out.starts_with("built sha256:"), "{out}");
        place.holds(&place.image("app:1.0").await, "v1.0", &token);
    });
}

#[test]
fn events_tell_how_long_steps_took() {
    let name = "examples::events_tell_how_long_steps_took";
    on(&PLACES, name, async |place| {
        place.write("file", &fresh_token());
        place.write("Dockerfile", "FROM scratch\nCOPY file /events\n");
        let (out, _) = place.run("events", &[], &[]);
        let step = out.lines().find(|line| line.ends_with("] COPY file /events"));
        let took = step.and_then(|line| line.trim_start().split_once("s  "));
        assert!(took.is_some_and(|(t, _)| t.parse::<f64>().is_ok()), "{out}");
    });
}

#[test]
fn stages_are_built_at_once() {
    on(&PLACES, "examples::stages_are_built_at_once", async |place| {
        let token = fresh_token();
        place.write("file", &token);
        place.write(
            "Dockerfile",
            "FROM scratch AS web\nCOPY file /web\nFROM scratch AS worker\nCOPY file /worker\n",
        );
        let (out, _) = place.run("build_set", &[], &[]);
        assert!(out.starts_with("web: built sha256:"), "{out}");
        for stage in ["web", "worker"] {
            let image = place.image(&format!("app-{stage}")).await;
            place.holds(&image, stage, &token);
        }
    });
}

#[test]
fn files_come_from_memory() {
    on(&PLACES, "examples::files_come_from_memory", async |place| {
        let tag = fresh_tag("memory");
        place.run("in_memory", &[&tag], &[]);
        let image = place.image(&tag).await;
        place.holds(&image, "etc/app/settings.json", r#"{"debug": false}"#);
        let mode = image.entries[&b"etc/app/settings.json"[..]].mode & 0o7777;
        assert_eq!(mode, 0o640);
    });
}

#[test]
fn files_come_from_a_tree_of_the_programs_own() {
    let name = "examples::files_come_from_a_tree_of_the_programs_own";
    on(&PLACES, name, async |place| {
        let tag = fresh_tag("tables");
        place.run("custom_context", &[&tag], &[]);
        let image = place.image(&tag).await;
        for n in [3, 7] {
            let table: String = (1..=9).map(|m| format!("{n} x {m} = {}\n", n * m)).collect();
            place.holds(&image, &format!("tables/{n}"), &table);
        }
        let files = image.entries.keys().filter(|k| k.starts_with(b"tables/"));
        assert_eq!(files.count(), 2);
    });
}

#[test]
fn steps_get_secrets_and_nothing_shows_them() {
    let name = "examples::steps_get_secrets_and_nothing_shows_them";
    on(&PLACES, name, async |place| {
        fs::copy(&place.target.busybox, place.dir.path().join("busybox")).expect("a busybox");
        let token = format!("secret-{}", fresh_token());
        // Reversed, so that whoever shows the secret itself is caught; a step of its own, since secrets are no part of
        // what a cached step is found by.
        let own = fresh_token();
        let text = format!(
            "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\n\
             RUN --mount=type=secret,id=token --mount=type=secret,id=vault-db --mount=type=secret,id=absent \
             : {own} && cd /run/secrets && /bin/busybox cat token vault-db | /bin/busybox rev && ! [ -e absent ]\n"
        );
        place.write("Dockerfile", &text);
        let (out, err) = place.run("secrets", &[], &[("API_TOKEN", &token)]);
        assert!(err.contains("a step asks for vault-db\n"), "{err}");
        let reversed: String = format!("{token}the value of db").chars().rev().collect();
        let digits: Vec<String> = reversed.bytes().map(|b| b.to_string()).collect();
        // Events are printed with the bytes of the log as numbers or as text.
        assert!(
            err.contains(&reversed) || err.contains(&digits.join(", ")),
            "{err}"
        );
        assert!(!format!("{out}{err}").contains(&token), "{out}{err}");
    });
}

#[test]
fn an_image_is_pushed() {
    on(&PLACES, "examples::an_image_is_pushed", async |place| {
        let (token, base) = (fresh_token(), &place.target.base);
        let login = STANDARD.encode(format!("{}:{}", base.user, base.password));
        let config = serde_json::json!({"auths": {&base.host: {"auth": login}}});
        place.write("config.json", &config.to_string());
        place.write(".dockerignore", "config.json");
        place.write("file", &token);
        place.write("Dockerfile", "FROM scratch\nCOPY file /\n");
        let name = format!("{}/examples/push:{token}", base.host);
        let (out, err) = place.run("push", &[&name], &[]);
        let digest = out.strip_prefix("pushed ").unwrap_or_default().trim_end();
        assert!(digest.starts_with("sha256:"), "{}: {out}", place.target.name());
        assert!(err.contains(&base.host), "{err}");
        assert!(!err.contains(&base.password) && !err.contains(&login), "{err}");

        // What the registry has under that digest is the image.
        let options = ConnectOptions::new()
            .environment(Environment::empty())
            .addr(&place.target.address)
            .credentials(OneRegistry::new(base.clone()));
        let client = Box::pin(bk_client::connect_with(options)).await.expect("connect");
        let tag = fresh_tag("pushed");
        let text = format!("FROM {}/examples/push@{digest}\n", base.host);
        let request = BuildRequest::new(Context::None)
            .dockerfile(Dockerfile::Inline(text.into()))
            .pull(true)
            .tag(&tag);
        client
            .build(request, EventSink::discard())
            .await
            .expect("the image is there");
        place.holds(&place.image(&tag).await, "file", &token);
        // An engine keeps what it pushed under its name.
        let _ = place.engine.remove_image(&name).await;
    });
}

#[test]
fn one_archive_holds_two_platforms() {
    on(
        &ARCHIVES,
        "examples::one_archive_holds_two_platforms",
        async |place| {
            place.write("file", &fresh_token());
            place.write(
                "Dockerfile",
                "FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n",
            );
            let (out, _) = place.run("multi_platform", &[], &[]);
            let archive = place.dir.path().join("app.tar");
            let index = json_of(&archive, "index.json").expect("the index");
            let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
            assert!(out.contains(&format!("index {digest}\n")), "{out}");
            let blob = format!("blobs/{}", digest.replace(':', "/"));
            let inner = json_of(&archive, &blob).expect("the inner index");
            let of = |m: &serde_json::Value| m["platform"]["architecture"].as_str().map(str::to_owned);
            let platforms: BTreeSet<_> = inner["manifests"]
                .as_array()
                .expect("manifests")
                .iter()
                .filter_map(of)
                .collect();
            assert_eq!(
                platforms,
                BTreeSet::from(["amd64".to_owned(), "arm64".to_owned()])
            );
        },
    );
}
