//! Which files of a context the instructions of a Dockerfile need.
//!
//! The rule: the answer is the frontend's own. It asks for the sources of `COPY` and `ADD` and of bind mounts in the stages
//! that the target needs, and for everything if one of them is the root. What only the daemon can know is said to be
//! unknown, never guessed: everything counts as needed then.

use std::collections::{BTreeMap, BTreeSet};

use bk_build::{BuildError, InputError};
use bk_fsync::path::clean;
use parse_dockerfile::{Flag, Instruction, Source, parse};

use super::words::{Stuck, Value, expand, fields, split};

/// An instruction of a Dockerfile that needs files of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Need {
    /// Its first line in the Dockerfile, from 1.
    pub line: usize,
    /// That line, as it stands there.
    pub text: String,
    /// The paths or patterns that it takes, each with a leading `/`. `/` is everything.
    pub paths: Vec<String>,
}

/// What the instructions of a Dockerfile need of a context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needs {
    /// The instructions, in the order of the file.
    pub instructions: Vec<Need>,
    /// Why it cannot be known here what is needed; everything counts as needed then. `None`: it is known.
    pub unknown: Option<String>,
}

impl Needs {
    fn unknown(why: impl Into<String>) -> Self {
        Self {
            instructions: Vec::new(),
            unknown: Some(why.into()),
        }
    }

    /// Whether all of the context counts as needed.
    pub fn everything(&self) -> bool {
        self.unknown.is_some() || self.paths().any(|p| p == "/")
    }

    /// Whether nothing of the context is needed: a daemon does not ask for it at all.
    pub fn nothing(&self) -> bool {
        self.unknown.is_none() && self.paths().next().is_none()
    }

    /// The paths whose links are followed and which are then sent, sorted, as the frontend sends them; none at all if
    /// [`everything`](Self::everything) is needed.
    pub fn follow(&self) -> Vec<Vec<u8>> {
        if self.everything() {
            return Vec::new();
        }
        // As the frontend sends them, there is no `/` in front.
        let sorted: BTreeSet<&str> = self.paths().map(|p| p.trim_start_matches('/')).collect();
        sorted.into_iter().map(|p| p.as_bytes().to_vec()).collect()
    }

    fn paths(&self) -> impl Iterator<Item = &str> {
        self.instructions.iter().flat_map(|n| &n.paths).map(|p| &**p)
    }
}

/// What decides on the needs beside the text of the Dockerfile.
pub(super) struct Given<'a> {
    /// The stage to build.
    pub(super) target: Option<&'a str>,
    /// Values for `ARG`.
    pub(super) build_args: &'a BTreeMap<String, String>,
    /// The platform to build for.
    pub(super) platform: Option<&'a str>,
    /// The names of contexts, which take the place of stages and images.
    pub(super) contexts: BTreeSet<&'a str>,
    /// The named context that is looked at; else the main one.
    pub(super) look: Option<&'a str>,
}

