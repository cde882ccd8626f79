//! Looking after daemons with `bk`: bad input and daemons that are not there, the fake daemon, and live ones.
//!
//! Live tests touch only records that they made themselves: other tests use the same daemons.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bk_proto::control::{BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord};
use bk_testkit::{
    conformance::fresh_token,
    fake::{History, Script},
    live::{Daemon, Engine, Route, Target},
};
use nix::{
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{Ran, bk, fake::fake, live, own::Own, run, text};

const PLACES: [(Daemon, Route); 7] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker20_10, Route::Tar),
    (Daemon::Docker26_1, Route::Grpc),
    (Daemon::Docker28_5, Route::Build),
    (Daemon::Docker28_5, Route::Grpc),
    (Daemon::Docker28_5Containerd, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
];

const CACHE: &str = "Administration: the cache (`bk du`, `bk prune`)";
const DAEMON: &str = "Administration: workers and versions (`bk workers`, `bk info`, `bk ping`)";
const HISTORY: &str = "Administration: past builds (`bk history`)";

/// `bk` on a daemon, with these words.
fn on(target: &Target, words: &[&str]) -> Command {
    let mut command = match target.route {
        Route::Direct => bk(&["--backend", "buildkitd"]),
        route => bk(&["--docker-route", route.name()]),
    };
    command.args(["--addr", &target.address]).args(words);
    command
}

/// What it answers, which must be a success.
fn answer(target: &Target, words: &[&str]) -> String {
    let ran = run(&mut on(target, words));
    assert_eq!(ran.code, Some(0), "{}: {words:?}: {}", target.name(), ran.err);
    ran.out
}

fn lines(answer: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    answer.lines().map(parse).collect()
}

#[test]
fn wrong_words_are_refused_before_anything_is_asked() {
    let nowhere = ["--backend", "buildkitd", "--addr", "unix:///nonexistent/x.sock"];
    for (words, code, part) in [
        (&["prune"][..], 2, "Standard input is no terminal"),
        (
            &["prune", "-f", "--filter", "size=1"],
            2,
            "there is no such field",
        ),
        (
            &["prune", "-f", "--keep-duration", "soon"],
            2,
            "`soon` is not a time",
        ),
        (
            &["prune", "-f", "--max-used-space", "x"],
            2,
            "--max-used-space: `x`",
        ),
        (
            &["prune", "-f", "--filter", "until=1h", "--until", "2h"],
            2,
            "say the same",
        ),
        (&["history", "ls", "--filter", "status=odd"], 2, "no such state"),
        (
            &["history", "logs", "--progress", "tty"],
            2,
            "draws what happens now",
        ),
        (&["history", "rm", "--all"], 2, "Standard input is no terminal"),
        (&["history", "rm"], 2, "<REF>"),
        (&["du"], 1, "cannot reach a daemon at unix:///nonexistent/x.sock"),
        (&["ping", "--count", "0"], 2, "0 is not in 1..=1000"),
    ] {
        let ran = run(bk(&nowhere).args(words));
        assert_eq!((ran.code, &*ran.out), (Some(code), ""), "{words:?}: {}", ran.err);
        assert!(ran.err.contains(part), "{words:?}: {}", ran.err);
    }
}

#[test]
fn a_daemon_without_a_history_is_refused_by_name() {
    let daemon = fake(Script::healthy().version(None));
    let on = |words: &[&str]| run(bk(&["--backend", "buildkitd", "--addr", &daemon.address()]).args(words));
    let ran = on(&["history", "ls"]);
    assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{}", ran.err);
    assert_eq!(
        ran.err,
        format!(
            "ERROR: the build history needs BuildKit 0.11 (Docker Engine 24.0); buildkitd at {} has an older one\n  hint: leave the \
             build history out, or use a daemon with BuildKit 0.11 (Docker Engine 24.0) or later\n",
            daemon.address()
        )
    );
    let ran = on(&["du"]);
    assert_eq!(
        (ran.code, &*ran.out),
        (
            Some(0),
            "ID   RECLAIMABLE   SIZE   LAST ACCESSED\nReclaimable:  0B\nTotal:        0B\n"
        ),
        "{}",
        ran.err
    );
    let ran = on(&["prune", "--force", "--max-used-space", "1g"]);
    assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{}", ran.err);
    assert!(
        ran.err.contains("an older one would remove everything"),
        "{}",
        ran.err
    );
    let ran = on(&["workers"]);
    assert_eq!(
        ran.out,
        "ID            BUILDKIT   PLATFORMS\nfake-worker              linux/amd64\n"
    );
    let ran = on(&["ping", "--json"]);
    let said = lines(&ran.out);
    assert_eq!(
        (said.len(), &said[0]["kind"]),
        (2, &Value::from("pong")),
        "{}",
        ran.out
    );
    assert!(said[0]["answered_ms"].is_f64(), "{}", ran.out);
    let history = said[1]["capabilities"].as_array().expect("a list").iter();
    let history: Vec<_> = history.filter(|c| c["name"] == "the build history").collect();
    assert_eq!((history.len(), &history[0]["able"]), (1, &Value::from("no")));
}

