//! What progress is drawn on: the terminal and its size, colours, the service that reads a log, and what is said at the
//! end. The only place that looks at the terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bk_client::{BuildError, BuildEvent, InputError, LocalFailure};
use bk_progress::{Fold, LogDir, Mode, Output, RESTORE_TERMINAL, Renderer, Tally, Theme, TtyOptions, limits};

use crate::{
    args::ProgressArgs,
    explain::Explanation,
    host::terminal_size,
    report,
    request::{self, Surroundings},
};

/// How progress of one build is drawn.
pub(crate) struct Display {
    mode: Mode,
    output: Output,
    tally: Arc<Mutex<Tally>>,
    logs: Option<Arc<Mutex<Logs>>>,
}

/// The files of steps, until one of them cannot be written.
type Logs = Result<LogDir, io::Error>;

impl Display {
    /// The display on standard error.
    ///
    /// # Errors
    /// A mode that there is not, `tty` without a terminal, a directory for output that cannot be made.
    pub(crate) fn new(args: &ProgressArgs, around: &impl Surroundings) -> Result<Self, BuildError> {
        let mode = request::mode(args, around)?;
        let mut output = Output::default();
        output.fold = fold(around);
        let is_terminal = io::stderr().is_terminal();
        if mode == Mode::Tty && !is_terminal {
            return Err(InputError::new(
                "--progress",
                "`tty` needs a terminal as standard error",
                "auto, which is tty on a terminal and plain elsewhere",
            )
            .into());
        }
        let dumb = around
            .var("TERM")
            .is_none_or(|term| term.is_empty() || term == "dumb");
        if is_terminal && (!dumb || mode == Mode::Tty) {
            output.terminal = Some(terminal(around));
        }
        Ok(Self {
            mode: mode.on(&output),
            output,
            tally: Arc::default(),
            logs: match &args.log_dir {
                Some(dir) => Some(Arc::new(Mutex::new(Ok(LogDir::create(dir).map_err(|e| {
                    LocalFailure::new(dir.clone(), "cannot write the output of steps to this directory")
                        .caused_by(e)
                })?)))),
                None => None,
            },
        })
    }

    /// What it is, never [`Mode::Auto`].
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The renderer, once.
    pub(crate) fn renderer(&self) -> Box<dyn Renderer + Send> {
        let on_terminal = self.mode == Mode::Tty;
        ON_TERMINAL.store(on_terminal, Ordering::SeqCst);
        Box::new(Drawing {
            inner: self.mode.renderer(io::stderr(), &self.output),
            on_terminal,
            looked: None,
            tally: Arc::clone(&self.tally),
            logs: self.logs.clone(),
        })
    }

    /// Tells whether the output of all steps could be written to files.
    pub(crate) fn check(&self) -> Result<(), LocalFailure> {
        let Some(logs) = &self.logs else { return Ok(()) };
        let mut logs = logs.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *logs {
            Ok(_) => Ok(()),
            Err(e) => {
                let e = std::mem::replace(e, io::ErrorKind::Other.into());
                Err(LocalFailure::new("--log-dir", "cannot write the output of a step").caused_by(e))
            }
        }
    }

    /// Whether the last output of a failed step is a part of what is drawn.
    pub(crate) fn shows_output(&self) -> bool {
        !matches!(self.mode, Mode::Json | Mode::RawJson)
    }

    /// Says which files made steps run again, unless the display is for programs.
    pub(crate) fn explain(&self, explanation: &Explanation) {
        if self.shows_output() {
            let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            report::to_stderr(&explanation.tell(&tally.ended_steps()));
        }
    }

    /// Says what a build came to that failed after the daemon had begun with it: what was done is in the daemon's cache.
    pub(crate) fn sum_up_failure(&self) {
        let begun = self
            .tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .has_steps();
        if begun {
            self.sum_up(false);
        }
    }

    /// Says what the build came to, unless the display is for programs or to be quiet.
    pub(crate) fn sum_up(&self, timings: bool) {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if timings {
            text.push_str(&tally.critical_path());
        }
        if !matches!(self.mode, Mode::Json | Mode::RawJson | Mode::Quiet) {
            text.push_str(&format!("{}\n", tally.summary()));
        }
        if !text.is_empty() {
            report::to_stderr(&text);
        }
    }
}

/// Whether the terminal may be in another state than it was found in.
static ON_TERMINAL: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back, for a program that ends before the display does.
pub(crate) fn restore_terminal() {
    if ON_TERMINAL.swap(false, Ordering::SeqCst) {
        let mut out = io::stderr();
        // There is nowhere left to complain.
        drop(
            out.write_all(RESTORE_TERMINAL.as_bytes())
                .and_then(|()| out.flush()),
        );
    }
}

/// A renderer that is told of the size of the terminal, with a count of what happens.
struct Drawing {
    inner: Box<dyn Renderer + Send>,
    on_terminal: bool,
    /// When the terminal was asked for its size.
    looked: Option<Instant>,
    tally: Arc<Mutex<Tally>>,
    logs: Option<Arc<Mutex<Logs>>>,
}

impl Drawing {
    /// Lets the files of steps know. After the first failure they are left alone; [`Display::check`] tells.
    fn log(&self, write: impl FnOnce(&mut LogDir) -> io::Result<()>) {
        let Some(logs) = &self.logs else { return };
        let mut logs = logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(dir) = &mut *logs
            && let Err(e) = write(dir)
        {
            *logs = Err(e);
        }
    }
}

impl Renderer for Drawing {
    fn event(&mut self, event: &BuildEvent) -> io::Result<()> {
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .event(event);
        self.log(|dir| dir.event(event));
        self.inner.event(event)
    }

    fn tick(&mut self, now: Instant) -> io::Result<()> {
        let due = |looked: Instant| now.saturating_duration_since(looked) >= limits::TICK;
        if self.on_terminal && self.looked.is_none_or(due) {
            self.looked = Some(now);
            if let Some(size) = terminal_size() {
                self.inner.resize(size)?;
            }
        }
        self.inner.tick(now)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.log(|dir| dir.finish());
        self.inner.finish()
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        // The renderer gives the terminal back by itself.
        if self.on_terminal {
            ON_TERMINAL.store(false, Ordering::SeqCst);
        }
    }
}

fn terminal(around: &impl Surroundings) -> TtyOptions {
    let text = |name: &str| {
        let value = around.var(name).unwrap_or_default();
        value.to_string_lossy().into_owned()
    };
    let mut options = TtyOptions::default();
    options.size = terminal_size().unwrap_or_default();
    if let Ok(lines) = text("BUILDKIT_TTY_LOG_LINES").parse() {
        options.log_lines = lines;
    }
    // These cut long lines off when they become narrower.
    let term = text("TERM");
    options.reflows =
        !term.starts_with("linux") && !term.starts_with("screen") && text("XTERM_VERSION").is_empty();
    options.theme = if !crate::color::stderr() {
        Theme::none()
    } else {
        Theme::parse(&text("BUILDKIT_COLORS")).unwrap_or_else(|e| {
            around.warn(&format!("BUILDKIT_COLORS: {e}"));
            Theme::default()
        })
    };
    options
}

fn fold(around: &impl Surroundings) -> Fold {
    let is_set = |name: &str| around.var(name).is_some_and(|value| value == "true");
    if is_set("GITHUB_ACTIONS") {
        Fold::GitHub
    } else if is_set("GITLAB_CI") {
        Fold::GitLab
    } else if is_set("BUILDKITE") {
        Fold::Buildkite
    } else {
        Fold::None
    }
}
