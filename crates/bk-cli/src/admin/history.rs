//! `bk history`.

use std::io;

use bk_client::{
    Administration, BuildError, Descriptor, HistoryFilter, HistoryRecord, HistoryState, InputError,
    LocalFailure, ProtocolFailure, Refusal, find_record,
};
use bk_progress::{Mode, Output, neutralise, neutralise_line};

use super::{cache::format_time_or_nothing, confirmed, export, json_line, table, units};
use crate::{
    args::{HistoryCommand, HistoryLogsArgs, HistoryLsArgs, HistoryRmArgs, HistoryTraceArgs, Progress},
    build, exit,
    interrupt::Interrupt,
    limits, report,
};

/// Characters of a name in a table.
const NAME: usize = 60;

/// Characters of a value in a list; some are whole configurations of images. JSON has them whole.
const VALUE: usize = 200;

/// Whether the command goes on.
pub(super) fn ask(command: &HistoryCommand) -> Result<bool, BuildError> {
    match command {
        HistoryCommand::Ls(args) => filters(args).map(|_| true),
        HistoryCommand::Logs(args) => mode(args).map(|_| true),
        HistoryCommand::Export(args) => Ok(export::sink(args).map(|_| true)?),
        HistoryCommand::Rm(args) if args.all => confirmed(
            &args.force,
            "WARNING! This removes the records of all builds that have ended.",
        ),
        _ => Ok(true),
    }
}

/// Runs the command.
pub(super) async fn run(
    admin: &dyn Administration,
    command: &HistoryCommand,
    interrupt: Interrupt,
) -> Result<u8, BuildError> {
    match command {
        HistoryCommand::Ls(args) => ls(admin, args).await,
        HistoryCommand::Inspect(args) => {
            let record = record(admin, &args.build.build).await?;
            let text = match args.json.json {
                true => json_line(&record)?,
                false => everything(&record),
            };
            Ok(report::to_stdout(&text))
        }
        HistoryCommand::Logs(args) => logs(admin, args, interrupt).await,
        HistoryCommand::Trace(args) => trace(admin, args).await,
        HistoryCommand::Export(args) => export::export(admin, args).await,
        HistoryCommand::Pin(args) => pin(admin, &args.refs.builds, true).await,
        HistoryCommand::Unpin(args) => pin(admin, &args.refs.builds, false).await,
        HistoryCommand::Rm(args) => rm(admin, args).await,
    }
}

/// The build that is meant.
async fn record(admin: &dyn Administration, text: &str) -> Result<HistoryRecord, BuildError> {
    let records = admin.history().await?;
    Ok(find_record(&records, text)?.clone())
}

fn filters(args: &HistoryLsArgs) -> Result<Vec<HistoryFilter>, BuildError> {
    let all = args.filters.iter().map(|text| text.parse());
    Ok(all.collect::<Result<_, InputError>>()?)
}

async fn ls(admin: &dyn Administration, args: &HistoryLsArgs) -> Result<u8, BuildError> {
    let filters = filters(args)?;
    let mut records = admin.history().await?;
    records.retain(|record| filters.iter().all(|filter| filter.holds(record)));
    let mut text = String::new();
    if args.json.json {
        for record in &records {
            text.push_str(&json_line(record)?);
        }
    } else {
        let row = |record: &HistoryRecord| {
            let name = record.name();
            vec![
                record.build_ref.clone(),
                if args.no_trunc {
                    name
                } else {
                    table::cut(&name, NAME)
                },
                state(record),
                units::ago(record.created_at),
                record.duration().map(units::took).unwrap_or_default(),
            ]
        };
        let heading = ["BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION"];
        text = table::table(&heading, records.iter().map(row).collect());
    }
    Ok(report::to_stdout(&text))
}

fn state(record: &HistoryRecord) -> String {
    match record.pinned {
        true => format!("{}, pinned", record.state.name()),
        false => record.state.name().to_owned(),
    }
}

