//! From arguments to a request: everything that can be checked before a daemon is asked.

mod caches;
#[cfg(test)]
mod flags;
mod look;
mod options;

use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal as _, Read},
    path::Path,
};

use bk_client::{
    ArchiveReader, BuildError, BuildRequest, Context, Dockerfile, Environment, InputError, LocalFailure,
    is_remote,
};
use bk_progress::{Mode, neutralise_line};

use crate::{
    access,
    args::{BuildArgs, CtxTarArgs, PatienceArgs, Progress, ProgressArgs},
    limits::STDIN_DOCKERFILE_BYTES,
    outputs, policies,
};

mod stdin;

pub(crate) use look::look_request;
pub(crate) use options::long_form;

/// Where arguments without a value, and defaults, come from.
pub(crate) trait Surroundings {
    /// A variable of the environment.
    fn var(&self, name: &str) -> Option<OsString>;
    /// Standard input. Called at most once.
    fn stdin(&self) -> Box<dyn Read>;
    /// Tells the user of something that is no error.
    fn warn(&self, line: &str) {
        crate::report::to_stderr(&format!("warning: {line}\n"));
    }
    /// Whether standard output is a terminal.
    fn stdout_is_terminal(&self) -> bool {
        false
    }
    /// What of standard input was not read. Called at most once, after the other was dropped.
    fn stdin_rest(&self) -> ArchiveReader;
}

/// The process's own surroundings.
pub(crate) struct Process;

impl Surroundings for Process {
    fn var(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn stdin(&self) -> Box<dyn Read> {
        Box::new(io::stdin().lock())
    }

    fn stdout_is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    fn stdin_rest(&self) -> ArchiveReader {
        // It shares the buffer of the other.
        Box::pin(tokio::io::stdin())
    }
}

/// The request that the arguments mean.
///
/// # Errors
/// A wrong argument, or a file that cannot be used; nothing was sent.
pub(crate) fn request(args: &BuildArgs, around: &impl Surroundings) -> Result<BuildRequest, BuildError> {
    let from_stdin = args.source.context == Path::new("-");
    let context = if from_stdin {
        Context::None
    } else {
        context(&args.source.context)?
    };
    for (flag, file) in [
        ("--iidfile", &args.results.iidfile),
        ("--metadata-file", &args.results.metadata_file),
    ] {
        if let Some(file) = file {
            check_output(flag, file)?;
        }
    }
    let remote = matches!(context, Context::Remote(_));
    let mut request = BuildRequest::new(context);
    request.tags.clone_from(&args.results.tags);
    for text in &args.source.build_args {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (&**text, from_environment(text, around)?),
        };
        if let Some(value) = value {
            request.build_args.insert(key.to_owned(), value);
        }
    }
    for text in &args.results.labels {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        request.labels.insert(key.to_owned(), value.to_owned());
    }
    request.outputs = outputs::outputs(&args.results, around.stdout_is_terminal())?;
    request.target.clone_from(&args.source.target);
    request.platforms.clone_from(&args.source.platforms);
    options::source(&args.source, around, &mut request)?;
    options::steps(&args.steps, &mut request)?;
    options::statements(&args.results, &mut request)?;
    request.no_cache = args.cache.no_cache;
    request.no_cache_filter.clone_from(&args.cache.no_cache_filters);
    let mut missing = Vec::new();
    request.cache_from = caches::caches("--cache-from", &args.cache.cache_from, around, &mut missing)?;
    request.cache_to = caches::caches("--cache-to", &args.cache.cache_to, around, &mut missing)?;
    for line in missing {
        around.warn(&line);
    }
    request.pull = args.cache.pull;
    patience(&args.patience, &mut request);
    request.files = policies::policies(&args.files, around)?;
    access::add(&mut request, &args.access, around)?;
    // Before standard input is read: nobody should type a Dockerfile only to hear of a bad tag.
    request.validate()?;
    if from_stdin {
        (request.context, request.dockerfile) = stdin::read(args.source.file.as_deref(), around)?;
        return Ok(request);
    }
    request.dockerfile = dockerfile(args.source.file.as_deref(), remote, around)?;
    Ok(request)
}

/// Says once that the trace of the environment makes no sense: it is left aside, and the build goes on without one.
pub(crate) fn check_trace(environment: &Environment, around: &impl Surroundings) {
    if let Err(e) = environment.trace() {
        around.warn(&format!(
            "{}; the build belongs to no trace",
            neutralise_line(&e.to_string())
        ));
    }
}

/// What is done about a daemon that falls silent or is lost.
pub(crate) fn patience(args: &PatienceArgs, request: &mut BuildRequest) {
    request.patience.stall = Some(args.stall_timeout).filter(|after| !after.is_zero());
    request.patience.retries = args.retries;
}

/// What `bk ctx tar` is about: a build of the directory.
///
/// # Errors
/// As [`request`].
pub(crate) fn context_request(
    args: &CtxTarArgs,
    around: &impl Surroundings,
) -> Result<BuildRequest, BuildError> {
    let context = context(&args.context)?;
    if let Context::Remote(address) = &context {
        let why = format!("`{address}` is fetched by the daemon, and never passes this machine");
        return Err(InputError::new("DIR", why, "a directory on this machine").into());
    }
    if args.output != Path::new("-") {
        check_output("--output", &args.output)?;
    }
    let mut request = BuildRequest::new(context);
    request.files = policies::policies(&args.files, around)?;
    request.dockerfile = dockerfile(args.file.as_deref(), false, around)?;
    Ok(request)
}

