//! The guide as its reader follows it: every page in a directory of its own, from the first line to the last, on a real
//! daemon. What a page shows is what comes.
//!
//! What fenced blocks mean here:
//!
//! * `sh`: lines that begin with `$ ` are commands, what stands below each is what it prints, on both streams. A line `…` is
//!   any number of lines, `…` inside of a line is any text. Every command succeeds, but the last one of a block `sh exit=N`,
//!   whose exit code is N.
//! * `… file=NAME`: the reader saves the block as NAME; the paragraph before it says so.
//! * `rust example=NAME`: the example of the library of that name, which compiles and is run by tests of its own.
//! * All others are to look at, and hold no commands.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bk_testkit::live::{Daemon, Engine, Route, Target, dockerd_program};

use super::{bk, run};

/// The base image of the guide, which a daemon without a network is given.
const BASE: &str = "busybox:latest";
/// What the names of the guide's own images begin with.
const IMAGES: &str = "guide-";
/// What stands for any text.
const ANY: char = '…';

/// A block of a page.
#[derive(Debug, PartialEq)]
enum Block {
    File { name: String, text: String },
    Commands { commands: Vec<Typed>, code: i32 },
    Example { name: String, text: String },
}

/// A command and what it prints.
#[derive(Debug, PartialEq)]
struct Typed {
    line: usize,
    command: String,
    prints: Vec<String>,
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide")
}

/// The pages by name, in the order of the names.
fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<_> = fs::read_dir(docs())
        .expect("the guide")
        .map(|entry| entry.expect("readable").path())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("text"))
        })
        .collect();
    pages.sort();
    pages
}

/// The blocks of a page that mean something.
///
/// # Errors
/// What is wrong with the page, with its line.
fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut found = Vec::new();
    let mut before = String::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            match line.trim().is_empty() {
                // A paragraph speaks of the block that follows it.
                true if before.ends_with('\n') => {}
                true => before.push('\n'),
                false if before.ends_with('\n') => before = line.to_owned(),
                false => before.push_str(line),
            }
            continue;
        };
        let body: Vec<(usize, &str)> = lines
            .by_ref()
            .take_while(|(_, line)| *line != "```")
            .map(|(at, line)| (at + 1, line))
            .collect();
        let text: String = body.iter().map(|(_, line)| format!("{line}\n")).collect();
        let wrong = |why: String| Err(format!("line {}: {why}", at + 1));
        let mut words = info.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let option = words.next().unwrap_or_default();
        match (kind, option.split_once('=')) {
            ("sh", exit) => {
                let code = match exit {
                    Some(("exit", code)) => code.parse().map_err(|_| format!("line {}: {option}", at + 1))?,
                    None if option.is_empty() => 0,
                    _ => return wrong(format!("{option} means nothing")),
                };
                found.push(Block::Commands {
                    commands: commands(&body)?,
                    code,
                });
            }
            (_, Some(("file", name))) => {
                if !before.contains(&format!("`{name}`")) {
                    return wrong(format!("the reader is not told to save this as {name}"));
                }
                let name = name.to_owned();
                found.push(Block::File { name, text });
            }
            ("rust", Some(("example", name))) => {
                let name = name.to_owned();
                found.push(Block::Example { name, text });
            }
            (_, _) if !option.is_empty() => return wrong(format!("{option} means nothing")),
            (_, _) if body.iter().any(|(_, line)| line.starts_with("$ ")) => {
                return wrong("commands stand in blocks of sh".to_owned());
            }
            _ => {}
        }
    }
    Ok(found)
}

fn commands(body: &[(usize, &str)]) -> Result<Vec<Typed>, String> {
    let mut all: Vec<Typed> = Vec::new();
    for (line, text) in body {
        match (text.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => all.push(Typed {
                line: *line,
                command: command.to_owned(),
                prints: Vec::new(),
            }),
            (None, Some(command)) => command.prints.push((*text).to_owned()),
            (None, None) => return Err(format!("line {line}: output without a command")),
        }
    }
    Ok(all)
}