#[test]
fn nothing_goes_unless_somebody_at_the_terminal_says_yes() {
    for (typed, goes) in [("n\n", false), ("\n", false), ("yes\n", true)] {
        let daemon = fake(Script::healthy());
        let pair = openpty(None, None).expect("a pseudo-terminal");
        let mut keyboard = File::from(pair.master);
        let mut command = bk(&["--backend", "buildkitd", "--addr", &daemon.address(), "prune"]);
        command.stdin(Stdio::from(pair.slave));
        keyboard.write_all(typed.as_bytes()).expect("it can be typed on");
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(0), "{typed:?}: {}", ran.err);
        assert_eq!(
            ran.err,
            "WARNING! This removes the build cache that no build uses. Continue? [y/N] "
        );
        assert_eq!(ran.out, if goes { "Total:  0B\n" } else { "" }, "{typed:?}");
        let calls = daemon.seen().calls;
        let asked = calls.iter().filter(|c| c.path.ends_with("/Prune")).count();
        assert_eq!(asked, usize::from(goes), "{typed:?}");
    }
}

#[test]
fn a_daemon_says_who_it_is() {
    let daemon = fake(Script::healthy().version(Some("v0.32.0")));
    let ran = run(&mut bk(&[
        "--backend",
        "buildkitd",
        "--addr",
        &daemon.address(),
        "info",
    ]));
    assert_eq!(
        ran.out,
        format!(
            "Daemon:    buildkitd v0.32.0 at {}\nBuildKit:  v0.32.0\nPackage:   github.com/moby/buildkit\nRevision:  fake\n\n\
             Worker:     fake-worker\nBuildKit:   v0.32.0\nPlatforms:  linux/amd64\n",
            daemon.address()
        ),
        "{}",
        ran.err
    );
}

/// A context whose last step nobody else has, and the name that makes it so.
fn context(token: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("file"), format!("{token}\n")).expect("writable");
    let dockerfile = format!("FROM scratch\nCOPY file /{token}\n");
    fs::write(dir.path().join("Dockerfile"), dockerfile).expect("writable");
    dir
}

fn build(target: &Target, dir: &Path, metadata: &Path, tag: &str) -> Ran {
    let flags = ["-q", "-t", tag, "--metadata-file", text(metadata)];
    run(&mut live::build(target, dir, &flags))
}

