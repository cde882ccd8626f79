//! Where the results of a request go: those it names, and those that the program adds when the build is done.

use std::sync::Arc;

use bk_build::{BuildError, BuildRequest, BuilderInfo, DaemonTooOld, InputError, Output, OutputKind, Sink};
use bk_session::{Exports, LaterOutput, LaterOutputs};

use crate::{Lowered, SolveOptions, outputs, requires};

/// Where the results of a request go, by exporter.
///
/// # Errors
/// What the daemon cannot make, or this machine cannot take.
pub(crate) async fn exports(
    request: &BuildRequest,
    options: &SolveOptions,
    info: &BuilderInfo,
) -> Result<Exports, BuildError> {
    let lowered = possible(request, options, info)?;
    // What goes into a layout arrives blob by blob and is no export of the session.
    let is_layout = |output: usize| {
        let output = request.outputs.get(output);
        output.is_some_and(|o| o.layout_dir().is_some())
    };
    let sinks = lowered.into_iter().map(|l| match is_layout(l.output) {
        true => (l.output, Sink::Daemon),
        false => (l.output, sink(l.sink, options)),
    });
    let exports = Exports::new(sinks.collect()).await?;
    Ok(match request.session_exporter {
        Some(_) => exports.open_to_more(),
        None => exports,
    })
}

/// The exporters of a request.
///
/// # Errors
/// What the daemon is known not to make.
pub(crate) fn possible(
    request: &BuildRequest,
    options: &SolveOptions,
    info: &BuilderInfo,
) -> Result<Vec<Lowered>, BuildError> {
    let lowered = outputs::exporters(request, options.exporter);
    if lowered.len() > 1 {
        requires::several(info)?;
    }
    if !options.pushes && request.outputs.iter().any(Output::is_push_by_digest) {
        return Err(not_on_graph_drivers("push-by-digest").into());
    }
    if !options.pushes && request.outputs.iter().any(Output::is_push) {
        return Err(cannot_push().into());
    }
    Ok(lowered)
}

fn sink(sink: Sink, options: &SolveOptions) -> Sink {
    match sink {
        Sink::Engine(None) => Sink::Engine(options.loader.clone()),
        sink => sink,
    }
}

/// What an image on an engine with graph drivers cannot have.
pub fn not_on_graph_drivers(attribute: &str) -> InputError {
    let text = format!("`{attribute}` is not possible on an engine with graph drivers");
    let allowed = "an engine with the containerd image store, or a standalone buildkitd";
    InputError::new("--output", text, allowed)
}

fn cannot_push() -> InputError {
    let why =
        "the image store of this Docker Engine does not push by itself, and its API is not reached this way";
    InputError::new(
        "--push",
        why,
        "the engine's own address, or its containerd image store",
    )
}

/// The outputs that the program adds when the build is done, if there is somebody who adds any.
pub(crate) fn later(request: &BuildRequest, options: &SolveOptions) -> Option<LaterOutputs> {
    let exporter = request.session_exporter.clone()?;
    let (tags, options) = (request.tags.clone(), options.clone());
    // A request without any output has one all the same.
    let first = request.outputs.len().max(1);
    let lower = move |found: Vec<Output>| {
        for output in &found {
            output.validate()?;
            if output.layout_dir().is_some() {
                let why = "a layout on disk cannot be added when the build is done";
                return Err(
                    InputError::new("--output", why, "an archive, or an output of the request").into(),
                );
            }
            if output.is_push() && tags.is_empty() && !output.attrs.contains_key("name") {
                let why = "an image that is pushed needs a name";
                return Err(InputError::new("--push", why, "a tag, or `name` of the output").into());
            }
            if output.is_push() && !options.pushes {
                return Err(cannot_push().into());
            }
        }
        let numbered = found
            .into_iter()
            .enumerate()
            .map(|(at, output)| (first + at, output))
            .filter(|(_, output)| output.kind != OutputKind::CacheOnly);
        let lowered = outputs::lowered(numbered.collect(), &tags, options.exporter);
        Ok(lowered
            .into_iter()
            .map(|l| LaterOutput {
                output: l.output,
                kind: l.exporter.r#type,
                attrs: l.exporter.attrs,
                sink: sink(l.sink, &options),
            })
            .collect())
    };
    Some(LaterOutputs::new(exporter, Arc::new(lower)))
}

/// Refuses the success of a daemon that did not ask what it was to ask: it is too old, and has not said so.
///
/// # Errors
/// [`BuildError::TooOld`].
pub(crate) fn check_asked(
    exports: &Exports,
    verifier_ignored: bool,
    info: &BuilderInfo,
) -> Result<(), BuildError> {
    let ignored = match (verifier_ignored, exports.more_was_ignored()) {
        (true, _) => requires::POLICY_VERIFIER,
        (_, true) => requires::SESSION_EXPORTER,
        _ => return Ok(()),
    };
    let (option, since, engine) = ignored;
    let needs = format!("{since} (Docker Engine {engine})");
    let has = "a BuildKit that never asked".to_owned();
    Err(DaemonTooOld::new(option, info.to_string(), has, needs).into())
}