/// Reads what a Dockerfile needs.
pub(super) fn needs(text: &[u8], given: &Given<'_>) -> Result<Needs, BuildError> {
    let Ok(text) = std::str::from_utf8(text) else {
        return Ok(Needs::unknown("the Dockerfile is not UTF-8"));
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let file = match parse(text) {
        Ok(file) => file,
        Err(e) => return Ok(Needs::unknown(format!("the Dockerfile cannot be read here: {e}"))),
    };
    let directive = file.parser_directives.syntax.as_ref().map(|d| d.value.value);
    let syntax = given
        .build_args
        .get("BUILDKIT_SYNTAX")
        .map_or(directive, |s| Some(s));
    if let Some(syntax) = syntax.map(str::trim).filter(|s| !is_official(s)) {
        return Ok(Needs::unknown(format!(
            "`{syntax}` reads the Dockerfile, and its rules are not known here"
        )));
    }
    let escape = file
        .parser_directives
        .escape
        .as_ref()
        .map_or('\\', |d| d.value.value);
    let mut analysis = Analysis {
        text,
        escape,
        given,
        globals: predefined(given),
        stages: Vec::new(),
        needs: Vec::new(),
    };
    let globals = file.instructions.iter().map_while(|i| match i {
        Instruction::Arg(arg) => Some(&*arg.arguments.value),
        _ => None,
    });
    for arguments in globals {
        analysis.global(arguments);
    }
    for stage in file.stages() {
        analysis.add_stage(stage.from, stage.instructions);
    }
    analysis.run()
}

/// Whether the frontend is the one whose rules are these.
fn is_official(syntax: &str) -> bool {
    let name = syntax.split([' ', '@']).next().unwrap_or(syntax);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

/// The variables that are there without being declared. Only the target's are known here.
fn predefined(given: &Given<'_>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for name in ["PLATFORM", "OS", "ARCH", "VARIANT", "OSVERSION"] {
        all.insert(format!("BUILD{name}"), Value::Unknown);
        all.insert(format!("TARGET{name}"), Value::Unknown);
    }
    all.insert("TARGETSTAGE".to_owned(), Value::Unknown);
    if let Some(platform) = given.platform
        && let [os, arch, rest @ ..] = &*platform.to_ascii_lowercase().split('/').collect::<Vec<_>>()
        && rest.len() < 2
    {
        let (arch, variant) = match (*arch, rest.first().copied().unwrap_or("")) {
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", if v == "v1" { "" } else { v }),
            ("aarch64" | "arm64", v) => ("arm64", if v == "8" || v == "v8" { "" } else { v }),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("i386", _) => ("386", ""),
            (arch, v) => (arch, v),
        };
        let os = if *os == "macos" { "darwin" } else { *os };
        let whole = match variant {
            "" => format!("{os}/{arch}"),
            v => format!("{os}/{arch}/{v}"),
        };
        for (name, value) in [
            ("PLATFORM", &*whole),
            ("OS", os),
            ("ARCH", arch),
            ("VARIANT", variant),
        ] {
            all.insert(format!("TARGET{name}"), Value::Set(value.to_owned()));
        }
    }
    for (name, value) in given.build_args {
        if all.contains_key(name) {
            all.insert(name.clone(), Value::Set(value.clone()));
        }
    }
    all
}

/// Where a stage starts from.
#[derive(Clone, Copy)]
enum Base {
    /// Nothing: every variable is known.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image, or a context by name.
    Elsewhere,
}

/// The values of variables at one point of a stage.
#[derive(Clone, Default)]
struct Values {
    /// From `ENV`; they win.
    env: BTreeMap<String, Value>,
    args: BTreeMap<String, Value>,
    /// Whether nothing else can be set, which needs a start from `scratch`.
    closed: bool,
}

impl Values {
    fn get(&self, name: &str) -> Value {
        let known = self.env.get(name).or_else(|| self.args.get(name));
        match known {
            Some(value) => value.clone(),
            // Frontends set a search path of their own.
            None if self.closed && name != "PATH" => Value::Unset,
            None => Value::Unknown,
        }
    }
}

struct Stage<'d, 't> {
    name: Option<String>,
    /// Where it starts, or why that cannot be known.
    base: Result<Base, Stuck>,
    /// What is named as its base, if that is no stage.
    image: Option<String>,
    line: usize,
    /// A context by name stands for the whole stage.
    replaced: bool,
    instructions: &'d [Instruction<'t>],
    /// What holds at its end, once it was read.
    at_end: Option<Values>,
}

struct Analysis<'g, 'd, 't> {
    text: &'t str,
    escape: char,
    given: &'g Given<'g>,
    globals: BTreeMap<String, Value>,
    stages: Vec<Stage<'d, 't>>,
    needs: Vec<Need>,
}