/// Everything that is remembered of a build.
fn everything(record: &HistoryRecord) -> String {
    let created = match format_time_or_nothing(record.created_at) {
        text if text.is_empty() => text,
        text => format!("{text} ({})", units::ago(record.created_at)),
    };
    let mut text = table::facts(&[
        ("Build", record.build_ref.clone()),
        ("Name", record.name()),
        ("State", state(record)),
        ("Created", created),
        ("Completed", format_time_or_nothing(record.completed_at)),
        ("Duration", record.duration().map(units::took).unwrap_or_default()),
        (
            "Steps",
            format!(
                "{} of {}, {} from the cache",
                record.completed_steps, record.total_steps, record.cached_steps
            ),
        ),
        ("Warnings", record.warnings.to_string()),
        ("Frontend", record.frontend.clone()),
        ("Logs", blob(record.logs.as_ref())),
        ("Trace", blob(record.trace.as_ref())),
    ]);
    if let Some(error) = &record.error {
        text.push_str(&format!("Error:\n{}", indented(&error.message)));
    }
    let pairs = |heading: &str, pairs: &std::collections::BTreeMap<String, String>| {
        let lines = pairs.iter();
        let lines = lines.map(|(k, v)| {
            format!(
                "  {} = {}\n",
                neutralise_line(k),
                table::cut(&neutralise_line(v), VALUE)
            )
        });
        match pairs.is_empty() {
            true => String::new(),
            false => format!("{heading}:\n{}", lines.collect::<String>()),
        }
    };
    text.push_str(&pairs("Asked for", &record.attrs));
    for exporter in &record.exporters {
        let heading = format!("Exporter {}", neutralise_line(&exporter.kind));
        match exporter.attrs.is_empty() {
            true => text.push_str(&format!("{heading}\n")),
            false => text.push_str(&pairs(&heading, &exporter.attrs)),
        }
    }
    text.push_str(&pairs("Answered", &record.exporter_response));
    for (platform, result) in &record.results {
        let whose = match platform.as_str() {
            "" => String::new(),
            platform => format!(" for {}", neutralise_line(platform)),
        };
        if !result.results.is_empty() || !result.attestations.is_empty() {
            text.push_str(&format!("Results{whose}:\n"));
        }
        for one in result.results.values() {
            text.push_str(&format!("  {}\n", neutralise_line(&blob(Some(one)))));
        }
        for one in &result.attestations {
            let kind = one
                .annotations
                .get("in-toto.io/predicate-type")
                .unwrap_or(&one.media_type);
            text.push_str(&format!(
                "  {} ({})\n",
                neutralise_line(&one.digest),
                neutralise_line(kind)
            ));
        }
    }
    text
}

fn indented(message: &str) -> String {
    neutralise(message)
        .trim_end()
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect()
}

fn blob(descriptor: Option<&Descriptor>) -> String {
    match descriptor {
        Some(d) => format!("{} ({}, {})", d.digest, units::size(d.size), d.media_type),
        None => String::new(),
    }
}

fn mode(args: &HistoryLogsArgs) -> Result<Mode, BuildError> {
    Ok(match args.progress {
        Progress::Auto | Progress::Plain => Mode::Plain,
        Progress::Ordered => Mode::Ordered,
        Progress::Grouped => Mode::Grouped,
        Progress::Json => Mode::Json,
        Progress::Rawjson => Mode::RawJson,
        Progress::Quiet => Mode::Quiet,
        Progress::Tty => {
            let why = "`tty` draws what happens now, not what has happened";
            return Err(
                InputError::new("--progress", why, "plain, ordered, grouped, json or rawjson").into(),
            );
        }
    })
}

async fn logs(
    admin: &dyn Administration,
    args: &HistoryLogsArgs,
    interrupt: Interrupt,
) -> Result<u8, BuildError> {
    let record = record(admin, &args.build.build).await?;
    let renderer = mode(args)?.renderer(io::stdout(), &Output::default());
    let work = |sink| admin.history_logs(&record.build_ref, sink);
    build::drawn(work, renderer, interrupt, limits::CANCEL_GRACE).await?;
    Ok(exit::SUCCESS)
}

