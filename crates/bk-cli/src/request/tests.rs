//! What command lines mean, and which ones are turned away.

use std::collections::BTreeMap;

use clap::Parser as _;

use super::*;
use crate::args::{Backend, Cli, Command, Route};

#[derive(Default)]
struct Fake {
    vars: BTreeMap<&'static str, OsString>,
    stdin: &'static [u8],
}

impl Surroundings for Fake {
    fn var(&self, name: &str) -> Option<OsString> {
        self.vars.get(name).cloned()
    }

    fn stdin(&self) -> Box<dyn Read> {
        Box::new(self.stdin)
    }
}

fn parse(line: &[&str]) -> Cli {
    Cli::try_parse_from([&["bk"], line].concat()).expect("a valid command line")
}

fn args(line: &[&str]) -> BuildArgs {
    let Command::Build(args) = parse(&[&["build"], line].concat()).command;
    *args
}

fn meant(line: &[&str], around: &Fake) -> BuildRequest {
    request(&args(line), around).expect("a valid request")
}

fn refused(line: &[&str], around: &Fake) -> String {
    match request(&args(line), around) {
        Err(BuildError::Input(e)) => format!("{e} | {}", e.allowed),
        other => panic!("expected an input error, got {other:?}"),
    }
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    map.iter().map(|(k, v)| (&**k, &**v)).collect()
}

