//! `bk ctx ls`: what would be sent, in the order of the wire.

use std::{
    io::{self, Write},
    path::Path,
    sync::atomic::AtomicBool,
};

use bk_client::{
    BuildError, ContextView, InputError,
    entry::{Entry, Kind},
    path::show,
};
use serde_json::Map;

use super::look::{self, Ended, Out, put_name, view, warn};
use crate::{args::CtxLsArgs, exit};

/// Runs the command.
pub(super) fn main(args: &CtxLsArgs) -> u8 {
    look::main(|out| run(args, out))
}

fn run(args: &CtxLsArgs, out: &mut Out) -> Result<u8, Ended> {
    let view = view(&args.look, &args.context)?;
    if let Some(target) = &args.depfile {
        write!(out, "{}:", escaped(target.as_bytes())?)?;
        for file in [view.dockerfile(), view.ignore_file()].into_iter().flatten() {
            dependency(out, look::short(file).as_os_str().as_encoded_bytes())?;
        }
    }
    let stop = AtomicBool::new(false);
    view.list(&stop, &warn, |entry| -> Result<(), Ended> {
        if args.depfile.is_some() {
            if matches!(entry.meta.kind, Kind::File | Kind::Symlink) {
                dependency(out, &below(&args.context, &view, &entry.path))?;
            }
        } else if args.json {
            json(out, &view, entry)?;
        } else {
            line(out, &view, entry, args.long)?;
        }
        Ok(())
    })?;
    if args.depfile.is_some() {
        out.write_all(b"\n")?;
    }
    Ok(exit::SUCCESS)
}

fn line(out: &mut Out, view: &ContextView, entry: &Entry, long: bool) -> io::Result<()> {
    if long {
        let mode = view.policies().mode.apply(entry.meta.kind, entry.meta.mode);
        write!(out, "{} {:>12} ", permissions(entry.meta.kind, mode), size(entry))?;
    }
    let name = out.name(&entry.path);
    out.write_all(&name)?;
    if long && entry.meta.kind == Kind::Symlink {
        let target = out.name(&entry.target);
        out.write_all(b" -> ")?;
        out.write_all(&target)?;
    }
    out.write_all(b"\n")
}

fn json(out: &mut Out, view: &ContextView, entry: &Entry) -> io::Result<()> {
    let mode = view.policies().mode.apply(entry.meta.kind, entry.meta.mode);
    let mut object = Map::new();
    put_name(&mut object, "path", &entry.path);
    object.insert("kind".to_owned(), kind(entry.meta.kind).into());
    object.insert("mode".to_owned(), format!("{mode:04o}").into());
    object.insert("size".to_owned(), size(entry).into());
    if entry.meta.kind == Kind::Symlink {
        put_name(&mut object, "target", &entry.target);
    }
    out.json(object)
}

/// Bytes of content.
fn size(entry: &Entry) -> u64 {
    match entry.meta.kind {
        Kind::File | Kind::Symlink => entry.meta.size,
        _ => 0,
    }
}

/// What an entry is, in a word.
pub(super) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "dir",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice => "char",
        Kind::BlockDevice => "block",
    }
}

/// As `ls -l` draws them.
fn permissions(kind: Kind, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// The path of an entry from the current directory.
fn below(given: &Path, view: &ContextView, path: &[u8]) -> Vec<u8> {
    let root = match view.root() {
        // A named context, or a directory that was named in another way.
        Some(root) if given.canonicalize().ok().as_deref() != Some(root) => look::short(root),
        _ => given.to_owned(),
    };
    let mut whole = match root == Path::new(".") {
        true => Vec::new(),
        false => root.into_os_string().into_encoded_bytes(),
    };
    if !whole.is_empty() && !whole.ends_with(b"/") {
        whole.push(b'/');
    }
    whole.extend_from_slice(path);
    whole
}

fn dependency(out: &mut Out, path: &[u8]) -> Result<(), Ended> {
    let text = escaped(path)?;
    write!(out, " \\\n  ")?;
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// A name as make reads it.
fn escaped(name: &[u8]) -> Result<String, BuildError> {
    let refuse = |why: &str| {
        let why = format!("`{}` {why}, which make cannot read", show(name).escape_debug());
        InputError::new("--depfile", why, "--json, or leave the file out")
    };
    let text = std::str::from_utf8(name).map_err(|_| refuse("is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(refuse("has a control character in its name").into());
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' | '#' | ':' | '%' => escaped.extend(['\\', c]),
            '$' => escaped.push_str("$$"),
            _ => escaped.push(c),
        }
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_names_are_drawn() {
        assert_eq!(permissions(Kind::File, 0o4751), "-rwsr-x--x");
        assert_eq!(permissions(Kind::Dir, 0o1776), "drwxrwxrwT");
        assert_eq!(permissions(Kind::Symlink, 0o777), "lrwxrwxrwx");
        assert_eq!(escaped(b"a b$c#d").ok().as_deref(), Some("a\\ b$$c\\#d"));
        assert!(escaped(b"a\nb").is_err() && escaped(b"\xff").is_err());
    }
}
