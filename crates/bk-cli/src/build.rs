//! `bk build`: one request, one build, its display and its files.
//!
//! Files and standard output are written outside the runtime, progress on a thread that may block: nothing here stalls
//! the session that serves files to the daemon.

use std::{
    io,
    time::{Duration, Instant},
};

use bk_client::{
    BuildError, BuildOutcome, BuildProxies, BuildRequest, CallAnswer, Connected, Environment, EventReceiver,
    EventSink, ImageBuilder, InputError, LocalFailure,
};
use bk_progress::Renderer;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    args::{BuildArgs, Global},
    call::{self, Question},
    connect::connect_for,
    display::{self, Display},
    exit,
    explain::Explanation,
    files::{self, Metadata},
    interrupt::Interrupt,
    limits, nodes, outputs, report,
    request::{self, Process},
    threads,
};

/// Runs the command and returns its exit code; everything there is to say was said.
pub(crate) fn main(global: &Global, args: &BuildArgs) -> u8 {
    let Prepared {
        display,
        request,
        proxies,
        question,
        mut metadata,
    } = match prepare(args) {
        Ok(prepared) => prepared,
        Err(e) => return fail(&e, true),
    };
    let runtime = match threads::start() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e, true),
    };
    let print_id = args.progress.quiet && !outputs::use_stdout(&request.outputs);
    let looked_at = request.clone();
    let work = connect_and_build(
        global,
        args,
        request,
        proxies,
        &display,
        question.as_ref(),
        &mut metadata,
    );
    let explanation = args
        .progress
        .explain
        .then(|| Explanation::before(&looked_at, None, &Process))
        .flatten();
    let done = runtime.block_on(Box::pin(work));
    if let Some(explanation) = explanation {
        display.explain(&explanation);
        if matches!(done, Ok(Done::Built(_))) {
            explanation.keep(&Process);
        }
    }
    if done.is_err() {
        display.sum_up_failure();
    }
    let code = match done.and_then(|done| tell(args, print_id, &display, done, &metadata)) {
        Ok(code) => code,
        Err(e) => fail(&e, !display.shows_output()),
    };
    // Only now: until everything is said, signals must be heard. And not a plain drop, which would wait for ever for a
    // thread that a stopped terminal or a dead disk blocks.
    runtime.shutdown_timeout(limits::SHUTDOWN_GRACE);
    display::restore_terminal();
    code
}

/// Tells an error, and returns its exit code.
pub(crate) fn fail(error: &BuildError, with_log: bool) -> u8 {
    report::to_stderr(&report::render(error, with_log));
    exit::of(error)
}

/// What stands before any daemon is asked.
struct Prepared {
    display: Display,
    request: BuildRequest,
    proxies: BuildProxies,
    question: Option<Question>,
    metadata: Metadata,
}

fn prepare(args: &BuildArgs) -> Result<Prepared, BuildError> {
    let display = Display::new(&args.progress, &Process)?;
    let question = call::question(&args.call)?;
    let mut request = request::request(args, &Process)?;
    let mut metadata = Metadata::default();
    if args.results.metadata_file.is_some() {
        metadata = Metadata::from_environment(&Process)?;
        request.inspect = metadata.inspect();
    }
    if let Some(file) = args.results.iidfile.as_ref().filter(|_| question.is_none()) {
        files::remove_stale(file)?;
    }
    let environment = Environment::from_process();
    request::check_trace(&environment, &Process);
    let proxies = match &environment.docker_config {
        Some(config) => BuildProxies::read(config)?,
        None => BuildProxies::default(),
    };
    Ok(Prepared {
        display,
        request,
        proxies,
        question,
        metadata,
    })
}

/// What came of a command.
enum Done<'a> {
    Built(Box<BuildOutcome>),
    Answered(&'a Question, CallAnswer),
}

/// Writes and prints what was asked for; returns the exit code.
fn tell(
    args: &BuildArgs,
    print_id: bool,
    display: &Display,
    done: Done<'_>,
    metadata: &Metadata,
) -> Result<u8, BuildError> {
    let outcome = match done {
        Done::Built(outcome) => {
            display.sum_up(args.progress.timings);
            display.check()?;
            keep(args, *outcome, metadata)?
        }
        Done::Answered(question, answer) => return call::show(question, &answer),
    };
    Ok(match outcome.image_id {
        Some(id) if print_id => report::to_stdout(&format!("{id}\n")),
        _ => exit::SUCCESS,
    })
}

/// Writes the files that were asked for.
fn keep(args: &BuildArgs, outcome: BuildOutcome, metadata: &Metadata) -> Result<BuildOutcome, BuildError> {
    if let Some(file) = &args.results.iidfile {
        files::write_image_id(file, &outcome)?;
    }
    if let Some(file) = &args.results.metadata_file {
        files::write_metadata(file, &outcome, metadata)?;
        warn_of_missing("", &outcome, metadata);
    }
    if let Some(file) = &args.results.transfer_report {
        files::write_transfers(file, &outcome)?;
    }
    Ok(outcome)
}

/// Says what the metadata file lacks. By default it is there where the daemon has it, as with `docker buildx`.
pub(crate) fn warn_of_missing(whose: &str, outcome: &BuildOutcome, metadata: &Metadata) {
    for missing in outcome
        .inspected
        .missing
        .iter()
        .filter(|_| metadata.provenance_named)
    {
        let why = bk_progress::neutralise_line(&missing.why);
        report::to_stderr(&format!(
            "warning: {whose}no {} in the metadata file: {why}\n",
            missing.what
        ));
    }
}

