//! `bk daemon`: the private daemon, looked at, stopped, and kept.

use std::io::Write as _;

use bk_client::{
    BuildError, Environment, InputError, LocalFailure,
    daemon::{self, Announcement, KeepOptions, Keeper, Kind, Layout, Program, Status, StopAnswer},
    private_layout,
};
use serde_json::json;

use crate::{
    args::{DaemonCommand, DaemonKind, KeepArgs},
    exit, report,
};

/// Runs the command and returns its exit code; everything there is to say was said.
pub(crate) fn main(command: &DaemonCommand) -> u8 {
    match run(command) {
        Ok(code) => code,
        Err(e) => {
            let text = report::render(&e, false);
            if matches!(command, DaemonCommand::Keep(_)) {
                // Who started this reads standard output; standard error is a log. Nobody may be left to read either.
                report::to_stdout(&text);
            }
            report::to_stderr(&text);
            exit::of(&e)
        }
    }
}

fn run(command: &DaemonCommand) -> Result<u8, BuildError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| LocalFailure::new("bk", "cannot start its threads").caused_by(e))?;
    match command {
        DaemonCommand::Keep(args) => {
            runtime.block_on(keep(args))?;
            Ok(exit::SUCCESS)
        }
        DaemonCommand::Status(args) => {
            let layout = layout()?;
            let status = runtime.block_on(daemon::status(&layout))?;
            Ok(report::to_stdout(&match args.json {
                true => format!("{}\n", status_json(&layout, status.as_ref())),
                false => status_text(&layout, status.as_ref()),
            }))
        }
        DaemonCommand::Stop(args) => {
            let answer = runtime.block_on(daemon::stop(&layout()?, args.force))?;
            let (word, text) = match answer {
                StopAnswer::Stopped => ("stopped", "the private daemon was stopped\n".to_owned()),
                StopAnswer::SweptUp => (
                    "swept-up",
                    "what a private daemon had left was ended\n".to_owned(),
                ),
                StopAnswer::InUse(1) => (
                    "in-use",
                    "1 command uses the private daemon; it goes on\n".to_owned(),
                ),
                StopAnswer::InUse(n) => (
                    "in-use",
                    format!("{n} commands use the private daemon; it goes on\n"),
                ),
                _ => ("not-running", "no private daemon is running\n".to_owned()),
            };
            let written = report::to_stdout(&match args.json {
                true => format!("{}\n", json!({ "result": word })),
                false => text,
            });
            Ok(match answer {
                StopAnswer::InUse(_) => exit::FAILURE,
                _ => written,
            })
        }
    }
}

fn layout() -> Result<Layout, BuildError> {
    private_layout(&Environment::from_process()).ok_or_else(|| {
        InputError::new(
            "bk daemon",
            "there is no directory for a private daemon",
            "HOME or XDG_CACHE_HOME",
        )
        .into()
    })
}

/// How `bk` starts the process that looks after a private daemon: as itself.
pub(crate) fn keeper() -> Result<Keeper, BuildError> {
    let own = std::env::current_exe()
        .map_err(|e| LocalFailure::new("bk", "cannot find its own program").caused_by(e))?;
    Ok(Keeper::new(own, &["daemon", "keep"]))
}

async fn keep(args: &KeepArgs) -> Result<(), BuildError> {
    let kind = match args.kind {
        DaemonKind::Buildkitd => Kind::Buildkitd,
        DaemonKind::Dockerd => Kind::Dockerd,
    };
    let program = Program::new(kind, &args.program, args.rootlesskit.clone());
    let mut options = KeepOptions::new(Layout::of(&args.state, &args.run), program);
    options.idle = std::time::Duration::from_secs(args.idle);
    let announce = |_: Announcement| {
        // Who started this may be gone; the daemon then ends after its time.
        let mut out = std::io::stdout().lock();
        drop(out.write_all(b"listening\n").and_then(|()| out.flush()));
    };
    daemon::keep(options, announce).await?;
    Ok(())
}

fn left_behind(layout: &Layout) -> Option<u32> {
    daemon::left_behind(layout).map(|daemon| daemon.pid)
}

fn status_json(layout: &Layout, status: Option<&Status>) -> serde_json::Value {
    let state = layout.state().to_string_lossy();
    match status {
        None => json!({ "running": false, "state": state, "leftBehind": left_behind(layout) }),
        Some(status) => json!({
            "running": true,
            "ready": status.ready,
            "state": state,
            "kind": status.daemon.kind,
            "program": status.daemon.program,
            "address": status.daemon.address,
            "pid": status.daemon.pid,
            "keeperPid": status.keeper_pid,
            "leases": status.leases,
            "upSeconds": status.up_seconds,
            "idleSeconds": status.idle_seconds,
            "stopsInSeconds": status.stops_in_seconds,
        }),
    }
}

fn status_text(layout: &Layout, status: Option<&Status>) -> String {
    let state = layout.state().display();
    let Some(status) = status else {
        let left = left_behind(layout).map_or_else(String::new, |pid| {
            format!("a crash left process {pid}; the next start ends it, or `bk daemon stop`\n")
        });
        return format!("no private daemon is running\n{left}state    {state}\n");
    };
    let daemon = &status.daemon;
    let how = if status.ready { "running" } else { "starting" };
    let users = match (status.leases, status.stops_in_seconds) {
        (1, _) => "1 command".to_owned(),
        (0, Some(left)) => format!("nobody; stops in {left} s"),
        (n, _) => format!("{n} commands"),
    };
    format!(
        "{} is {how} for {} s\nprogram  {}\naddress  {}\nprocess  {}, kept by {}\nused by  {users}\nstate    {state}\n",
        daemon.kind.name(),
        status.up_seconds,
        daemon.program.display(),
        daemon.address,
        daemon.pid,
        status.keeper_pid,
    )
}