impl<'d, 't> Analysis<'_, 'd, 't> {
    /// An `ARG` above the first stage.
    fn global(&mut self, arguments: &str) {
        for word in split(arguments, self.escape) {
            let (name, default) = name_and_value(&word);
            let value = match (self.given.build_args.get(name), default) {
                (Some(value), _) => Value::Set(value.clone()),
                (None, Some(default)) => self.in_globals(default).map_or(Value::Unknown, Value::Set),
                (None, None) => self.globals.get(name).cloned().unwrap_or(Value::Unset),
            };
            self.globals.insert(name.to_owned(), value);
        }
    }

    fn in_globals(&self, word: &str) -> Result<String, Stuck> {
        let get = |name: &str| self.globals.get(name).cloned().unwrap_or(Value::Unset);
        expand(word, self.escape, &get)
    }

    fn add_stage(
        &mut self,
        from: &parse_dockerfile::FromInstruction<'_>,
        instructions: &'d [Instruction<'t>],
    ) {
        let name = from.as_.as_ref().map(|(_, name)| name.value.to_lowercase());
        let mut image = None;
        let base = self.in_globals(&from.image.value).map(|base| {
            let lower = base.to_lowercase();
            let stage = self
                .stages
                .iter()
                .rposition(|s| s.name.as_deref() == Some(&lower));
            match stage {
                Some(at) => Base::Stage(at),
                None if base == "scratch" && !self.given.contexts.contains("scratch") => Base::Scratch,
                None => {
                    image = Some(base);
                    Base::Elsewhere
                }
            }
        });
        let replaced = name.as_deref().is_some_and(|n| self.given.contexts.contains(n));
        self.stages.push(Stage {
            name,
            base,
            image,
            line: line_of(self.text, from.from.span.start),
            replaced,
            instructions,
            at_end: None,
        });
    }

    /// The stage of that name or number.
    fn find(&self, name: &str) -> Option<usize> {
        let lower = name.to_lowercase();
        let by_name = self
            .stages
            .iter()
            .rposition(|s| s.name.as_deref() == Some(&lower));
        by_name.or_else(|| name.parse().ok().filter(|at| *at < self.stages.len()))
    }

    fn run(mut self) -> Result<Needs, BuildError> {
        let target = match self.given.target.filter(|t| !t.is_empty()) {
            None => self.stages.len() - 1,
            Some(name) => self.find(name).ok_or_else(|| {
                let names: Vec<&str> = self.stages.iter().filter_map(|s| s.name.as_deref()).collect();
                let allowed = match names.is_empty() {
                    true => "no name: none of its stages has one".to_owned(),
                    false => format!("one of {}", names.join(", ")),
                };
                InputError::new(
                    "--target",
                    format!("the Dockerfile has no stage `{name}`"),
                    allowed,
                )
            })?,
        };
        let wanted = self.reachable(target);
        if self.stages[target].replaced {
            let (name, line) = (self.stages[target].name.clone(), self.stages[target].line);
            self.all_of(&name.unwrap_or_default(), line);
        }
        for at in wanted {
            if let Err((line, Stuck(why))) = self.stage(at) {
                return Ok(Needs::unknown(format!("line {line} of the Dockerfile: {why}")));
            }
        }
        self.needs.sort_by_key(|n| n.line);
        Ok(Needs {
            instructions: self.needs,
            unknown: None,
        })
    }

    /// The stages that `target` needs, from the first to the last.
    fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![target]);
        while let Some(at) = open.pop() {
            if !seen.insert(at) || self.stages[at].replaced {
                continue;
            }
            if let Ok(Base::Stage(base)) = self.stages[at].base {
                open.push(base);
            }
            for instruction in self.stages[at].instructions {
                let from = uses(instruction).unwrap_or_default();
                open.extend(from.iter().filter_map(|u| self.find(u.from.as_deref()?)));
            }
        }
        seen
    }

    /// Reads one stage. Those that it starts from were read before.
    fn stage(&mut self, at: usize) -> Result<(), (usize, Stuck)> {
        let (line, instructions) = (self.stages[at].line, self.stages[at].instructions);
        let mut values = Values::default();
        if self.stages[at].replaced {
            return Ok(());
        }
        match self.stages[at].base.clone().map_err(|e| (line, e))? {
            Base::Scratch => values.closed = true,
            Base::Elsewhere => {
                let image = self.stages[at].image.clone().unwrap_or_default();
                self.all_of(&image, line);
            }
            Base::Stage(base) if self.stages[base].replaced => {
                let name = self.stages[base].name.clone().unwrap_or_default();
                self.all_of(&name, line);
            }
            Base::Stage(base) => {
                values = self.stages[base].at_end.clone().unwrap_or_default();
                let triggers = self.stages[base].instructions.iter();
                let takes = |i: &Instruction<'_>| match i {
                    Instruction::Onbuild(i) => uses(&i.instruction).map_or(true, |u| !u.is_empty()),
                    _ => false,
                };
                if triggers.clone().any(takes) {
                    let why = "the stage that it starts from has ONBUILD instructions that need files";
                    return Err((line, Stuck(why.to_owned())));
                }
            }
        }
        for instruction in instructions {
            let start = instruction_start(instruction);
            let line = line_of(self.text, start);
            self.instruction(instruction, line, &mut values)
                .map_err(|e| (line, e))?;
        }
        self.stages[at].at_end = Some(values);
        Ok(())
    }

    fn instruction(
        &mut self,
        instruction: &Instruction<'_>,
        line: usize,
        values: &mut Values,
    ) -> Result<(), Stuck> {
        match instruction {
            Instruction::Arg(arg) => self.argument(&arg.arguments.value, values),
            Instruction::Env(env) => self.variable(&env.arguments.value, values),
            _ => {
                let mut paths = Vec::new();
                for used in uses(instruction)? {
                    if !self.is_looked_at(used.from.as_deref()) {
                        continue;
                    }
                    for word in used.paths {
                        let path = expand(word.as_ref(), self.escape, &|name| values.get(name))?;
                        if !(used.may_be_remote && is_remote(&path)) {
                            let path = clean(format!("/{path}").as_bytes());
                            paths.push(String::from_utf8_lossy(&path).into_owned());
                        }
                    }
                }
                self.need(line, paths);
            }
        }
        Ok(())
    }

    fn argument(&self, arguments: &str, values: &mut Values) {
        let before = values.clone();
        for word in split(arguments, self.escape) {
            let (name, default) = name_and_value(&word);
            let value = match (self.given.build_args.get(name), default) {
                (Some(value), _) => Value::Set(value.clone()),
                (None, Some(default)) => {
                    expand(default, self.escape, &|n| before.get(n)).map_or(Value::Unknown, Value::Set)
                }
                (None, None) => self.globals.get(name).cloned().unwrap_or(Value::Unset),
            };
            values.args.insert(name.to_owned(), value);
        }
    }

    fn variable(&self, arguments: &str, values: &mut Values) {
        let before = values.clone();
        let known =
            |word: &str| expand(word, self.escape, &|n| before.get(n)).map_or(Value::Unknown, Value::Set);
        let words = split(arguments, self.escape);
        if !words.first().is_some_and(|w| w.contains('=')) {
            let (name, value) = arguments
                .trim()
                .split_once(char::is_whitespace)
                .unwrap_or((arguments.trim(), ""));
            values.env.insert(name.to_owned(), known(value.trim_start()));
            return;
        }
        for word in &words {
            let (name, value) = name_and_value(word);
            values.env.insert(name.to_owned(), known(value.unwrap_or("")));
        }
    }

    /// Whether `from` is the context that is looked at.
    fn is_looked_at(&self, from: Option<&str>) -> bool {
        match (from, self.given.look) {
            (None, None) => true,
            (Some(from), Some(look)) => {
                from == look && (self.find(from).is_none() || self.given.contexts.contains(from))
            }
            _ => false,
        }
    }

    /// The whole of what has the name is used.
    fn all_of(&mut self, name: &str, line: usize) {
        if self.given.look == Some(name) {
            self.need(line, vec!["/".to_owned()]);
        }
    }

    fn need(&mut self, line: usize, paths: Vec<String>) {
        if !paths.is_empty() {
            let text = self.text.lines().nth(line - 1).unwrap_or_default();
            self.needs.push(Need {
                line,
                text: text.trim().to_owned(),
                paths,
            });
        }
    }
}