#[test]
fn own_records_are_listed_and_removed() {
    live::on(
        &PLACES,
        "admin::own_records_are_listed_and_removed",
        async |target| {
            let name = target.name();
            let engine = Engine::connect(&target.docker).await.expect("the engine behind");
            let token = format!("bk-admin-{}", fresh_token());
            let dir = context(&token);
            let metadata = dir.path().with_extension("json");
            let tag = format!("bk-admin-{}", name.replace(['/', '.'], "-").to_lowercase());
            let ran = build(target, dir.path(), &metadata, &tag);
            assert_eq!(ran.code, Some(0), "{name}: {}", ran.err);
            fs::remove_file(&metadata).expect("removable");
            // What holds its layer would make it shared.
            engine.remove_image(&tag).await.expect("removable");
            // On an engine that keeps layers BuildKit 0.8 does not name the source of a copy.
            let named = format!("description~={token}");
            let old = target.daemon == Daemon::Docker20_10;
            let all = lines(&answer(target, &["du", "--json"]));
            let total = all.last().expect("a total");
            assert_eq!(total["kind"], "total", "{name}");
            assert!(
                total["total"].as_u64() >= total["reclaimable"].as_u64(),
                "{name}: {total}"
            );
            let mine = match old {
                // There every copy is called the same; ours is the newest.
                true => all
                    .into_iter()
                    .filter(|r| r["kind"] == "record" && r["record_type"] == "regular")
                    .max_by_key(|r| r["created_at"].as_str().unwrap_or_default().to_owned()),
                false => lines(&answer(target, &["du", "--json", "--filter", &named]))
                    .into_iter()
                    .next(),
            };
            let mine = mine.expect("a record");
            assert_eq!(mine["kind"], "record", "{name}: {named}");
            let id = mine["id"].as_str().expect("an id").to_owned();
            let by_id = format!("id={id}");
            let text = answer(target, &["du", "--filter", &by_id]);
            assert!(
                text.starts_with("ID ") && text.contains(&id) && text.contains("\nTotal:        "),
                "{name}: {text}"
            );
            let text = answer(target, &["du", "-v", "--filter", &by_id]);
            assert!(
                text.starts_with(&format!("ID:           {id}\n")),
                "{name}: {text}"
            );

            let refused = run(&mut on(target, &["prune", "-a", "--filter", &by_id]));
            assert_eq!(
                (refused.code, &*refused.out),
                (Some(2), ""),
                "{name}: {}",
                refused.err
            );
            let planned = lines(&answer(
                target,
                &["prune", "-a", "--dry-run", "--json", "--filter", &by_id],
            ));
            let (plan, going) = planned.split_last().expect("a plan");
            assert_eq!(
                (&plan["kind"], &plan["exact"]),
                (&"plan".into(), &true.into()),
                "{name}"
            );
            assert_eq!(going.len(), 1, "{name}: {planned:?}");
            assert_eq!(
                (&going[0]["id"], &plan["bytes"]),
                (&mine["id"], &mine["size"]),
                "{name}"
            );
            let gone = lines(&answer(
                target,
                &["prune", "-a", "--force", "--json", "--filter", &by_id],
            ));
            let (sum, gone) = gone.split_last().expect("a sum");
            let ids: Vec<_> = gone.iter().map(|r| &r["id"]).collect();
            assert_eq!(ids, [&mine["id"]], "{name}");
            assert_eq!(
                (&sum["records"], &sum["bytes"]),
                (&1.into(), &mine["size"]),
                "{name}: {sum}"
            );
            let left = lines(&answer(target, &["du", "--json", "--filter", &by_id]));
            assert_eq!(left.len(), 1, "{name}: {left:?}");
            target.supports(CACHE);

            if old || target.daemon == Daemon::Docker26_1 {
                let words = ["prune", "-f", "--max-used-space", "1g", "--filter", &by_id];
                let refused = run(&mut on(target, &words));
                assert_eq!(refused.code, Some(1), "{name}: {}", refused.err);
                assert!(
                    refused.err.contains("needs BuildKit 0.17 (Docker Engine 28.0)"),
                    "{name}: {}",
                    refused.err
                );
            } else {
                answer(
                    target,
                    &["prune", "-f", "--max-used-space", "1g", "--filter", &by_id],
                );
            }
        },
    );
}

#[test]
fn daemons_say_what_they_are() {
    live::on(&PLACES, "admin::daemons_say_what_they_are", async |target| {
        let name = target.name();
        let info = lines(&answer(target, &["info", "--json"])).remove(0);
        assert_eq!(info["builder"]["address"], *target.address, "{name}");
        let pong = answer(target, &["ping", "--count", "2"]);
        for part in [
            "Daemon:    ",
            "\n1: connected in ",
            "\n2: connected in ",
            "\nanswers: ",
        ] {
            assert!(pong.contains(part), "{name}: {pong}");
        }
        let said = answer(target, &["info"]);
        assert!(said.starts_with("Daemon:    "), "{name}: {said}");
        let own_api = matches!(target.route, Route::Build | Route::Tar);
        assert_eq!(info["workers"].is_null(), own_api, "{name}");
        assert_eq!(
            said.contains("\nEngine:\n"),
            target.route != Route::Direct,
            "{name}: {said}"
        );
        if own_api {
            let refused = run(&mut on(target, &["workers"]));
            assert_eq!(
                (refused.code, &*refused.err),
                (
                    Some(1),
                    &*format!(
                        "ERROR: the list of workers cannot be asked for on the Docker route {}\n  hint: the routes grpc and \
                         h2c can\n",
                        target.route.name()
                    )
                ),
                "{name}"
            );
            target.refuses(DAEMON, "the list of workers is told on the routes grpc and h2c");
            return;
        }
        let workers = lines(&answer(target, &["workers", "--json"]));
        let platforms = workers[0]["platforms"].as_array().expect("a list");
        assert!(platforms.contains(&"linux/amd64".into()), "{name}: {platforms:?}");
        assert_eq!(info["workers"], Value::from(workers), "{name}");
        target.supports(DAEMON);
    });
}

