//! `bk ctx why`: whether paths are sent, and why.

use std::io::{self, Write};

use bk_client::{ContextView, Deciding, Why, WhyNot, path::show};
use bk_progress::neutralise_line;
use serde_json::{Map, Value, json};

use super::look::{self, Ended, Out, put_name, short, view};
use crate::{args::CtxWhyArgs, exit};

/// Runs the command.
pub(super) fn main(args: &CtxWhyArgs) -> u8 {
    look::main(|out| run(args, out))
}

fn run(args: &CtxWhyArgs, out: &mut Out) -> Result<u8, Ended> {
    let view = view(&args.look, &args.directory)?;
    let mut code = exit::SUCCESS;
    for path in &args.paths {
        let why = view.why(&view.path_of(path)?)?;
        if !why.sent() {
            code = exit::FAILURE;
        }
        match args.json {
            true => out.json(object(&view, &why))?,
            false => text(out, &view, &why)?,
        }
    }
    Ok(code)
}

fn text(out: &mut Out, view: &ContextView, why: &Why) -> io::Result<()> {
    let path: &[u8] = if why.path.is_empty() { b"." } else { &why.path };
    let name = out.name(path);
    out.write_all(&name)?;
    writeln!(out, ": {}", if why.sent() { "sent" } else { "not sent" })?;
    match why.not {
        Some(WhyNot::Missing) => writeln!(out, "  it is not in the context")?,
        Some(WhyNot::NotNeeded) => writeln!(out, "  it is not needed by any instruction")?,
        Some(WhyNot::Socket) => writeln!(out, "  it is a socket, and these are never sent")?,
        _ if why.holds_sent => writeln!(out, "  it is left out itself, but something in it is sent")?,
        _ => {}
    }
    if let Some(by) = &why.by {
        let what = match by.pattern.starts_with(b"!") {
            true => "kept by",
            false => "ignored by",
        };
        let (file, pattern) = (short(&by.file), neutralise_line(&show(&by.pattern)));
        let file = neutralise_line(&file.to_string_lossy());
        write!(out, "  {what} {file}:{}: {pattern}", by.line)?;
        match by.at == why.path {
            true => writeln!(out)?,
            false => writeln!(out, " (which settles all of {})", neutralise_line(&show(&by.at)))?,
        }
    }
    for need in &why.needed_by {
        let file = view
            .dockerfile()
            .map(short)
            .unwrap_or_else(|| "Dockerfile".into());
        let file = neutralise_line(&file.to_string_lossy());
        writeln!(
            out,
            "  needed by {file}:{}: {}",
            need.line,
            neutralise_line(&need.text)
        )?;
    }
    Ok(())
}

fn object(view: &ContextView, why: &Why) -> Map<String, Value> {
    let mut object = Map::new();
    put_name(&mut object, "path", &why.path);
    object.insert("sent".to_owned(), why.sent().into());
    let reason = match why.not {
        Some(WhyNot::Missing) => "missing",
        Some(WhyNot::Ignored) => "ignored",
        Some(WhyNot::NotNeeded) => "not-needed",
        Some(WhyNot::Socket) => "socket",
        _ => "",
    };
    if why.not.is_some() {
        object.insert("reason".to_owned(), reason.into());
    }
    if let Some(Deciding {
        file,
        line,
        pattern,
        at,
        ..
    }) = &why.by
    {
        let mut by = Map::new();
        put_name(&mut by, "file", file.as_os_str().as_encoded_bytes());
        by.insert("line".to_owned(), (*line).into());
        put_name(&mut by, "pattern", pattern);
        put_name(&mut by, "at", at);
        object.insert("pattern".to_owned(), by.into());
    }
    let needs = why.needed_by.iter();
    let needs: Vec<Value> = needs
        .map(|n| json!({"line": n.line, "text": n.text, "paths": n.paths}))
        .collect();
    object.insert("needed_by".to_owned(), needs.into());
    if let Some(unknown) = &view.needs().unknown {
        object.insert("needs_unknown".to_owned(), unknown.clone().into());
    }
    object
}
