//! Builds of a set, then questions one after the other, under one display; and what is said about their ends.

use std::collections::BTreeMap;

use bk_bake::{Plan, Target};
use bk_client::{
    BuildError, BuildOutcome, BuildSet, CallAnswer, Client, ImageBuilder as _, LocalFailure, SetEnd,
};
use serde_json::{Map, Value, json};

use super::{
    Work,
    display::{Stage, display},
    flags,
    results::{Build, Ended, Results, ready},
};
use crate::{
    args::{BakeArgs, Global},
    build, call,
    call::Question,
    connect::connect,
    exit,
    files::{self, Metadata},
    interrupt::Interrupt,
    limits, report,
};

/// What came of everything.
pub(super) struct Done {
    plan: Plan,
    metadata: Metadata,
    built: Vec<Ended>,
    /// In the order of names.
    answers: Vec<Asked>,
}

impl Done {
    /// Whether that target was built.
    pub(super) fn has_built(&self, name: &str) -> bool {
        let mut built = self.built.iter().filter(|ended| ended.end.is_built());
        built.any(|ended| ended.name == name)
    }

    /// Whether every target was built and every question answered.
    pub(super) fn is_whole(&self) -> bool {
        let answered = |asked: &Asked| matches!(asked.answer, Some(Ok(_)));
        self.built.iter().all(|ended| ended.end.is_built()) && self.answers.iter().all(answered)
    }
}

/// A question about a target.
struct Asked {
    name: String,
    question: Question,
    /// Missing when the question was never put.
    answer: Option<Result<CallAnswer, BuildError>>,
}

/// Connects, builds and asks.
///
/// # Errors
/// No daemon was found, the user stopped it, or the display failed. Failed builds are no errors here.
pub(super) async fn run(global: &Global, args: &BakeArgs, mut work: Work) -> Result<Done, BuildError> {
    let mut interrupt = Interrupt::listen()
        .map_err(|e| BuildError::from(LocalFailure::new("bk", "cannot listen for signals").caused_by(e)))?;
    let client = tokio::select! {
        biased;
        client = connect(global) => client?,
        () = interrupt.asked() => return Err(BuildError::Cancelled),
    };
    let address = client.info().address;
    let requests = work.builds.iter_mut().map(|build| &mut build.request);
    for request in requests.chain(work.calls.iter_mut().map(|(_, request, _)| request)) {
        work.proxies.apply(&address, request);
    }
    let (stage, display) = display(work.builds.len() + work.calls.len(), work.view.mode());
    work.metadata.built_by(&client.info());
    let renderer = work.metadata.watch(work.view.renderer());
    let drawing = tokio::task::spawn_blocking(move || display.draw(renderer));
    let all = Box::pin(all(&client, args, work, stage));
    build::shown(all, drawing, interrupt, limits::CANCEL_GRACE).await
}

async fn all(client: &Client, args: &BakeArgs, work: Work, stage: Stage) -> Result<Done, BuildError> {
    let built = Box::pin(builds(client, args, work.builds, work.results, &stage)).await?;
    let mut failed = built.iter().any(|ended| !ended.end.is_built());
    let mut answers = Vec::new();
    for (name, request, question) in work.calls {
        if failed && !args.keep_going {
            answers.push(Asked {
                name,
                question,
                answer: None,
            });
            continue;
        }
        let answer = client
            .call(request, question.call.clone(), stage.sink(&name))
            .await;
        failed |= answer.is_err();
        answers.push(Asked {
            name,
            question,
            answer: Some(answer),
        });
    }
    Ok(Done {
        plan: work.plan,
        metadata: work.metadata,
        built,
        answers,
    })
}

/// Builds in turns: a target that uses results of others begins when all of these are there.
async fn builds(
    client: &Client,
    args: &BakeArgs,
    mut waiting: Vec<Build>,
    results: Option<Results>,
    stage: &Stage,
) -> Result<Vec<Ended>, BuildError> {
    let mut ended: Vec<Ended> = Vec::new();
    let mut built = BTreeMap::new();
    let mut failed = false;
    while args.keep_going || !failed {
        let (now, later) = ready(waiting, &built);
        waiting = later;
        if now.is_empty() {
            break;
        }
        let mut set = BuildSet::new().keep_going(args.keep_going);
        if let Some(jobs) = args.jobs {
            set = set.limit(jobs);
        }
        for mut build in now {
            if let Some(results) = &results {
                results.put_into(&mut build)?;
            }
            set = set.target(build.name, build.request);
        }
        for result in Box::pin(set.run(client, |name| stage.sink(name))).await? {
            failed |= !result.end.is_built();
            built.insert(result.name.clone(), result.end.is_built());
            ended.push(Ended {
                name: result.name,
                end: result.end,
            });
        }
    }
    ended.extend(waiting.into_iter().map(|build| Ended {
        name: build.name,
        end: SetEnd::NotBegun,
    }));
    ended.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(ended)
}

