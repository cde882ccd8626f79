//! `bk bake`: targets of files to builds of one set.
//!
//! The rule: a target becomes the arguments of `bk build`, so that every value has the one meaning that it has there.

pub(crate) mod display;
mod flags;
mod list;
mod read;
mod results;
mod run;

use std::sync::Arc;

use bk_bake::{Allowed, Definition, Plan, Target, Variables};
use bk_client::{BuildError, BuildProxies, BuildRequest, Environment, InputError, LocalFailure};

use crate::{
    args::{BakeArgs, CallArgs, Global, ProgressArgs},
    build, call,
    call::Question,
    display::{self as terminal, Display},
    exit,
    explain::Explanation,
    files::Metadata,
    limits, outputs, report,
    request::{self, Process, Surroundings as _},
    threads,
};

/// What there is to do.
enum Todo {
    Print(String),
    Work(Box<Work>),
}

/// Builds and questions, ready to be sent.
struct Work {
    view: Arc<Display>,
    plan: Plan,
    /// In the order of their names, which is that of the plan.
    builds: Vec<results::Build>,
    /// Where results are that others use.
    results: Option<results::Results>,
    metadata: Metadata,
    calls: Vec<(String, BuildRequest, Question)>,
    proxies: BuildProxies,
}

/// Runs the command and returns its exit code; everything there is to say was said.
pub(crate) fn main(global: &Global, args: &BakeArgs) -> u8 {
    let work = match prepare(args) {
        Ok(Todo::Work(work)) => work,
        Ok(Todo::Print(text)) => return report::to_stdout(&text),
        Err(e) => return build::fail(&e, true),
    };
    let runtime = match threads::start() {
        Ok(runtime) => runtime,
        Err(e) => return build::fail(&e, true),
    };
    let view = Arc::clone(&work.view);
    let with_log = !view.shows_output();
    let explanations = explanations(args, &work);
    let done = runtime.block_on(Box::pin(run::run(global, args, *work)));
    for (name, explanation) in explanations {
        view.explain(&explanation);
        if done.as_ref().is_ok_and(|done| done.has_built(&name)) {
            explanation.keep(&Process);
        }
    }
    if !done.as_ref().is_ok_and(run::Done::is_whole) {
        view.sum_up_failure();
    }
    let code = match done.and_then(|done| {
        let code = run::tell(args, done, with_log)?;
        if code == exit::SUCCESS {
            view.sum_up(false);
        }
        Ok(code)
    }) {
        Ok(code) => code,
        Err(e) => build::fail(&e, with_log),
    };
    runtime.shutdown_timeout(limits::SHUTDOWN_GRACE);
    terminal::restore_terminal();
    code
}

/// What is known of the contexts before anything is built, if somebody wants to know; all of it before any of it is kept.
fn explanations(args: &BakeArgs, work: &Work) -> Vec<(String, Explanation)> {
    let several = work.builds.len() + work.calls.len() > 1;
    let builds = work.builds.iter().filter(|_| args.explain);
    builds
        .filter_map(|build| {
            let name = several.then_some(&*build.name);
            let explanation = Explanation::before(&build.request, name, &Process)?;
            Some((build.name.clone(), explanation))
        })
        .collect()
}