/// Paths that an instruction takes from one place.
struct Used {
    /// A stage, image or context; none for the main context.
    from: Option<String>,
    paths: Vec<String>,
    /// Addresses that the daemon fetches may be among them.
    may_be_remote: bool,
}

/// What an instruction takes from contexts, stages and images.
fn uses(instruction: &Instruction<'_>) -> Result<Vec<Used>, Stuck> {
    let (options, sources, may_be_remote) = match instruction {
        Instruction::Add(add) => (&add.options, &add.src, true),
        Instruction::Copy(copy) => (&copy.options, &copy.src, false),
        Instruction::Run(run) => return mounts(&run.options),
        _ => return Ok(Vec::new()),
    };
    let from = options.iter().find(|o| o.name.value == "from");
    Ok(vec![Used {
        from: from
            .and_then(|o| o.value.as_ref())
            .map(|v| v.value.to_string())
            .filter(|f| !f.is_empty()),
        paths: sources
            .iter()
            .filter_map(|s| match s {
                Source::Path(path) => Some(path.value.to_string()),
                _ => None,
            })
            .collect(),
        may_be_remote,
    }])
}

fn mounts(options: &[Flag<'_>]) -> Result<Vec<Used>, Stuck> {
    let mut all = Vec::new();
    let mounts = options.iter().filter(|o| o.name.value == "mount");
    for mount in mounts.filter_map(|o| o.value.as_ref()) {
        let (mut kind, mut source, mut from) = ("bind".to_owned(), String::new(), None);
        for field in fields(&mount.value)? {
            let (key, value) = field.split_once('=').unwrap_or((&field, ""));
            match &*key.to_ascii_lowercase() {
                "type" => kind = value.to_ascii_lowercase(),
                "source" | "src" => source = value.to_owned(),
                "from" => from = Some(value.to_owned()).filter(|f| !f.is_empty()),
                _ => {}
            }
        }
        // The frontend takes every mount without an origin for one of the context, a tmpfs too.
        let takes = match &*kind {
            "bind" | "tmpfs" => true,
            "cache" => from.is_some(),
            _ => false,
        };
        if takes {
            all.push(Used {
                from,
                paths: vec![source],
                may_be_remote: false,
            });
        }
    }
    Ok(all)
}

fn name_and_value(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    }
}

/// Whether a source of `ADD` is an address.
fn is_remote(source: &str) -> bool {
    let schemes = ["http://", "https://", "git://", "ssh://", "git@", "github.com/"];
    schemes.iter().any(|s| source.starts_with(s))
}

/// The line, from 1, on which the byte at `at` stands.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|b| **b == b'\n').count()
}

/// Where the instruction starts. Only of those that matter here; the others take the start of the file.
fn instruction_start(instruction: &Instruction<'_>) -> usize {
    match instruction {
        Instruction::Add(i) => i.add.span.start,
        Instruction::Copy(i) => i.copy.span.start,
        Instruction::Run(i) => i.run.span.start,
        Instruction::Arg(i) => i.arg.span.start,
        Instruction::Env(i) => i.env.span.start,
        _ => 0,
    }
}

#[cfg(test)]
#[path = "needs_tests.rs"]
mod tests;
