//! `bk workers`, `bk info` and `bk ping`.

use std::time::Duration;

use bk_client::{Able, Administration, BuildError, BuildkitInfo, DaemonInfo, GcRule, Worker};
use bk_progress::neutralise_line;
use serde::Serialize;

use super::{Kind, json_line, table, units};
use crate::{
    args::{InfoArgs, PingArgs, WorkersArgs},
    report,
};

/// Platforms that a table names before it counts.
const PLATFORMS: usize = 3;

/// Lists the workers.
pub(super) async fn workers(
    admin: &dyn Administration,
    args: &WorkersArgs,
    verbose: bool,
) -> Result<u8, BuildError> {
    let workers = admin.workers(&args.filters).await?;
    let mut text = String::new();
    if args.json.json {
        for worker in &workers {
            text.push_str(&json_line(worker)?);
        }
    } else if verbose {
        text = workers.iter().map(worker).collect();
    } else {
        let rows = workers
            .iter()
            .map(|w| vec![w.id.clone(), version(w.buildkit.as_ref()), platforms(w)]);
        text = table::table(&["ID", "BUILDKIT", "PLATFORMS"], rows.collect());
    }
    Ok(report::to_stdout(&text))
}

fn version(buildkit: Option<&BuildkitInfo>) -> String {
    buildkit.map(|b| b.version.clone()).unwrap_or_default()
}

fn platforms(worker: &Worker) -> String {
    let named: Vec<_> = worker
        .platforms
        .iter()
        .take(PLATFORMS)
        .map(String::as_str)
        .collect();
    match worker.platforms.len().saturating_sub(PLATFORMS) {
        0 => named.join(", "),
        more => format!("{} (+{more})", named.join(", ")),
    }
}

