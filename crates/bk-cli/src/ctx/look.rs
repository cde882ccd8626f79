//! What the commands that look at a context have in common: the view, standard output, and names that may be hostile.
//!
//! The rule: results go to standard output, everything else to standard error; a reader that has gone away is a success.

use std::{
    borrow::Cow,
    env,
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bk_client::{BuildError, ContextView, LocalFailure, path::show};
use bk_progress::neutralise_line;
use serde_json::{Map, Value};

use crate::{
    args::LookArgs,
    exit, report,
    request::{self, Process},
};

/// Why a command ends early.
pub(super) enum Ended {
    /// Something is wrong.
    Failed(BuildError),
    /// Nobody reads on.
    Unread,
}

impl From<BuildError> for Ended {
    fn from(error: BuildError) -> Self {
        Self::Failed(error)
    }
}

/// Only writing to standard output fails with one of these.
impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => {
                let failure = LocalFailure::new("/dev/stdout", "cannot write");
                Self::Failed(failure.caused_by(error).into())
            }
        }
    }
}

/// Standard output.
pub(super) struct Out {
    to: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Out {
    /// A name as it may be written: harmless on a terminal, its own bytes elsewhere.
    pub(super) fn name<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        match self.terminal {
            true => neutralise_line(&show(name)).into_bytes().into(),
            false => name.into(),
        }
    }

    /// An object on a line of its own.
    pub(super) fn json(&mut self, object: Map<String, Value>) -> io::Result<()> {
        serde_json::to_writer(&mut *self, &object)?;
        self.write_all(b"\n")
    }
}

/// Puts a name into an object: as text with bytes that are not UTF-8 escaped, and its bytes too then.
pub(super) fn put_name(object: &mut Map<String, Value>, key: &str, name: &[u8]) {
    object.insert(key.to_owned(), show(name).into());
    if std::str::from_utf8(name).is_err() {
        object.insert(format!("{key}_base64"), STANDARD.encode(name).into());
    }
}

/// Runs a command and returns its exit code; everything there is to say was said.
pub(super) fn main(command: impl FnOnce(&mut Out) -> Result<u8, Ended>) -> u8 {
    let mut out = Out {
        to: BufWriter::new(io::stdout().lock()),
        terminal: io::stdout().is_terminal(),
    };
    let ended = command(&mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match ended {
        Ok(code) => code,
        Err(Ended::Unread) => exit::SUCCESS,
        Err(Ended::Failed(e)) => {
            // What was found so far is not lost.
            drop(out.flush());
            report::to_stderr(&report::render(&e, false));
            exit::of(&e)
        }
    }
}

/// The view that the arguments mean. What is not exact about it is said.
pub(super) fn view(args: &LookArgs, directory: &Path) -> Result<ContextView, BuildError> {
    let (request, look) = request::look_request(args, directory, &Process)?;
    let view = ContextView::of(&request, look.as_deref())?;
    if let Some(text) = view.warning() {
        warn(&text);
    }
    Ok(view)
}

/// Says on standard error what is odd.
pub(super) fn warn(text: &str) {
    report::to_stderr(&format!("WARNING: {}\n", neutralise_line(text)));
}

/// A path as short as it can be said from the current directory.
pub(super) fn short(path: &Path) -> PathBuf {
    let current = env::current_dir().and_then(|dir| dir.canonicalize());
    match current
        .ok()
        .and_then(|dir| path.strip_prefix(dir).ok().map(Path::to_owned))
    {
        Some(inside) => inside,
        None => path.to_owned(),
    }
}