#[test]
fn the_history_is_told_and_changed() {
    live::on(
        &PLACES,
        "admin::the_history_is_told_and_changed",
        async |target| {
            let name = target.name();
            let refused = run(&mut on(target, &["history", "ls"]));
            if matches!(target.route, Route::Build | Route::Tar) {
                let text = format!(
                    "the build history cannot be asked for on the Docker route {}",
                    target.route.name()
                );
                assert_eq!(
                    refused.err,
                    format!("ERROR: {text}\n  hint: the routes grpc and h2c can\n"),
                    "{name}"
                );
                target.refuses(HISTORY, &text);
                return;
            }
            if target.daemon == Daemon::Docker20_10 {
                let text = "the build history needs BuildKit 0.11 (Docker Engine 24.0)";
                assert_eq!(refused.code, Some(1), "{name}");
                assert!(
                    refused.err.contains(text) && refused.err.contains("has BuildKit 0.8"),
                    "{name}: {}",
                    refused.err
                );
                target.refuses(HISTORY, text);
                return;
            }
            let engine = Engine::connect(&target.docker).await.expect("the engine behind");
            let token = format!("bk-admin-{}", fresh_token());
            let dir = context(&token);
            let metadata = dir.path().with_extension("json");
            let tag = format!("bk-history-{}", name.replace(['/', '.'], "-").to_lowercase());
            let ran = build(target, dir.path(), &metadata, &tag);
            assert_eq!(ran.code, Some(0), "{name}: {}", ran.err);
            let said: Value = serde_json::from_slice(&fs::read(&metadata).expect("metadata")).expect("JSON");
            fs::remove_file(&metadata).expect("removable");
            engine.remove_image(&tag).await.expect("removable");
            let whole = said["buildx.build.ref"].as_str().expect("a reference");
            let id = whole.rsplit('/').next().expect("an id");

            let ls =
                |filters: &[&str]| lines(&answer(target, &[&["history", "ls", "--json"], filters].concat()));
            let own = ls(&["--filter", &format!("ref={id}")]).remove(0);
            assert_eq!(
                (&own["state"], &own["pinned"]),
                (&"completed".into(), &false.into()),
                "{name}"
            );
            assert!(own["total_steps"].as_u64() >= Some(3), "{name}: {own}");
            let table = answer(target, &["history", "ls", "--filter", &format!("ref~={id}")]);
            assert!(
                table.starts_with("BUILD ID ") && table.contains(id),
                "{name}: {table}"
            );
            for reference in [whole, id.get(..20).expect("long ids")] {
                let one = lines(&answer(target, &["history", "inspect", reference, "--json"])).remove(0);
                assert_eq!(one["build_ref"], id, "{name}");
            }
            let text = answer(target, &["history", "inspect", id]);
            assert!(
                text.starts_with(&format!("Build:      {id}\n"))
                    && text.contains("\nState:      completed\n"),
                "{name}: {text}"
            );
            let logs = answer(target, &["history", "logs", id]);
            assert!(logs.contains(&format!("COPY file /{token}\n")), "{name}: {logs}");
            let raw = lines(&answer(target, &["history", "logs", id, "--progress=rawjson"]));
            assert!(
                raw.iter().any(|line| line["vertexes"].is_array()),
                "{name}: {raw:?}"
            );

            let pinned = || ls(&["--filter", &format!("ref={id}"), "--filter", "pinned"]).len();
            assert_eq!(
                answer(target, &["history", "pin", id]),
                format!("{id}\n"),
                "{name}"
            );
            assert_eq!(pinned(), 1, "{name}");
            assert_eq!(
                answer(target, &["history", "unpin", id]),
                format!("{id}\n"),
                "{name}"
            );
            assert_eq!(pinned(), 0, "{name}");

            // BuildKit 0.13 does not finalize, and writes its traces when it likes.
            if target.daemon == Daemon::Docker26_1 {
                answer(target, &["history", "pin", id]);
                let ran = run(&mut on(target, &["history", "trace", id]));
                assert!(
                    ran.code == Some(0)
                        || ran.err == "ERROR: the daemon wrote no trace of this build\n"
                            && ran.code == Some(1),
                    "{name}: {}",
                    ran.err
                );
                assert_eq!(pinned(), 1, "{name}: what it is asked for changes nothing else");
                answer(target, &["history", "unpin", id]);
            } else {
                let trace = answer(target, &["history", "trace", id]);
                assert!(
                    trace.starts_with(['{', '[']) && trace.contains("traceID\"")
                        || trace.contains("TraceID\""),
                    "{name}"
                );
            }
            assert_eq!(
                answer(target, &["history", "rm", id]),
                format!("{id}\n"),
                "{name}"
            );
            let gone = run(&mut on(target, &["history", "inspect", id]));
            assert_eq!((gone.code, &*gone.out), (Some(2), ""), "{name}: {}", gone.err);
            assert!(
                gone.err.contains("the daemon remembers no build"),
                "{name}: {}",
                gone.err
            );
            target.supports(HISTORY);
        },
    );
}

