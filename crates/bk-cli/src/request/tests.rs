//! What command lines mean, and which ones are turned away.

use std::{collections::BTreeMap, time::Duration};

use clap::Parser as _;

use super::*;
use crate::args::{Backend, Cli, Command, Route};

#[derive(Default)]
pub(super) struct Fake {
    pub(super) vars: BTreeMap<&'static str, OsString>,
    pub(super) stdin: &'static [u8],
}

impl Surroundings for Fake {
    fn var(&self, name: &str) -> Option<OsString> {
        self.vars.get(name).cloned()
    }

    fn stdin(&self) -> Box<dyn Read> {
        Box::new(self.stdin)
    }

    fn warn(&self, _line: &str) {}

    fn stdin_rest(&self) -> ArchiveReader {
        Box::pin(&self.stdin[self.stdin.len().min(1024)..])
    }
}

fn parse(line: &[&str]) -> Cli {
    Cli::try_parse_from([&["bk"], line].concat()).expect("a valid command line")
}

fn args(line: &[&str]) -> BuildArgs {
    match parse(&[&["build"], line].concat()).command {
        Command::Build(args) => *args,
        other => panic!("not a build: {other:?}"),
    }
}

pub(super) fn meant(line: &[&str], around: &Fake) -> BuildRequest {
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
fn patience_reaches_the_request() {
    let around = Fake {
        vars: [].into(),
        stdin: b"",
    };
    let patience = |line: &[&str]| meant(line, &around).patience;
    let usual = patience(&["."]);
    assert_eq!((usual.stall, usual.retries), (Some(Duration::from_secs(120)), 1));
    let set = patience(&["--stall-timeout", "90", "--retries=3", "."]);
    assert_eq!((set.stall, set.retries), (Some(Duration::from_secs(90)), 3));
    assert_eq!(patience(&["--stall-timeout=0s", "."]).stall, None);
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
    assert!(matches!(&r.context, Context::Dir(p) if p == Path::new(".")));
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
    assert!(r.outputs.is_empty());
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
        assert_eq!(global.addr, ["unix:///a"]);
        assert_eq!(global.builder, None);
        assert_eq!(
            (global.backend, global.docker_route),
            (Some(Backend::Docker), Some(Route::Tar))
        );
    }
    let global = parse(&["build", "."]).global;
    assert!(global.addr.is_empty() && global.backend.is_none() && global.docker_route.is_none());
    for line in [
        ["--builder", "b0", "build", "."],
        ["build", ".", "--builder", "b0"],
    ] {
        assert_eq!(parse(&line).global.builder.as_deref(), Some("b0"));
    }
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

#[tokio::test]
async fn standard_input_is_an_archive_or_a_dockerfile() {
    use bk_client::Context;
    use tokio::io::AsyncReadExt as _;

    // A gzip stream, to the eye.
    static ARCHIVE: [u8; 3000] = {
        let mut bytes = [7; 3000];
        (bytes[0], bytes[1], bytes[2]) = (0x1f, 0x8b, 8);
        bytes
    };
    let with = |stdin| Fake {
        stdin,
        ..Fake::default()
    };
    let r = meant(&["-f", "./sub/D", "-"], &with(&ARCHIVE));
    assert!(matches!(r.dockerfile, Dockerfile::InContext(name) if name == "sub/D"));
    let Context::Archive(archive) = r.context else {
        panic!("an archive")
    };
    let mut whole = Vec::new();
    let mut reader = archive.take().expect("not taken");
    reader.read_to_end(&mut whole).await.expect("memory");
    assert!(whole == ARCHIVE && archive.take().is_none());

    let text = with(b"FROM scratch\n");
    let r = meant(&["-"], &text);
    assert!(matches!(r.context, Context::None));
    assert!(matches!(r.dockerfile, Dockerfile::Inline(b) if b == "FROM scratch\n"));
    assert!(refused(&["-f", "D", "-"], &text).starts_with("--file: standard input is no tar archive"));
    assert!(refused(&["-f", "-", "-"], &text).starts_with("--file: standard input cannot be both"));
    assert!(refused(&["-"], &Fake::default()).contains("is empty"));
    assert!(refused(&["-"], &with(b"\x28\xb5\x2f\xfd")).contains("zstd"));
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
        "PATH: `/nonexistent/ctx` does not exist | a directory on this machine, or a Git or HTTP address"
    );
    assert_eq!(
        refused(&[file], &around),
        format!("PATH: `{file}` is not a directory | a directory on this machine, or a Git or HTTP address")
    );
}

