//! The steps of the stages that a build needs: `COPY`, and `RUN` of a handful of commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tonic::{Code, Status};

use super::{
    details::{failure, place},
    dockerfile::{self, Instruction, Stage},
    frontend::{Build, Source},
    image::{context_tree, copy_one, put},
    job::Step,
    receive::Received,
    session::Session,
};
use crate::snapshot::{Entry, Kind, Snapshot};

/// Runs the steps of one stage.
pub(super) struct StageRun<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) source: &'a Source,
    pub(super) context: &'a Received,
    pub(super) args: &'a BTreeMap<String, String>,
    pub(super) stages: &'a [Stage],
}

impl StageRun<'_> {
    pub(super) async fn all(
        &self,
        stage: &Stage,
        built: &BTreeMap<usize, Snapshot>,
        session: &Session,
    ) -> Result<Snapshot, Status> {
        let mut tree = match find_stage(self.stages, &stage.base) {
            Some(index) => built.get(&index).cloned().unwrap_or_default(),
            None => self.build.pull(&stage.base, session).await?,
        };
        let mut globals = BTreeMap::new();
        for line in self
            .source
            .text
            .lines()
            .take_while(|l| !l.trim_start().starts_with("FROM"))
        {
            if let Some(rest) = line.trim().strip_prefix("ARG ") {
                dockerfile::argument(rest, self.args, &mut globals, &BTreeMap::new());
            }
        }
        let mut scope = BTreeMap::new();
        let count = stage
            .steps
            .iter()
            .filter(|s| matches!(s.name.as_str(), "RUN" | "COPY"))
            .count();
        let mut number = 0;
        for step in &stage.steps {
            match step.name.as_str() {
                "ARG" => dockerfile::argument(&step.rest, self.args, &mut scope, &globals),
                "ENV" => {
                    if let Some((key, value)) = step.rest.split_once('=') {
                        let value = dockerfile::expand(value.trim_matches('"'), &scope);
                        scope.insert(key.to_owned(), value);
                    }
                }
                "COPY" | "RUN" => {
                    number += 1;
                    let name = format!("[{number}/{count}] {} {}", step.name, step.rest);
                    let told = Step::start(self.build.job, &name, Vec::new());
                    let result = if step.name == "COPY" {
                        self.copy(step, &scope, &mut tree, built)
                    } else {
                        self.command(step, &scope, &mut tree, &told).await
                    };
                    let vertex = told.end(result.as_ref().err().map_or("", |(e, _)| e));
                    result.map_err(|(text, exit)| self.failed(step, &vertex, &text, exit))?;
                }
                _ => {}
            }
        }
        Ok(tree)
    }

    fn failed(&self, step: &Instruction, vertex: &str, text: &str, exit: Option<i32>) -> Status {
        let mut details = vec![
            (
                "errdefs.Vertex+json".to_owned(),
                format!("{{\"digest\":\"{vertex}\"}}"),
            ),
            place(self.source, step.line),
        ];
        if let Some(exit) = exit {
            details.push((
                "gatewayapi.ExitMessage+json".to_owned(),
                format!("{{\"Code\":{exit}}}"),
            ));
        }
        failure(Code::Unknown, text, details)
    }

    fn copy(
        &self,
        step: &Instruction,
        scope: &BTreeMap<String, String>,
        tree: &mut Snapshot,
        built: &BTreeMap<usize, Snapshot>,
    ) -> Result<(), (String, Option<i32>)> {
        let rest = dockerfile::expand(&step.rest, scope);
        let from = rest.split_whitespace().find_map(|w| w.strip_prefix("--from="));
        let source = match from {
            Some(name) => {
                let stage = find_stage(self.stages, name).and_then(|i| built.get(&i));
                stage
                    .cloned()
                    .ok_or_else(|| (format!("no such stage {name}"), None))?
            }
            None => context_tree(self.context),
        };
        let words: Vec<&str> = rest.split_whitespace().filter(|w| !w.starts_with("--")).collect();
        let Some((dest, sources)) = words.split_last() else {
            return Err(("COPY requires at least two arguments".to_owned(), None));
        };
        for from in sources {
            copy_one(&source, from, dest, sources.len() > 1, tree)?;
        }
        tree.regroup();
        Ok(())
    }

    /// Runs `echo`, `true`, `false`, `exit` and `sleep`, joined by `&&`.
    async fn command(
        &self,
        step: &Instruction,
        scope: &BTreeMap<String, String>,
        tree: &mut Snapshot,
        told: &Step<'_>,
    ) -> Result<(), (String, Option<i32>)> {
        let failed = |code: i32| {
            let text = format!(
                "process \"/bin/sh -c {}\" did not complete successfully: exit code: {code}",
                step.rest
            );
            Err((text, Some(code)))
        };
        for command in dockerfile::expand(&step.rest, scope).split("&&").map(str::trim) {
            let words: Vec<&str> = command.split_whitespace().collect();
            match words[..] {
                ["echo", ref rest @ ..] => echo(rest, tree, told),
                ["true"] => {}
                ["false"] => return failed(1),
                ["exit", code] => return failed(code.parse().unwrap_or(2)),
                ["sleep", seconds] => {
                    let time = Duration::from_secs(seconds.parse().unwrap_or(0));
                    tokio::time::sleep(time).await; // sleep: this is what the step is asked to do
                }
                _ => return failed(127),
            }
        }
        Ok(())
    }
}

fn echo(words: &[&str], tree: &mut Snapshot, told: &Step<'_>) {
    let unquoted = |words: &[&str]| format!("{}\n", words.join(" ").trim_matches(['"', '\'']));
    match words {
        [text @ .., ">", path] => {
            put(
                tree,
                path.trim_matches('/').as_bytes(),
                Entry::new(Kind::File, 0o644).content(unquoted(text).as_bytes()),
            );
        }
        [text @ .., ">&2"] => told.log(2, unquoted(text).as_bytes()),
        text => told.log(1, unquoted(text).as_bytes()),
    }
}

pub(super) fn find_stage(stages: &[Stage], name: &str) -> Option<usize> {
    let named = |s: &Stage| s.alias.as_deref() == Some(&name.to_lowercase());
    stages
        .iter()
        .position(named)
        .or_else(|| name.parse().ok().filter(|i| *i < stages.len()))
}

/// The stages that `wanted` rests on, in order, itself last.
pub(super) fn needed(stages: &[Stage], wanted: usize) -> Vec<usize> {
    let mut found = BTreeSet::from([wanted]);
    let mut open = vec![wanted];
    while let Some(stage) = open.pop().and_then(|i| stages.get(i)) {
        let copies = stage.steps.iter().filter(|s| s.name == "COPY");
        let froms = copies
            .flat_map(|s| s.rest.split_whitespace())
            .filter_map(|w| w.strip_prefix("--from="));
        for index in froms
            .chain([stage.base.as_str()])
            .filter_map(|name| find_stage(stages, name))
        {
            if found.insert(index) {
                open.push(index);
            }
        }
    }
    found.into_iter().collect()
}