#[test]
fn a_trace_and_headers_go_with_every_call() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let ended = |id: &str| {
        let record = BuildHistoryRecord {
            r#ref: id.to_owned(),
            completed_at: Some(prost_types::Timestamp::default()),
            ..BuildHistoryRecord::default()
        };
        event(BuildHistoryEventType::Complete, record)
    };
    let daemon = fake(Script::healthy().history(History::new().events(vec![ended("one")])));
    for (words, method) in [
        (&["du"][..], "Control/DiskUsage"),
        (&["prune", "--force"], "Control/Prune"),
        (&["info"], "Control/Info"),
        (&["history", "ls"], "Control/ListenBuildHistory"),
        (&["history", "pin", "one"], "Control/UpdateBuildHistory"),
    ] {
        let ran = run(bk(&["--backend", "buildkitd", "--addr", &daemon.address()])
            .args(words)
            .env("TRACEPARENT", TRACE));
        assert_eq!(ran.code, Some(0), "{words:?}: {}", ran.err);
        let calls = daemon.seen().calls;
        let call = calls.iter().rfind(|c| c.path.ends_with(method)).expect(method);
        assert_eq!(
            call.headers.get("traceparent").map(String::as_str),
            Some(TRACE),
            "{method}"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let options = bk_client::ConnectOptions::new()
            .addr(daemon.address())
            .backend(bk_client::Backend::Buildkitd);
        let client = bk_client::connect_with(options).await.expect("connects");
        let headers = [("x-proxy", "a")].into_iter().collect();
        let admin = client.headers(&headers).admin().expect("an administration");
        admin.workers(&[]).await.expect("workers");
        let call = daemon.seen().calls.pop().expect("a call");
        assert!(call.path.ends_with("Control/ListWorkers"), "{}", call.path);
        assert_eq!(call.headers.get("x-proxy").map(String::as_str), Some("a"));
    });
}

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(record),
    }
}

