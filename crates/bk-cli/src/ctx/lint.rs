//! `bk ctx lint`: what is questionable about a context and its ignore file.

use std::{io::Write, sync::atomic::AtomicBool};

use bk_client::{LintFinding, LintKind};
use bk_progress::neutralise_line;
use serde_json::Map;

use super::look::{self, Ended, Out, put_name, short, view, warn};
use crate::{args::CtxLintArgs, exit};

/// Runs the command.
pub(super) fn main(args: &CtxLintArgs) -> u8 {
    look::main(|out| run(args, out))
}

fn run(args: &CtxLintArgs, out: &mut Out) -> Result<u8, Ended> {
    let view = view(&args.look, &args.context)?;
    let findings = view.lint(&AtomicBool::new(false), &warn)?;
    for finding in &findings {
        match args.json {
            true => json(out, finding)?,
            false => line(out, finding)?,
        }
    }
    Ok(match findings.is_empty() {
        true => exit::SUCCESS,
        false => exit::FAILURE,
    })
}

fn line(out: &mut Out, finding: &LintFinding) -> Result<(), Ended> {
    if let Some((file, line)) = &finding.place {
        let file = neutralise_line(&short(file).to_string_lossy());
        write!(out, "{file}:{line}: ")?;
    }
    writeln!(
        out,
        "{}: {}",
        kind(finding.kind),
        neutralise_line(&finding.message)
    )?;
    Ok(())
}

fn json(out: &mut Out, finding: &LintFinding) -> Result<(), Ended> {
    let mut object = Map::new();
    object.insert("kind".to_owned(), kind(finding.kind).into());
    if let Some((file, line)) = &finding.place {
        put_name(&mut object, "file", file.as_os_str().as_encoded_bytes());
        object.insert("line".to_owned(), (*line).into());
    }
    if let Some(path) = &finding.path {
        put_name(&mut object, "path", path);
    }
    object.insert("message".to_owned(), finding.message.clone().into());
    out.json(object)?;
    Ok(())
}

/// The name of a kind, for people and programs.
fn kind(kind: LintKind) -> &'static str {
    match kind {
        LintKind::DeadPattern => "dead-pattern",
        LintKind::NoEffect => "no-effect",
        LintKind::Differs => "differs",
        LintKind::Secret => "secret",
        LintKind::Huge => "huge",
        _ => "other",
    }
}