async fn connect_and_build<'a>(
    global: &Global,
    args: &BuildArgs,
    mut request: BuildRequest,
    proxies: BuildProxies,
    display: &Display,
    question: Option<&'a Question>,
    metadata: &mut Metadata,
) -> Result<Done<'a>, BuildError> {
    let mut interrupt = Interrupt::listen()
        .map_err(|e| BuildError::from(LocalFailure::new("bk", "cannot listen for signals").caused_by(e)))?;
    let nodes = nodes::parse(&args.nodes.nodes)?;
    if !nodes.is_empty() && question.is_some() {
        return Err(InputError::new("--node", "there is nothing to build", "builds only").into());
    }
    // A question is answered by one daemon.
    let platforms = if question.is_some() {
        &[][..]
    } else {
        &request.platforms[..]
    };
    let connecting = async {
        match &nodes[..] {
            [] => connect_for(global, &args.source.context, platforms).await,
            nodes => nodes::connect(global, nodes).await.map(Connected::Several),
        }
    };
    let connected = tokio::select! {
        biased;
        connected = connecting => connected?,
        () = interrupt.asked() => return Err(BuildError::Cancelled),
    };
    let client = match connected {
        Connected::One(client) => client,
        Connected::Several(group) => {
            let built = nodes::build(group.proxies(proxies), request, display, metadata, interrupt);
            return Ok(Done::Built(Box::new(Box::pin(built).await?)));
        }
    };
    proxies.apply(&client.info().address, &mut request);
    metadata.built_by(&client.info());
    let (renderer, grace) = (metadata.watch(display.renderer()), limits::CANCEL_GRACE);
    match question {
        None => drive(&client, request, renderer, interrupt, grace)
            .await
            .map(|outcome| Done::Built(Box::new(outcome))),
        Some(question) => {
            let ask = |sink| client.call(request, question.call.clone(), sink);
            let answer = drawn(ask, renderer, interrupt, grace).await?;
            Ok(Done::Answered(question, answer))
        }
    }
}

/// Builds, draws, and stops when asked. Returns when the display is complete, or `grace` after the user asked to stop
/// when the build's cleaning up or the display hangs.
async fn drive(
    builder: &dyn ImageBuilder,
    request: BuildRequest,
    renderer: Box<dyn Renderer + Send>,
    interrupt: Interrupt,
    grace: Duration,
) -> Result<BuildOutcome, BuildError> {
    drawn(|sink| builder.build(request, sink), renderer, interrupt, grace).await
}

/// [`drive`] for anything that has events.
pub(crate) async fn drawn<T, F: Future<Output = Result<T, BuildError>>>(
    work: impl FnOnce(EventSink) -> F,
    renderer: Box<dyn Renderer + Send>,
    interrupt: Interrupt,
    grace: Duration,
) -> Result<T, BuildError> {
    let (sink, events) = EventSink::default_channel();
    let drawing = tokio::task::spawn_blocking(move || draw(events, renderer));
    shown(work(sink), drawing, interrupt, grace).await
}

/// [`drive`] for anything whose sinks `drawing` draws until the last of them is gone.
pub(crate) async fn shown<T>(
    work: impl Future<Output = Result<T, BuildError>>,
    mut drawing: JoinHandle<io::Result<()>>,
    mut interrupt: Interrupt,
    grace: Duration,
) -> Result<T, BuildError> {
    // Dropping the build behind this block cancels it on the daemon and lets go of the sink.
    let result = {
        let work = std::pin::pin!(work);
        tokio::select! {
            biased;
            result = work => result,
            () = interrupt.asked() => Err(BuildError::Cancelled),
        }
    };
    // The display ends when the last holder of the sink is gone: then the build has cleaned up as well.
    let drawn = tokio::select! {
        drawn = &mut drawing => drawn,
        () = too_long(&mut interrupt, grace) => return result.and(Err(BuildError::Cancelled)),
    };
    let outcome = result?;
    match drawn {
        Ok(Ok(())) => Ok(outcome),
        Ok(Err(e)) => Err(LocalFailure::new("/dev/stderr", "cannot draw progress")
            .caused_by(e)
            .into()),
        Err(e) => Err(BuildError::Misuse(format!("the display ended early: {e}"))),
    }
}

/// Ends some time after the user has asked to stop, never otherwise.
async fn too_long(interrupt: &mut Interrupt, grace: Duration) {
    interrupt.asked().await;
    // sleep: not to synchronise but to bound the wait for something that may never come.
    tokio::time::sleep(grace).await;
}

/// Draws all events of a build. Blocks; runs on a thread for that.
fn draw(mut events: EventReceiver, mut renderer: Box<dyn Renderer + Send>) -> io::Result<()> {
    let runtime = Handle::current();
    loop {
        let next =
            runtime.block_on(async { tokio::time::timeout(bk_progress::limits::TICK, events.recv()).await });
        match next {
            Ok(Some(event)) => renderer.event(&event)?,
            Ok(None) => return renderer.finish(),
            Err(_elapsed) => {}
        }
        renderer.tick(Instant::now())?;
    }
}

#[cfg(test)]
mod tests;