/// Whether `line` is what `pattern` says.
fn line_is(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split(ANY);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether `lines` are what `patterns` say.
fn lines_are(patterns: &[String], lines: &[&str]) -> bool {
    match patterns.split_first() {
        None => lines.is_empty(),
        Some((any, rest)) if any.trim() == "…" => {
            (0..=lines.len()).any(|skipped| lines_are(rest, &lines[skipped..]))
        }
        Some((pattern, rest)) => lines
            .split_first()
            .is_some_and(|(line, others)| line_is(pattern, line) && lines_are(rest, others)),
    }
}

/// Where the pages are followed.
struct Reader {
    target: Target,
    path: String,
    home: tempfile::TempDir,
}

impl Reader {
    /// A reader with `bk`, `docker`, and a `dockerd` to start.
    fn new(target: Target, dockerd: &Path) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let bin = home.path().join("bin");
        fs::create_dir(&bin).expect("writable");
        symlink(env!("CARGO_BIN_EXE_bk"), bin.join("bk")).expect("a link");
        let docker =
            env::var_os("BK_LIVE_DOCKER_CLI").expect("BK_LIVE_DOCKER_CLI: the docker of the live tests");
        symlink(docker, bin.join("docker")).expect("a link");
        symlink(dockerd, bin.join("dockerd")).expect("a link");
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
        Self { target, path, home }
    }

    /// Runs a line as a shell does; both streams together, and the exit code.
    fn type_in(&self, dir: &Path, line: &str) -> (String, Option<i32>) {
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("exec 2>&1; {line}")])
            .current_dir(dir)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", self.home.path())
            .env("DOCKER_HOST", format!("unix://{}", self.target.docker.display()))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (said, output.status.code())
    }

    /// Follows a page; what is not as it says.
    fn follow(&self, name: &str, page: &str) -> Result<(), String> {
        let around = tempfile::tempdir().expect("a temporary directory");
        let dir = around.path().join("app");
        fs::create_dir(&dir).expect("writable");
        for block in blocks(page).map_err(|why| format!("{name}: {why}"))? {
            match block {
                Block::File { name, text } => {
                    let place = dir.join(name);
                    fs::create_dir_all(place.parent().expect("below the directory")).expect("writable");
                    fs::write(place, text).expect("writable");
                }
                Block::Commands { commands, code } => {
                    let last = commands.len();
                    for (at, command) in commands.iter().enumerate() {
                        let expected = if at + 1 == last { code } else { 0 };
                        self.try_one(name, &dir, command, expected)?;
                    }
                }
                Block::Example { .. } => {}
            }
        }
        Ok(())
    }

    fn try_one(&self, name: &str, dir: &Path, command: &Typed, expected: i32) -> Result<(), String> {
        let (said, code) = self.type_in(dir, &command.command);
        // What this machine's engine says of its own settings, before a container runs.
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| !line.starts_with("WARNING: IPv4 forwarding is disabled"))
            .collect();
        if code == Some(expected) && lines_are(&command.prints, &lines) {
            return Ok(());
        }
        Err(format!(
            "{name}:{}: `{}` ended with {code:?} ({expected} expected) and printed\n{said}--- the page says\n{}\n",
            command.line,
            command.command,
            command.prints.join("\n")
        ))
    }
}