fn dockerfile(
    file: Option<&Path>,
    remote: bool,
    around: &impl Surroundings,
) -> Result<Dockerfile, BuildError> {
    Ok(match file {
        None => Dockerfile::Default,
        Some(file) if file.as_os_str() == "-" => {
            Dockerfile::Inline(read_bounded(around.stdin(), STDIN_DOCKERFILE_BYTES)?.into())
        }
        // What the daemon fetches holds its own Dockerfile, unless the path cannot be one of it.
        Some(file) if remote && file.is_relative() => Dockerfile::InContext(utf8("--file", file)?.to_owned()),
        Some(file) => Dockerfile::Path(file.to_owned()),
    })
}

/// How progress is drawn: `--quiet`, else `--progress`, where `auto` gives way to `BUILDKIT_PROGRESS`.
///
/// # Errors
/// A combination or a value that has no meaning.
pub(crate) fn mode(args: &ProgressArgs, around: &impl Surroundings) -> Result<Mode, InputError> {
    let chosen = match args.mode {
        Progress::Auto if args.quiet => Mode::Quiet,
        Progress::Auto => return from_variable(around),
        Progress::Tty => Mode::Tty,
        Progress::Plain => Mode::Plain,
        Progress::Ordered => Mode::Ordered,
        Progress::Grouped => Mode::Grouped,
        Progress::Json => Mode::Json,
        Progress::Rawjson => Mode::RawJson,
        Progress::Quiet => Mode::Quiet,
    };
    if args.quiet && chosen != Mode::Quiet {
        return Err(InputError::new(
            "--quiet",
            format!("cannot be used with --progress {chosen}"),
            "",
        ));
    }
    Ok(chosen)
}

fn from_variable(around: &impl Surroundings) -> Result<Mode, InputError> {
    const NAME: &str = "BUILDKIT_PROGRESS";
    let Some(value) = around.var(NAME).filter(|v| !v.is_empty()) else {
        return Ok(Mode::Auto);
    };
    match value.to_string_lossy().as_ref() {
        // Often set for all commands: not an error where there is no terminal.
        "tty" => Ok(Mode::Auto),
        name => name.parse().map_err(|_| {
            InputError::new(
                NAME,
                format!("`{name}` is not a progress mode"),
                one_of(&Mode::NAMES),
            )
        }),
    }
}

fn one_of(names: &[&str]) -> String {
    format!("one of {}", names.join(", "))
}

fn from_environment(name: &str, around: &impl Surroundings) -> Result<Option<String>, InputError> {
    if name.is_empty() {
        return Err(InputError::new(
            "--build-arg",
            "a key must not be empty",
            "KEY=VALUE or KEY",
        ));
    }
    around
        .var(name)
        .map(OsString::into_string)
        .transpose()
        .map_err(|_| {
            InputError::new(
                "--build-arg",
                format!("the environment variable `{name}` is not UTF-8"),
                "",
            )
        })
}

fn utf8<'a>(flag: &str, path: &'a Path) -> Result<&'a str, InputError> {
    path.to_str()
        .ok_or_else(|| InputError::new(flag, format!("`{}` is not UTF-8", path.display()), ""))
}

fn context(path: &Path) -> Result<Context, BuildError> {
    const ALLOWED: &str = "a directory on this machine, or a Git or HTTP address";
    let text = path.display();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(path.into()),
        Ok(_) => Err(InputError::new("PATH", format!("`{text}` is not a directory"), ALLOWED).into()),
        Err(_) if is_remote(&path.to_string_lossy()) => Ok(Context::Remote(utf8("PATH", path)?.to_owned())),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(InputError::new("PATH", format!("`{text}` does not exist"), ALLOWED).into())
        }
        Err(e) => Err(LocalFailure::new(path, "cannot use it as the build context")
            .caused_by(e)
            .into()),
    }
}

/// A long build should not fail in its last step because of a typing error.
pub(crate) fn check_output(flag: &str, file: &Path) -> Result<(), InputError> {
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if file.file_name().is_none() || file.is_dir() {
        return Err(InputError::new(
            flag,
            format!("`{}` is a directory", file.display()),
            "a file to be written",
        ));
    }
    if !parent.is_dir() {
        let why = format!(
            "`{}`: the directory `{}` does not exist",
            file.display(),
            parent.display()
        );
        return Err(InputError::new(flag, why, "a file to be written"));
    }
    Ok(())
}

fn read_bounded(input: impl Read, limit: u64) -> Result<Vec<u8>, BuildError> {
    let mut text = Vec::new();
    input
        .take(limit + 1)
        .read_to_end(&mut text)
        .map_err(|e| LocalFailure::new("-", "cannot read the Dockerfile from standard input").caused_by(e))?;
    if text.len() as u64 > limit {
        let why = format!(
            "the Dockerfile on standard input is longer than {} MiB",
            limit / 1024 / 1024
        );
        return Err(InputError::new("--file", why, "").into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