/// Everything about a worker.
fn worker(worker: &Worker) -> String {
    let mut text = table::facts(&[
        ("Worker", worker.id.clone()),
        ("BuildKit", version(worker.buildkit.as_ref())),
        ("Platforms", worker.platforms.join(", ")),
        ("Devices", worker.devices.join(", ")),
    ]);
    if !worker.labels.is_empty() {
        text.push_str("Labels:\n");
        for (name, value) in &worker.labels {
            text.push_str(&format!(
                "  {} = {}\n",
                neutralise_line(name),
                neutralise_line(value)
            ));
        }
    }
    for (number, rule) in worker.gc_rules.iter().enumerate() {
        text.push_str(&format!("Cache rule {number}:\n"));
        for line in gc_rule(rule).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text.push('\n');
    text
}

fn gc_rule(rule: &GcRule) -> String {
    let bytes = |count: u64| match count {
        0 => String::new(),
        count => units::size(count),
    };
    let keep = match rule.keep_seconds {
        0 => String::new(),
        seconds => units::took(Duration::from_secs(seconds)),
    };
    table::facts(&[
        ("All", rule.all.to_string()),
        ("Filters", rule.filters.join(" or ")),
        ("Keeps what was used within", keep),
        ("Reserved space", bytes(rule.reserved_space)),
        ("Max used space", bytes(rule.max_used_space)),
        ("Min free space", bytes(rule.min_free_space)),
    ])
}

/// Says what the daemon is.
pub(super) async fn info(admin: &dyn Administration, args: &InfoArgs) -> Result<u8, BuildError> {
    let info = admin.daemon().await?;
    if args.json.json {
        return Ok(report::to_stdout(&json_line(&info)?));
    }
    let mut text = head(&info);
    if !info.engine.is_empty() {
        text.push_str("Engine:\n");
        for (name, value) in &info.engine {
            text.push_str(&format!(
                "  {}: {}\n",
                neutralise_line(name),
                neutralise_line(value)
            ));
        }
    }
    for one in info.workers.iter().flatten() {
        text.push('\n');
        text.push_str(worker(one).trim_end());
        text.push('\n');
    }
    Ok(report::to_stdout(&text))
}

fn head(info: &DaemonInfo) -> String {
    let buildkit = info.buildkit.as_ref();
    let said = version(buildkit);
    let line = info.buildkit_line.clone().unwrap_or_default();
    let buildkit_version = match (said.is_empty(), line.is_empty()) {
        (true, true) => "it does not say which".to_owned(),
        (true, false) => format!("{line}, as engines of this version have it"),
        (false, true) => format!("{said}, which tells nothing"),
        // Inside of an engine it says odd things.
        (false, false) if said.trim_start_matches('v').starts_with(&line) => said,
        (false, false) => format!("{line}, as engines of this version have it; it says {said}"),
    };
    let said = |part: fn(&BuildkitInfo) -> &String| buildkit.map(|b| part(b).clone()).unwrap_or_default();
    table::facts(&[
        ("Daemon", info.builder.to_string()),
        ("BuildKit", buildkit_version),
        ("Package", said(|b| &b.package)),
        ("Revision", said(|b| &b.revision)),
        ("Dockerfile frontend", said(|b| &b.dockerfile)),
    ])
}

/// Times in milliseconds.
#[derive(Serialize)]
struct Answer {
    connected_ms: f64,
    answered_ms: f64,
}

/// Asks who is there, and how long that takes.
pub(super) async fn ping(admin: &dyn Administration, args: &PingArgs) -> Result<u8, BuildError> {
    let json = args.json.json;
    let info = admin.daemon().await?;
    if !json {
        report::to_stdout(&head(&info));
    }
    let mut answers = Vec::new();
    for number in 1..=args.count {
        let pong = admin.ping().await?;
        answers.push(pong.answered);
        let text = match json {
            true => Kind::line(
                "pong",
                Answer {
                    connected_ms: pong.connected.as_secs_f64() * 1000.0,
                    answered_ms: pong.answered.as_secs_f64() * 1000.0,
                },
            )?,
            false => format!(
                "{number}: connected in {}, answered in {}\n",
                units::millis(pong.connected),
                units::millis(pong.answered)
            ),
        };
        report::to_stdout(&text);
    }
    if json {
        return Ok(report::to_stdout(&Kind::line("daemon", &info)?));
    }
    let mut text = String::new();
    if let (Some(least), Some(most), 2..) = (answers.iter().min(), answers.iter().max(), args.count) {
        let mean = answers.iter().sum::<Duration>() / args.count;
        text.push_str(&format!(
            "answers: {} at least, {} on average, {} at most\n",
            units::millis(*least),
            units::millis(mean),
            units::millis(*most)
        ));
    }
    text.push_str(&capabilities(&info));
    Ok(report::to_stdout(&text))
}

/// The reason of one kind of answer.
type Why = fn(&Able) -> Option<&String>;

/// What it can, what not, and what is not known.
fn capabilities(info: &DaemonInfo) -> String {
    let mut text = String::new();
    let can: Vec<_> = info
        .capabilities
        .iter()
        .filter(|c| c.able == Able::Yes)
        .map(|c| &*c.name)
        .collect();
    if !can.is_empty() {
        text.push_str("It can:\n");
        for name in can {
            text.push_str(&format!("  {}\n", neutralise_line(name)));
        }
    }
    let no: Why = |able| match able {
        Able::No(why) => Some(why),
        _ => None,
    };
    let unknown: Why = |able| match able {
        Able::Unknown(why) => Some(why),
        _ => None,
    };
    for (heading, why) in [
        ("It cannot:\n", no),
        ("Not known until it is asked for:\n", unknown),
    ] {
        let all = info.capabilities.iter();
        let rows: Vec<_> = all.filter_map(|c| Some((&c.name, why(&c.able)?))).collect();
        if !rows.is_empty() {
            text.push_str(heading);
        }
        for (name, why) in rows {
            text.push_str(&format!(
                "  {}: {}\n",
                neutralise_line(name),
                neutralise_line(why)
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bk_client::{BuilderInfo, Capability};

    use super::*;

    #[test]
    fn what_a_daemon_is_and_can_is_said() {
        let mut info = DaemonInfo::new(
            BuilderInfo::new("docker", "unix:///x")
                .version("28.5.2")
                .route("grpc"),
        );
        info.buildkit_line = Some("0.25".to_owned());
        assert_eq!(
            head(&info),
            "Daemon:    docker 28.5.2 (grpc) at unix:///x\nBuildKit:  0.25, as engines of this version have it\n"
        );
        let mut buildkit = BuildkitInfo::default();
        buildkit.version = "v0.25.2".to_owned();
        info.buildkit = Some(buildkit);
        assert!(head(&info).contains("BuildKit:  v0.25.2\n"), "{}", head(&info));
        info.capabilities = vec![
            Capability::new("--a", Able::Yes),
            Capability::new("--b", Able::No("needs\u{1b}[2J x".to_owned())),
            Capability::new("--c", Able::Unknown("it is silent".to_owned())),
        ];
        assert_eq!(
            capabilities(&info),
            "It can:\n  --a\nIt cannot:\n  --b: needs x\nNot known until it is asked for:\n  --c: it is silent\n"
        );
    }

    #[test]
    fn a_worker_says_its_rules() {
        let mut one = Worker::default();
        one.id = "w".to_owned();
        one.platforms = ["a/b", "c/d", "e/f", "g/h"].map(str::to_owned).to_vec();
        assert_eq!(platforms(&one), "a/b, c/d, e/f (+1)");
        let mut rule = GcRule::default();
        rule.all = true;
        rule.keep_seconds = 172_800;
        rule.max_used_space = 20_000_000_000;
        one.gc_rules = vec![rule];
        assert_eq!(
            worker(&one),
            "Worker:     w\nPlatforms:  a/b, c/d, e/f, g/h\nCache rule 0:\n  All:                         true\n  \
             Keeps what was used within:  48h 00m\n  Max used space:              20GB\n\n"
        );
    }
}