/// Follows every page on one daemon.
fn on(daemon: Daemon, route: Route) {
    const TEST: &str = "guide::every_page_does_what_it_says";
    let (Some(target), Some(dockerd)) = (Target::find(daemon, route, TEST), dockerd_program(TEST)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let _turn = runtime.block_on(target.turn());
    let engine = runtime
        .block_on(Engine::connect(&target.docker))
        .expect("the engine behind");
    let base = tempfile::tempdir().expect("a temporary directory");
    fs::copy(&target.busybox, base.path().join("busybox")).expect("a busybox");
    let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"/bin\"]\n\
                      CMD [\"/bin/sh\"]\n";
    fs::write(base.path().join("Dockerfile"), dockerfile).expect("writable");
    let built = run(bk(&["--addr", &target.address, "build", "-q", "-t", BASE]).arg(base.path()));
    assert_eq!(built.code, Some(0), "{}", built.err);

    let reader = Reader::new(target, &dockerd);
    let found: Vec<String> = pages()
        .iter()
        .filter_map(|(name, page)| reader.follow(name, page).err())
        .collect();
    // A page that went wrong half-way leaves its daemon behind.
    reader.type_in(base.path(), "bk daemon stop --force");
    let (images, _) = reader.type_in(base.path(), "docker image ls --format '{{.Repository}}:{{.Tag}}'");
    let own = images.lines().filter(|image| image.starts_with(IMAGES));
    for image in own.chain([BASE]) {
        // Images that are built again and again lose their names to later ones, and are nobody's.
        drop(runtime.block_on(engine.remove_image(image)));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    reader.target.passed(TEST);
}

#[test]
fn every_page_does_what_it_says() {
    on(Daemon::Docker28_5, Route::Grpc);
}

#[test]
fn pages_are_well_formed_and_linked() {
    let pages = pages();
    let (_, index) = pages
        .iter()
        .find(|(name, _)| name == "README.md")
        .expect("an index");
    for (name, page) in &pages {
        let found = blocks(page).unwrap_or_else(|why| panic!("{name}: {why}"));
        if name != "README.md" {
            assert!(
                index.contains(&format!("({name})")),
                "README.md does not lead to {name}"
            );
            let commands = found.iter().any(|b| matches!(b, Block::Commands { .. }));
            assert!(commands, "{name} has nothing to try");
        }
        for block in found {
            let Block::Example { name: example, text } = block else {
                continue;
            };
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../bk-client/examples/{example}.rs"));
            let code =
                fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {}: {e}", path.display()));
            assert!(
                code.ends_with(&text),
                "{name} shows something else than the example {example}"
            );
        }
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let there = file.is_empty() || file.starts_with("https://") || docs().join(file).exists();
            assert!(there, "{name} leads to {target}, which is not there");
        }
    }
}

#[test]
fn what_is_compared_is_compared() {
    let yes = |pattern: &str, line: &str| assert!(line_is(pattern, line), "{pattern} {line}");
    let no = |pattern: &str, line: &str| assert!(!line_is(pattern, line), "{pattern} {line}");
    yes("a", "a");
    no("a", "ab");
    no("ab", "a");
    yes("#… DONE …s", "#12 DONE 0.1s");
    no("#… DONE …s", "#12 ERROR 0.1s");
    yes("…b", "aab");
    no("a…a", "a");
    yes("a…", "a");
    let are = |patterns: &[&str], lines: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        lines_are(&patterns, lines)
    };
    assert!(are(&["…", "b", "…"], &["a", "b"]));
    assert!(!are(&["…", "b"], &["a", "b", "c"]));
    assert!(are(&[], &[]) && !are(&[], &["a"]) && !are(&["a"], &[]));

    let page = "Save as `a/b`:\n\n```text file=a/b\n1\n```\n\n```sh exit=2\n$ x\ny\n$ z\n```\n";
    let command = |line, command: &str, prints: &[&str]| Typed {
        line,
        command: command.to_owned(),
        prints: prints.iter().map(|p| (*p).to_owned()).collect(),
    };
    let expected = [
        Block::File {
            name: "a/b".to_owned(),
            text: "1\n".to_owned(),
        },
        Block::Commands {
            commands: vec![command(8, "x", &["y"]), command(10, "z", &[])],
            code: 2,
        },
    ];
    assert_eq!(blocks(page).expect("a page"), expected);
    for (page, why) in [
        (
            "```text file=x\n```\n",
            "line 1: the reader is not told to save this as x",
        ),
        ("```text\n$ x\n```\n", "line 1: commands stand in blocks of sh"),
        ("```sh\nx\n```\n", "line 2: output without a command"),
        ("```sh twice\n```\n", "line 1: twice means nothing"),
    ] {
        assert_eq!(blocks(page).expect_err(page), why);
    }
}