#[test]
fn a_long_history_with_rubbish_is_listed_in_order() {
    const BUILDS: i32 = 10_000;
    use BuildHistoryEventType::{Complete, Deleted};
    let record = |id: &str, second: i32, generation| BuildHistoryRecord {
        r#ref: id.to_owned(),
        created_at: Some(prost_types::Timestamp {
            seconds: second.into(),
            nanos: 0,
        }),
        completed_at: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        }),
        generation,
        num_total_steps: -1,
        ..BuildHistoryRecord::default()
    };
    let mut events: Vec<_> = (0..BUILDS)
        .map(|n| event(Complete, record(&format!("b{n:05}"), n, 1)))
        .collect();
    events.extend([
        BuildHistoryEvent::default(),
        event(Complete, BuildHistoryRecord::default()),
        event(Deleted, record("never there", 1, 1)),
        event(Deleted, record("b00000", 0, 2)),
        event(Complete, record("b00001", BUILDS, 3)),
        event(Complete, record("b00001", 1, 2)),
        event(Complete, record("odd\u{1b}]0;x\u{7}\n\u{9b}1m", BUILDS + 1, 1)),
    ]);
    let daemon = fake(Script::healthy().history(History::new().events(events)));
    let ls = |words: &[&str]| {
        let mut command = bk(&[
            "--backend",
            "buildkitd",
            "--addr",
            &daemon.address(),
            "history",
            "ls",
        ]);
        let ran = run(command.args(words));
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        assert!(!ran.out.contains(['\u{1b}', '\u{9b}', '\u{7}']));
        ran.out
    };
    let all = lines(&ls(&["--json"]));
    let ids: Vec<_> = all
        .iter()
        .map(|r| r["build_ref"].as_str().expect("an id"))
        .collect();
    let count = usize::try_from(BUILDS).expect("small");
    assert_eq!(ids.len(), count);
    assert_eq!(ids[..3], ["odd\u{1b}]0;x\u{7}\n\u{9b}1m", "b00001", "b09999"]);
    assert_eq!(ids[count - 1], "b00002");
    assert_eq!(
        (&all[1]["generation"], &all[1]["total_steps"]),
        (&3.into(), &0.into())
    );
    assert_eq!(ls(&[]).lines().count(), 1 + count);
}

#[test]
fn a_list_that_never_ends_is_left_at_once() {
    let daemon = fake(Script::healthy().history(History::new().events(Vec::new()).endless()));
    let mut command = bk(&[
        "--backend",
        "buildkitd",
        "--addr",
        &daemon.address(),
        "history",
        "ls",
    ]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bk starts");
    let asked = || {
        daemon
            .seen()
            .calls
            .iter()
            .any(|c| c.path.ends_with("/ListenBuildHistory"))
    };
    while !asked() {
        std::thread::sleep(Duration::from_millis(5)); // sleep: the daemon has no event for a call
    }
    let begun = Instant::now();
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("it runs");
    let ran = super::ran(child.wait_with_output().expect("an end"));
    assert_eq!((ran.code, &*ran.out), (Some(130), ""), "{}", ran.err);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// On engines of the test's own: others use the cache of the shared ones.
#[test]
fn a_plan_is_what_a_removal_then_removes() {
    const TEST: &str = "admin::a_plan_is_what_a_removal_then_removes";
    for containerd in [false, true] {
        let Some(own) = Own::start(TEST, containerd) else {
            return;
        };
        let said = |words: &[&str]| {
            let ran = run(&mut own.bk(words));
            assert_eq!(ran.code, Some(0), "{words:?}: {}", ran.err);
            let mut all = lines(&ran.out);
            let last = all.pop().expect("a sum");
            let mut records: Vec<_> = all
                .iter()
                .map(|r| (r["id"].to_string(), r["size"].as_u64()))
                .collect();
            records.sort();
            (records, last)
        };
        // Two images that share a layer; the first is untagged by the second.
        for number in 0..2 {
            let dir = context(&format!("bk-own-{}", fresh_token()));
            fs::write(dir.path().join("base"), "base\n".repeat(10_000)).expect("writable");
            let dockerfile = format!("FROM scratch\nCOPY base /\nCOPY file /file{number}\n");
            fs::write(dir.path().join("Dockerfile"), dockerfile).expect("writable");
            let ran = run(own.bk(&["build", "-q", "-t", "own:1"]).arg(dir.path()));
            assert_eq!(ran.code, Some(0), "{}", ran.err);
        }
        let mut removed = 0;
        for flags in [&["--filter", "type=source.local"][..], &[], &["--all"]] {
            let (planned, plan) = said(&[&["prune", "--dry-run", "--json"], flags].concat());
            let (gone, sum) = said(&[&["prune", "--force", "--json"], flags].concat());
            assert_eq!(planned, gone, "{containerd}: {flags:?}");
            assert_eq!(
                (&plan["exact"], &plan["records"], &plan["bytes"]),
                (&true.into(), &sum["records"], &sum["bytes"]),
                "{containerd}: {flags:?}"
            );
            removed += gone.len();
        }
        assert!(removed > 2, "{containerd}: {removed}");
        // What is left cannot go, and a second removal agrees.
        assert_eq!(said(&["prune", "--all", "--dry-run", "--json"]).1["bytes"], 0);
        assert_eq!(said(&["prune", "--all", "--force", "--json"]).1["bytes"], 0);
    }
}