async fn trace(admin: &dyn Administration, args: &HistoryTraceArgs) -> Result<u8, BuildError> {
    let mut record = record(admin, &args.build.build).await?;
    if record.trace.is_none() && record.state != HistoryState::Running {
        // It is written a while after the build, or when it is asked for.
        admin.history_finalize(&record.build_ref).await?;
        record = admin.history_record(&record.build_ref).await?;
    }
    let Some(trace) = &record.trace else {
        let text = match record.state {
            HistoryState::Running => "a build that runs has no trace yet",
            _ => "the daemon wrote no trace of this build",
        };
        // gRPC's code for what is not there.
        return Err(Refusal::new(5, text).into());
    };
    let bytes = admin.history_blob(trace).await?;
    if args.output.as_os_str() == "-" {
        let text = String::from_utf8(bytes)
            .map_err(|e| ProtocolFailure::new("the trace is no text").caused_by(e))?;
        return Ok(report::to_stdout(&harmless(&text)));
    }
    let path = args.output.clone();
    let written = tokio::task::spawn_blocking(move || std::fs::write(&path, bytes)).await;
    match written {
        Ok(Ok(())) => Ok(exit::SUCCESS),
        Ok(Err(e)) => Err(LocalFailure::new(&args.output, "cannot write the trace")
            .caused_by(e)
            .into()),
        Err(e) => Err(BuildError::Misuse(format!("writing the trace ended early: {e}"))),
    }
}

/// JSON without anything that a terminal would obey; what it means stays the same.
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\t' => text.push(c),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// The builds that are meant, each once; an unknown one fails all, before anything is changed.
pub(super) fn meant(records: &[HistoryRecord], texts: &[String]) -> Result<Vec<String>, BuildError> {
    let mut all: Vec<String> = Vec::new();
    for text in texts {
        let build = &find_record(records, text)?.build_ref;
        if !all.contains(build) {
            all.push(build.clone());
        }
    }
    Ok(all)
}

async fn pin(admin: &dyn Administration, texts: &[String], pinned: bool) -> Result<u8, BuildError> {
    let records = admin.history().await?;
    for build in meant(&records, texts)? {
        admin.history_pin(&build, pinned).await?;
        report::to_stdout(&format!("{}\n", neutralise_line(&build)));
    }
    Ok(exit::SUCCESS)
}

async fn rm(admin: &dyn Administration, args: &HistoryRmArgs) -> Result<u8, BuildError> {
    let records = admin.history().await?;
    let builds = match args.all {
        true => {
            let ended = records.iter().filter(|r| r.state != HistoryState::Running);
            ended.map(|r| r.build_ref.clone()).collect()
        }
        false => meant(&records, &args.builds)?,
    };
    for build in builds {
        admin.history_remove(&build).await?;
        report::to_stdout(&format!("{}\n", neutralise_line(&build)));
    }
    Ok(exit::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use bk_client::{HistoryError, HistoryExporter};

    use super::*;

    #[test]
    fn a_record_is_told_whole_and_harmless() {
        let mut record = HistoryRecord::default();
        record.build_ref = "abc".to_owned();
        record.state = HistoryState::Error;
        record.pinned = true;
        record.created_at = Some(SystemTime::UNIX_EPOCH);
        record.completed_at = record.created_at.map(|t| t + Duration::from_secs(3));
        record.total_steps = 4;
        record.error = Some(HistoryError::new(2, "bad \u{1b}]0;t\u{7}thing\nand more\n"));
        record.attrs.insert("target".to_owned(), "t".to_owned());
        record.exporters = vec![HistoryExporter::new("image", Default::default())];
        let text = everything(&record);
        let lines: Vec<_> = text.lines().filter(|l| !l.starts_with("Created")).collect();
        assert_eq!(
            lines,
            [
                "Build:      abc",
                "Name:       t",
                "State:      error, pinned",
                "Completed:  1970-01-01T00:00:03Z",
                "Duration:   3.0s",
                "Steps:      0 of 4, 0 from the cache",
                "Warnings:   0",
                "Error:",
                "  bad thing",
                "  and more",
                "Asked for:",
                "  target = t",
                "Exporter image",
            ]
        );
        assert_eq!(harmless("{\"a\":\"\u{9b}\"}\n"), "{\"a\":\"\\u009b\"}\n");
    }

    #[test]
    fn an_unknown_build_stops_everything() {
        let mut one = HistoryRecord::default();
        one.build_ref = "abc".to_owned();
        let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            meant(&[one.clone()], &texts(&["a", "^0", "abc"])).expect("one"),
            ["abc"]
        );
        assert!(meant(&[one], &texts(&["abc", "x"])).is_err());
    }
}