/// What is done before any daemon is asked.
fn prepare(args: &BakeArgs) -> Result<Todo, BuildError> {
    let progress = ProgressArgs {
        mode: args.progress,
        quiet: false,
        timings: false,
        explain: false,
        log_dir: None,
    };
    let view = Arc::new(Display::new(&progress, &Process)?);
    let asked = asked(args)?;
    if let Some(file) = &args.metadata_file {
        request::check_output("--metadata-file", file)?;
    }
    if args.jobs == Some(0) {
        return Err(InputError::new("--jobs", "no build could ever begin", "1 or more").into());
    }
    if let Some(address) = args.targets.iter().find(|t| bk_client::is_remote(t)) {
        let why = format!("`{address}`: definitions are not fetched");
        return Err(InputError::new("TARGET", why, "a target or a group of files on this machine").into());
    }
    let allowed = read::allowed(&args.allow)?;
    let variables = read::variables()?;
    let definition = Definition::parse(&read::files(&args.files)?, &variables)?;
    for line in definition.warnings() {
        Process.warn(line);
    }
    if let Some(what) = &args.list {
        return Ok(Todo::Print(list::list(what, &definition)?));
    }
    let plan = plan(args, &definition, &variables)?;
    if args.print {
        return Ok(Todo::Print(plan.to_json()));
    }
    permitted(&allowed, &plan)?;
    let metadata = match args.metadata_file {
        Some(_) => Metadata::from_environment(&Process)?,
        None => Metadata::default(),
    };
    let results = results::Results::new(&plan)?;
    let (mut builds, mut calls, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for (name, target) in &plan.targets {
        let uses = flags::uses(target);
        let layout = results.as_ref().and_then(|r| r.layout(name));
        match question(asked.as_ref(), name, target)? {
            Some(question) => {
                if let Some((key, used)) = uses.first() {
                    let what = format!("target {name}: contexts.{key}");
                    let why = format!(
                        "`target:{used}`: a target that uses the result of another one can only be built"
                    );
                    return Err(InputError::new(what, why, "").into());
                }
                let request = flags::request(name, target, None, &args.context, &args.patience)?;
                calls.push((name.clone(), request, question));
            }
            None => {
                let mut request =
                    flags::request(name, target, layout.as_deref(), &args.context, &args.patience)?;
                if args.metadata_file.is_some() {
                    request.inspect = metadata.inspect();
                }
                if outputs::use_stdout(&request.outputs) {
                    streams.push(name.as_str());
                }
                builds.push(results::Build {
                    name: name.clone(),
                    request,
                    uses,
                });
            }
        }
    }
    if streams.len() > 1 {
        let why = format!(
            "only one result can go to standard output, not those of {}",
            streams.join(" and ")
        );
        return Err(InputError::new("output", why, "dest=FILE for the others").into());
    }
    let environment = Environment::from_process();
    request::check_trace(&environment, &Process);
    let proxies = match &environment.docker_config {
        Some(config) => BuildProxies::read(config)?,
        None => BuildProxies::default(),
    };
    Ok(Todo::Work(Box::new(Work {
        view,
        builds,
        results,
        calls,
        proxies,
        metadata,
        plan,
    })))
}

/// What is asked about a target; `None` is a build. What the command line asks is asked of every target.
fn question(asked: Option<&CallArgs>, name: &str, target: &Target) -> Result<Option<Question>, InputError> {
    match (asked, &target.call) {
        (Some(asked), _) => call::question(asked),
        (None, Some(call)) => {
            let own = CallArgs {
                call: call.clone(),
                check: false,
            };
            call::question(&own).map_err(|e| flags::of_target(name, e))
        }
        (None, None) => Ok(None),
    }
}

/// What `--call` and `--check` say, if they say anything.
fn asked(args: &BakeArgs) -> Result<Option<CallArgs>, InputError> {
    let asked = match (&args.call, args.check) {
        (Some(call), _) => Some(call.clone()),
        (None, true) => Some("check".to_owned()),
        (None, false) => None,
    };
    let asked = asked.map(|call| CallArgs { call, check: false });
    // What makes no sense is said before files are read.
    if let Some(args) = &asked {
        call::question(args)?;
    }
    Ok(asked)
}

fn plan(args: &BakeArgs, definition: &Definition, variables: &Variables) -> Result<Plan, InputError> {
    let mut overrides = args.set.clone();
    if args.push {
        overrides.push("*.push=true".to_owned());
    }
    if args.load {
        overrides.push("*.load=true".to_owned());
    }
    if let Some(asked) = asked(args)?
        && let Some(name) = asked.call.split(',').next().filter(|n| *n != "build")
    {
        // Other tools call it so here.
        let name = if name == "check" { "lint" } else { name };
        overrides.push(format!("*.call={name}"));
    }
    for (key, value) in [("no-cache", args.no_cache), ("pull", args.pull)] {
        overrides.extend(value.map(|yes| format!("*.{key}={yes}")));
    }
    for (kind, value) in [("sbom", &args.sbom), ("provenance", &args.provenance)] {
        overrides.extend(
            value
                .as_deref()
                .map(|v| format!("*.attest={}", request::long_form(kind, v))),
        );
    }
    let names: Vec<&str> = args.targets.iter().map(String::as_str).collect();
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    let mut plan = definition.plan(&names, &overrides, variables)?;
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    if let Some(value) = Process.var(EPOCH).filter(|v| !v.is_empty()) {
        let value = value
            .into_string()
            .map_err(|_| InputError::new(EPOCH, "it is not UTF-8", "whole seconds since 1970-01-01 UTC"))?;
        for target in plan.targets.values_mut() {
            target
                .args
                .entry(EPOCH.to_owned())
                .or_insert_with(|| value.clone());
        }
    }
    Ok(plan)
}

/// Nobody is asked: what is not allowed is an error with the words that allow it.
fn permitted(allowed: &Allowed, plan: &Plan) -> Result<(), BuildError> {
    let cwd = std::env::current_dir()
        .map_err(|e| LocalFailure::new(".", "cannot find the current directory").caused_by(e))?;
    let missing = allowed.missing(plan, &cwd)?;
    if missing.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = missing.iter().map(|what| format!("--allow={what}")).collect();
    let why = format!("the targets want more than they may: {}", missing.join(", "));
    let hint = format!("{} if that is right", words.join(" "));
    Err(InputError::new("bk bake", why, hint).into())
}
