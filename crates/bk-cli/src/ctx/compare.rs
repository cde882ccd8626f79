//! `bk ctx hash` and `bk ctx diff`: what would be sent as one digest, and compared with another directory.

use std::{io::Write, sync::atomic::AtomicBool};

use bk_client::Differs;
use serde_json::Map;

use super::look::{self, Ended, Out, put_name, view, warn};
use crate::{
    args::{CtxDiffArgs, CtxHashArgs},
    exit,
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
    let theirs = view(&args.look, &args.other)?;
    let mut code = exit::SUCCESS;
    ours.differences(
        &theirs,
        &AtomicBool::new(false),
        &warn,
        |found| -> Result<(), Ended> {
            code = exit::FAILURE;
            let (sign, what) = match found.what {
                Differs::Added => ("+", "added"),
                Differs::Removed => ("-", "removed"),
                Differs::Kind => ("K", "kind"),
                Differs::Mode => ("M", "mode"),
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
        },
    )?;
    Ok(code)
}