#[test]
fn every_flag_reaches_the_request() {
    let around = Fake {
        vars: [("HOME_ARG", "from env".into())].into(),
        stdin: b"",
    };
    let r = meant(
        &[
            "-f",
            "sub/D",
            "-t",
            "a:1",
            "--tag",
            "b",
            "--build-arg",
            "K=V=W",
            "--build-arg",
            "HOME_ARG",
            "--build-arg",
            "ABSENT",
            "--build-arg",
            "EMPTY=",
            "--target",
            "stage",
            "--platform",
            "linux/amd64,linux/arm64",
            "--platform",
            "linux/arm/v7",
            "--no-cache",
            "--pull",
            "--label",
            "l=1",
            "--label",
            "bare",
            ".",
        ],
        &around,
    );
    assert!(matches!(&r.context, bk_client::Context::Dir(p) if p == Path::new(".")));
    assert!(matches!(&r.dockerfile, Dockerfile::Path(p) if p == Path::new("sub/D")));
    assert_eq!(r.tags, ["a:1", "b"]);
    assert_eq!(
        pairs(&r.build_args),
        [("EMPTY", ""), ("HOME_ARG", "from env"), ("K", "V=W")]
    );
    assert_eq!(r.target.as_deref(), Some("stage"));
    assert_eq!(r.platforms, ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
    assert!(r.no_cache && r.pull);
    assert_eq!(pairs(&r.labels), [("bare", ""), ("l", "1")]);
}

#[test]
fn nothing_said_means_the_defaults() {
    let r = meant(&["."], &Fake::default());
    assert!(matches!(r.dockerfile, Dockerfile::Default));
    assert!(r.tags.is_empty() && r.build_args.is_empty() && r.platforms.is_empty() && r.labels.is_empty());
    assert!(!r.no_cache && !r.pull && r.target.is_none());
    assert_eq!(r.output, bk_client::Output::Image);
}

#[test]
fn switches_take_a_value_as_in_buildx() {
    let a = args(&["--no-cache=false", "--pull=true", "-q", "."]);
    assert_eq!(
        (a.cache.no_cache, a.cache.pull, a.progress.quiet),
        (false, true, true)
    );
    assert_eq!(a.source.context, Path::new("."));
}

#[test]
fn global_options_stand_before_or_behind_the_command() {
    for line in [
        [
            "--addr",
            "unix:///a",
            "--backend",
            "docker",
            "--docker-route",
            "tar",
            "build",
            ".",
        ],
        [
            "build",
            ".",
            "--docker-route",
            "tar",
            "--backend",
            "docker",
            "--addr",
            "unix:///a",
        ],
    ] {
        let global = parse(&line).global;
        assert_eq!(global.addr.as_deref(), Some("unix:///a"));
        assert_eq!(
            (global.backend, global.docker_route),
            (Some(Backend::Docker), Some(Route::Tar))
        );
    }
    let global = parse(&["build", "."]).global;
    assert!(global.addr.is_none() && global.backend.is_none() && global.docker_route.is_none());
}

#[test]
fn a_dockerfile_comes_from_standard_input() {
    let around = Fake {
        stdin: b"FROM scratch\n",
        ..Fake::default()
    };
    assert!(
        matches!(meant(&["-f", "-", "."], &around).dockerfile, Dockerfile::Inline(b) if b == "FROM scratch\n")
    );
}

#[test]
fn standard_input_is_bounded() {
    assert_eq!(read_bounded(&b"12345"[..], 5).expect("it fits"), b"12345");
    let over = read_bounded(io::repeat(b'#'), STDIN_DOCKERFILE_BYTES).expect_err("endless input");
    assert_eq!(
        over.to_string(),
        "--file: the Dockerfile on standard input is longer than 16 MiB"
    );
}

#[test]
fn wrong_contexts_are_named() {
    let around = Fake::default();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let file = file.path().to_str().expect("UTF-8");
    assert_eq!(
        refused(&["/nonexistent/ctx"], &around),
        "PATH: `/nonexistent/ctx` does not exist | a directory on this machine"
    );
    assert_eq!(
        refused(&[file], &around),
        format!("PATH: `{file}` is not a directory | a directory on this machine")
    );
    assert_eq!(
        refused(&["-"], &around),
        "PATH: `-`: a context on standard input is not supported yet | a directory on this machine; a Dockerfile \
         alone can come with `-f -`"
    );
    assert_eq!(
        refused(&["https://example.com/r.git#main"], &around),
        "PATH: `https://example.com/r.git#main`: remote contexts are not supported yet | a directory on this machine"
    );
}

#[test]
fn wrong_values_name_their_flag() {
    let around = Fake::default();
    for (line, start) in [
        (
            &["-t", "Bad", "."][..],
            "--tag: `Bad`: a name must be lower case | ",
        ),
        (
            &["--platform", "linux amd64", "."],
            "--platform: `linux amd64` is not a platform | OS/ARCH",
        ),
        (
            &["--platform", "linux/amd64,", "."],
            "--platform: `` is not a platform | OS/ARCH",
        ),
        (
            &["--build-arg", "=v", "."],
            "--build-arg: a key must not be empty | KEY=VALUE",
        ),
        (
            &["--build-arg", "", "."],
            "--build-arg: a key must not be empty | KEY=VALUE or KEY",
        ),
        (
            &["--label", "=v", "."],
            "--label: a key must not be empty | KEY=VALUE",
        ),
        (
            &["--iidfile", "/", "."],
            "--iidfile: `/` is a directory | a file to be written",
        ),
        (
            &["--metadata-file", "/nonexistent/m.json", "."],
            "--metadata-file: `/nonexistent/m.json`: the directory `/nonexistent` does not exist | a file",
        ),
    ] {
        let text = refused(line, &around);
        assert!(text.starts_with(start), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let around = Fake {
        vars: [("BYTES", OsString::from_vec(vec![0xff]))].into(),
        stdin: b"",
    };
    assert_eq!(
        refused(&["--build-arg", "BYTES", "."], &around),
        "--build-arg: the environment variable `BYTES` is not UTF-8 | "
    );
}

#[test]
fn progress_modes_and_their_variable() {
    let plain = Fake {
        vars: [("BUILDKIT_PROGRESS", "plain".into())].into(),
        stdin: b"",
    };
    let none = Fake::default();
    for (line, around, expected) in [
        (&["."][..], &none, Mode::Auto),
        (&["."], &plain, Mode::Plain),
        (&["--progress", "auto", "."], &plain, Mode::Plain),
        (&["--progress", "rawjson", "."], &plain, Mode::RawJson),
        (&["-q", "."], &plain, Mode::Quiet),
        (&["-q", "--progress", "quiet", "."], &none, Mode::Quiet),
    ] {
        assert_eq!(mode(&args(line).progress, around), Ok(expected), "{line:?}");
    }
    let wrong =
        mode(&args(&["-q", "--progress", "plain", "."]).progress, &none).expect_err("a contradiction");
    assert_eq!(wrong.to_string(), "--quiet: cannot be used with --progress plain");
    let fancy = Fake {
        vars: [("BUILDKIT_PROGRESS", "fancy".into())].into(),
        stdin: b"",
    };
    let wrong = mode(&args(&["."]).progress, &fancy).expect_err("an unknown mode");
    assert_eq!(
        (wrong.to_string(), &*wrong.allowed),
        (
            "BUILDKIT_PROGRESS: `fancy` is not a progress mode".to_owned(),
            "one of auto, plain, rawjson, quiet"
        )
    );
    let tty = Fake {
        vars: [("BUILDKIT_PROGRESS", "tty".into())].into(),
        stdin: b"",
    };
    assert_eq!(mode(&args(&["."]).progress, &tty), Ok(Mode::Auto));
}
