//! `bk ctx hash` and `bk ctx diff`: what would be sent as one digest, and compared with another directory.

use std::{io::Write, sync::atomic::AtomicBool};

use bk_client::{BuildError, ContextChanges, ContextDifference, ContextView, Differs, InputError};
use serde_json::Map;

use super::look::{self, Ended, Out, put_name, view, warn};
use crate::{
    args::{CtxDiffArgs, CtxHashArgs},
    exit, explain,
    request::Process,
};

/// Runs `bk ctx hash`.
pub(super) fn hash(args: &CtxHashArgs) -> u8 {
    look::main(|out| {
        let view = view(&args.look, &args.context)?;
        let digest = view.digest(&AtomicBool::new(false), &warn)?;
        writeln!(out, "{digest}")?;
        Ok(exit::SUCCESS)
    })
}

/// Runs `bk ctx diff`.
pub(super) fn diff(args: &CtxDiffArgs) -> u8 {
    look::main(|out| compare(args, out))
}

fn compare(args: &CtxDiffArgs, out: &mut Out) -> Result<u8, Ended> {
    let ours = view(&args.look, &args.directory)?;
    let stop = AtomicBool::new(false);
    let mut code = exit::SUCCESS;
    let Some(other) = &args.other else {
        let changes = since_last_build(&ours, args.look.target.as_deref())?;
        for found in &changes.list {
            code = exit::FAILURE;
            print(args, out, found)?;
        }
        if changes.more > 0 {
            warn(&format!("{} more differences are not listed", changes.more));
        }
        return Ok(code);
    };
    let theirs = view(&args.look, other)?;
    ours.differences(&theirs, &stop, &warn, |found| -> Result<(), Ended> {
        code = exit::FAILURE;
        print(args, out, &found)
    })?;
    Ok(code)
}

/// What changed since the last build that was explained.
fn since_last_build(ours: &ContextView, target: Option<&str>) -> Result<ContextChanges, BuildError> {
    let history = explain::history(&Process).ok_or_else(|| {
        let why = "no build is remembered: neither XDG_CACHE_HOME nor HOME is set";
        InputError::new("OTHER", why, "a directory to compare with")
    })?;
    let record = history.record(ours, target, &AtomicBool::new(false), &warn)?;
    let changes = record.changes().cloned().ok_or_else(|| {
        let why = "no build of this context is remembered; `bk build --explain` remembers it";
        InputError::new("OTHER", why, "a directory to compare with")
    })?;
    Ok(changes)
}

fn print(args: &CtxDiffArgs, out: &mut Out, found: &ContextDifference) -> Result<(), Ended> {
    let (sign, what) = match found.what {
        Differs::Added => ("+", "added"),
        Differs::Removed => ("-", "removed"),
        Differs::Kind => ("K", "kind"),
        Differs::Mode => ("M", "mode"),
        Differs::Owner => ("O", "owner"),
        _ => ("C", "content"),
    };
    if args.json {
        let mut object = Map::new();
        put_name(&mut object, "path", &found.path);
        object.insert("what".to_owned(), what.into());
        out.json(object)?;
    } else {
        let name = out.name(&found.path);
        write!(out, "{sign} ")?;
        out.write_all(&name)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