/// Writes and prints what came of it; returns the exit code, which is that of the first failure.
///
/// # Errors
/// A file cannot be written, or an answer lacks what is to be shown.
pub(super) fn tell(args: &BakeArgs, done: Done, with_log: bool) -> Result<u8, BuildError> {
    let mut code = exit::SUCCESS;
    let mut worse = |new: u8| {
        if code == exit::SUCCESS {
            code = new;
        }
    };
    let several = done.built.len() + done.answers.len() > 1;
    let mut built: Vec<(&str, &BuildOutcome)> = Vec::new();
    let (mut stopped, mut skipped) = (Vec::new(), Vec::new());
    for result in &done.built {
        match &result.end {
            SetEnd::Built(outcome) => built.push((&result.name, outcome)),
            SetEnd::Failed(error) => {
                say(several.then_some(&result.name), error, with_log);
                say_users(&result.name, &done.plan);
                worse(exit::of(error));
            }
            SetEnd::Stopped => stopped.push(result.name.as_str()),
            _ => skipped.push(result.name.as_str()),
        }
    }
    let mut answered = Vec::new();
    for Asked {
        name,
        question,
        answer,
    } in &done.answers
    {
        match answer {
            Some(Ok(answer)) => answered.push((name, question, answer)),
            Some(Err(error)) => {
                say(several.then_some(name), error, with_log);
                worse(exit::of(error));
            }
            None => skipped.push(name),
        }
    }
    for (names, what) in [(stopped, "cancelled"), (skipped, "not begun")] {
        if !names.is_empty() {
            report::to_stderr(&format!(
                "{what}, because another target failed: {}\n",
                names.join(", ")
            ));
        }
    }
    let whole = args.keep_going || built.len() == done.built.len();
    if let Some(file) = args.metadata_file.as_ref().filter(|_| whole) {
        files::write_metadata_of(file, &built, &done.metadata)?;
        for (name, outcome) in &built {
            build::warn_of_missing(&format!("target {name}: "), outcome, &done.metadata);
        }
    }
    worse(show(&done.plan, &answered)?);
    Ok(code)
}

fn say(name: Option<&String>, error: &BuildError, with_log: bool) {
    let text = match name {
        Some(name) => report::render_of(name, error, with_log),
        None => report::render(error, with_log),
    };
    report::to_stderr(&text);
}

/// Why a target comes out in a way that its file does not say, which some daemons cannot do.
fn say_users(name: &str, plan: &Plan) {
    let uses = |target: &Target| flags::uses(target).iter().any(|(_, used)| used == name);
    let users = plan.targets.iter().filter(|(_, target)| uses(target));
    let users: Vec<_> = users.map(|(user, _)| user.as_str()).collect();
    if !users.is_empty() {
        report::to_stderr(&format!(
            "target {name} comes out as an OCI layout too, because other targets use its result: {}\n",
            users.join(", ")
        ));
    }
}

/// Prints the answers: each below the name of its target, or all in one JSON object.
fn show(plan: &Plan, answered: &[(&String, &Question, &CallAnswer)]) -> Result<u8, BuildError> {
    let mut code = exit::SUCCESS;
    if answered.iter().any(|(_, question, _)| question.json) {
        let mut targets = Map::new();
        for (name, target) in &plan.targets {
            let build = serde_json::to_value(target)
                .map_err(|e| BuildError::Misuse(format!("a target is no JSON: {e}")))?;
            targets.insert(name.clone(), json!({ "build": build }));
        }
        for (name, question, answer) in answered {
            let (value, found) = call::value(question, answer)?;
            code = code.max(found);
            if let Some(Value::Object(entry)) = targets.get_mut(*name) {
                entry.insert(question.call.to_string(), value);
            }
        }
        let all = json!({ "group": plan.groups, "target": targets });
        let printed = report::to_stdout(&format!("{all:#}\n"));
        return Ok(code.max(printed));
    }
    for (i, (name, question, answer)) in answered.iter().enumerate() {
        let mut head = if i == 0 { String::new() } else { "\n".to_owned() };
        head.push_str(&format!("{name}\n"));
        let about = plan.targets.get(*name).map(|t| t.description.as_str());
        if let Some(about) = about.filter(|text| !text.is_empty()) {
            head.push_str(&format!("{}\n", bk_progress::neutralise_line(about)));
        }
        code = code.max(report::to_stdout(&format!("{head}\n")));
        code = code.max(call::show(question, answer)?);
    }
    Ok(code)
}