#[test]
fn remote_contexts_hold_their_own_dockerfile() {
    let around = Fake {
        stdin: b"FROM x",
        ..Fake::default()
    };
    let address = "https://example.com/r.git#main:sub";
    let r = meant(&[address], &around);
    assert!(matches!(&r.context, Context::Remote(a) if a == address));
    assert!(matches!(r.dockerfile, Dockerfile::Default));
    let inside = meant(&["-f", "a/D", address], &around);
    assert!(matches!(inside.dockerfile, Dockerfile::InContext(p) if p == "a/D"));
    let beside = meant(&["-f", "/a/D", address], &around);
    assert!(matches!(beside.dockerfile, Dockerfile::Path(p) if p == Path::new("/a/D")));
    let given = meant(&["-f", "-", address], &around);
    assert!(matches!(given.dockerfile, Dockerfile::Inline(t) if t == "FROM x"));
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
            &["--build-context", "src", "."],
            "--build-context: `src` is not NAME=VALUE | NAME=VALUE",
        ),
        (
            &["--build-context", "a b=.", "."],
            "--build-context: `a b` cannot name a context | ",
        ),
        (&["--opt", "=v", "."], "--opt: `=v` is not KEY=VALUE | "),
        (
            &["--add-host", "a", "."],
            "--add-host: `a`: there is no address | ",
        ),
        (
            &["--network", "bridge", "."],
            "--network: BuildKit has no network `bridge` | ",
        ),
        (
            &["--shm-size", "much", "."],
            "--shm-size: `much` is not an amount of memory | ",
        ),
        (
            &["--ulimit", "x=1", "."],
            "--ulimit: `x=1`: there is no limit of that name | ",
        ),
        (
            &["--allow", "all", "."],
            "--allow: `all` is nothing that can be permitted | ",
        ),
        (
            &["--annotation", "k", "."],
            "--annotation: `k`: there is no value | ",
        ),
        (
            &["--attest", "type=x", "."],
            "--attest: `type=x` names no statement that there is | ",
        ),
        (
            &["--provenance", "mode=most", "."],
            "--provenance: `mode=most` is not known | mode=min or mode=max",
        ),
        (
            &["--cache-to", "ref=x", "."],
            "--cache-to: the cache has no type | ",
        ),
        (
            &["--cache-to", "type=registry", "."],
            "--cache-to: a cache of type `registry` lacks `ref` | ",
        ),
        (
            &["--cache-to", "type=local,dest=d,max-size=much", "."],
            "--cache-to: `much` is not an amount",
        ),
        (
            &["--cache-from", "type=local,src=d,max-size=1g", "."],
            "--cache-from: `max-size` has no meaning",
        ),
        (
            &["--cache-from", "type=inline", "."],
            "--cache-from: an inline cache is read as",
        ),
        (
            &["--no-cache", "--no-cache-filter", "a", "."],
            "--no-cache-filter: cannot be used together with --no-cache",
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

#[test]
fn a_policy_is_read_from_its_file_or_variable() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), r#"{"rules": [{"action": "DENY"}, {}]}"#).expect("writable");
    let around = Fake {
        vars: [("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", file.path().into())].into(),
        stdin: b"",
    };
    let policy = meant(&["."], &around).source_policy.expect("a policy");
    assert_eq!(policy.rules(), 2);
    fs::write(file.path(), r#"{"rules": [{"action": "FORBID"}]}"#).expect("writable");
    let text = refused(&["."], &around);
    assert!(
        text.contains("FORBID") && text.starts_with(file.path().to_str().expect("UTF-8")),
        "{text}"
    );
    let gone = request(&args(&["--source-policy-file", "/no/such", "."]), &around).expect_err("no file");
    assert_eq!(gone.to_string(), "/no/such: cannot read the source policy");
}

#[test]
fn statements_can_be_turned_off_again() {
    let kinds = |flags: &[&str]| -> Vec<&'static str> {
        let r = meant(&[flags, &["."]].concat(), &Fake::default());
        r.attestations.iter().map(bk_client::Attestation::kind).collect()
    };
    assert_eq!(
        kinds(&["--attest", "type=sbom", "--provenance=1"]),
        ["sbom", "provenance"]
    );
    assert_eq!(kinds(&["--attest", "type=sbom", "--sbom=false"]), [""; 0]);
    assert_eq!(kinds(&["--attest", "type=provenance,disabled=true"]), [""; 0]);
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
        (&["--progress", "tty", "."], &plain, Mode::Tty),
        (&["--progress", "ordered", "."], &plain, Mode::Ordered),
        (&["--progress", "grouped", "."], &plain, Mode::Grouped),
        (&["--progress", "json", "."], &plain, Mode::Json),
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
            "one of auto, tty, plain, ordered, grouped, json, rawjson, quiet"
        )
    );
    let tty = Fake {
        vars: [("BUILDKIT_PROGRESS", "tty".into())].into(),
        stdin: b"",
    };
    assert_eq!(mode(&args(&["."]).progress, &tty), Ok(Mode::Auto));
}
