//! Settings from variables and files, as they are explained and as they are told to be wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bk_testkit::fake::Script;

use super::{
    bk, context,
    fake::{GOOD, build, fake},
    run, text,
};

/// A context and a home directory, both with what is written into their `bk.toml`.
struct Places {
    context: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl Places {
    fn new(of_context: &str, of_user: &str) -> Self {
        let places = Self {
            context: context(GOOD),
            home: tempfile::tempdir().expect("a temporary directory"),
        };
        for (path, text) in [
            (places.context.path().join("bk.toml"), of_context),
            (places.user(), of_user),
        ] {
            if !text.is_empty() {
                fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                fs::write(path, text).expect("writable");
            }
        }
        places
    }

    fn user(&self) -> PathBuf {
        self.home.path().join(".config/bk/bk.toml")
    }

    fn bk(&self, arguments: &[&str]) -> Command {
        let mut command = bk(arguments);
        command
            .current_dir(self.context.path())
            .env("HOME", self.home.path());
        command
    }

    /// The rows of `bk config explain` for these keys, with the home directory as `~`.
    fn explained(&self, keys: &[&str], arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let ran = run(self
            .bk(&["config", "explain"])
            .args(arguments)
            .envs(variables.iter().copied()));
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{}", ran.out);
        let home = text(self.home.path());
        ran.out
            .lines()
            .filter(|row| keys.iter().any(|key| row.split(" = ").next() == Some(key)))
            .map(|row| format!("{}\n", row.replace(home, "~")))
            .collect()
    }

    /// The error of `bk build .`, with its exit code.
    fn refused(&self, variables: &[(&str, &str)]) -> String {
        let ran = run(self.bk(&["build", "."]).envs(variables.iter().copied()));
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{}", ran.err);
        ran.err.replace(text(self.home.path()), "~")
    }
}

#[test]
fn the_strongest_source_holds() {
    let places = Places::new(
        "[build]\ntarget = \"context\"\nprogress = \"tty\"\n",
        "addr = [\"tcp://user\"]\n\n[build]\nprogress = \"json\"\ntarget = \"user\"\ntag = [\"a\", \"b\"]\n",
    );
    let keys = [
        "addr",
        "build.target",
        "build.progress",
        "build.tag",
        "build.pull",
    ];
    let said = |arguments: &[&str], variables: &[(&str, &str)]| places.explained(&keys, arguments, variables);
    assert_eq!(
        said(&["."], &[]),
        "addr = [\"tcp://user\"]  # ~/.config/bk/bk.toml:1\n\
         build.target = \"context\"  # bk.toml:2, over ~/.config/bk/bk.toml:5\n\
         build.tag = [\"a\", \"b\"]  # ~/.config/bk/bk.toml:6\n\
         build.pull = false  # default\n\
         build.progress = \"tty\"  # bk.toml:3, over ~/.config/bk/bk.toml:4\n"
    );
    assert_eq!(
        said(
            &["."],
            &[
                ("BUILDKIT_PROGRESS", "plain"),
                ("DOCKER_HOST", "tcp://u:p@docker"),
                ("BK_PULL", "true"),
                ("BK_TAG", "c\n\nd\n")
            ]
        ),
        "addr = [\"tcp://u:***@docker\"]  # DOCKER_HOST, over ~/.config/bk/bk.toml:1\n\
         build.target = \"context\"  # bk.toml:2, over ~/.config/bk/bk.toml:5\n\
         build.tag = [\"c\", \"d\"]  # BK_TAG, over ~/.config/bk/bk.toml:6\n\
         build.pull = true  # BK_PULL\n\
         build.progress = \"plain\"  # BUILDKIT_PROGRESS, over bk.toml:3, over ~/.config/bk/bk.toml:4\n"
    );
    let both = [("BUILDKIT_PROGRESS", "plain"), ("BK_PROGRESS", "ordered")];
    let keys = ["build.progress"];
    assert_eq!(
        places.explained(&keys, &["."], &both),
        "build.progress = \"ordered\"  # BK_PROGRESS, over BUILDKIT_PROGRESS, over bk.toml:3, over ~/.config/bk/bk.toml:4\n"
    );
    assert_eq!(
        places.explained(&keys, &["--progress=quiet", "."], &both),
        "build.progress = \"quiet\"  # command line, over BK_PROGRESS, over BUILDKIT_PROGRESS, over bk.toml:3, over \
         ~/.config/bk/bk.toml:4\n"
    );
}

#[test]
fn options_of_other_commands_have_variables_with_their_names() {
    let places = Places::new("", "[build]\nsync = \"mtime\"\n\n[bake]\njobs = 1\n");
    let keys = [
        "bake.jobs",
        "bake.sync",
        "bake.load",
        "bake.file",
        "bake.keep-going",
    ];
    assert_eq!(
        places.explained(
            &keys,
            &["bake"],
            &[
                ("BK_BAKE_JOBS", "2"),
                ("BK_BAKE_FILE", "a.json\nb.yaml"),
                ("BK_BAKE_KEEP_GOING", "1"),
                ("BK_SYNC", "content"),
                ("BK_BAKE_SYNC", "exact"),
                // Those of `bk build` are its own.
                ("BK_FILE", "Dockerfile"),
                ("BK_LOAD", "true"),
            ]
        ),
        "bake.file = [\"a.json\", \"b.yaml\"]  # BK_BAKE_FILE\n\
         bake.load = false  # default\n\
         bake.jobs = \"2\"  # BK_BAKE_JOBS, over ~/.config/bk/bk.toml:5\n\
         bake.keep-going = true  # BK_BAKE_KEEP_GOING\n\
         bake.sync = \"exact\"  # BK_BAKE_SYNC, over BK_SYNC, over ~/.config/bk/bk.toml:2\n"
    );
    assert_eq!(
        places.explained(&["ctx.du.depth"], &["ctx", "du"], &[("BK_CTX_DU_DEPTH", "1")]),
        "ctx.du.depth = \"1\"  # BK_CTX_DU_DEPTH\n"
    );
    let refused = run(places.bk(&["bake"]).env("BK_BAKE_JOBS", "many"));
    assert_eq!(
        (refused.code, &*refused.err),
        (
            Some(2),
            "ERROR: BK_BAKE_JOBS: `many` is not allowed: invalid digit found in string\n"
        )
    );
    let said = run(places.bk(&["bake", "/none"]).env("BK_BAKE_JOSB", "1")).err;
    assert!(
        said.starts_with("warning: BK_BAKE_JOSB is not a setting; did you mean BK_BAKE_JOBS?\n"),
        "{said}"
    );
}

#[test]
fn an_explanation_has_every_value_and_no_secret() {
    let places = Places::new(
        "",
        "[build]\nbuild-arg = { NPM_TOKEN = \"hunter2\", V = 1 }\nno-cache = true\n",
    );
    let ran = run(places
        .bk(&["config", "explain", "-t", "app", "."])
        .env("BK_CACHE_TO", "type=s3,bucket=b,secret_access_key=hunter2")
        .env("BK_VERBOSE", "0"));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    let at = format!("{}:", text(&places.user()));
    let want = format!(
        "build.build-arg = [\"NPM_TOKEN=***\", \"V=1\"]  # {at}2\n\
         build.tag = [\"app\"]  # command line\n\
         build.load = false  # default\n\
         build.push = false  # default\n\
         build.call = \"build\"  # default\n\
         build.check = false  # default\n\
         build.no-cache = true  # {at}3\n\
         build.cache-to = [\"type=s3,bucket=b,secret_access_key=***\"]  # BK_CACHE_TO\n\
         build.pull = false  # default\n\
         build.sync = \"exact\"  # default\n\
         build.context-mode = \"keep\"  # default\n\
         build.context-owner = \"reset\"  # default\n\
         build.on-change = \"error\"  # default\n\
         build.progress = \"auto\"  # default\n\
         build.quiet = false  # default\n\
         build.timings = false  # default\n"
    );
    // Other options have other defaults: these rows, in this order.
    let mut rows = ran.out.lines();
    for row in want.lines() {
        assert!(
            rows.any(|r| r == row),
            "{row}\nis not where it belongs in\n{}",
            ran.out
        );
    }
    assert!(
        ran.out
            .contains("color = \"auto\"  # default\nverbose = 0  # BK_VERBOSE\n"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains("hunter2"), "{}", ran.out);

    let ran = run(places
        .bk(&["config", "explain", "--json", "build", "."])
        .env("BK_NO_CACHE", "false"));
    let row = ran
        .out
        .lines()
        .find(|row| row.contains("\"build.no-cache\""))
        .expect("a row");
    let file = format!(
        r#"{{"key":"build.no-cache","kind":"file","line":3,"path":"{}"}}"#,
        text(&places.user())
    );
    assert_eq!(
        row,
        format!(
            r#"{{"key":"build.no-cache","over":[{{"source":{file},"value":true}}],"source":{{"kind":"variable","name":"BK_NO_CACHE"}},"value":false}}"#
        )
    );
}

#[test]
fn other_commands_are_explained_and_share_what_they_look_at() {
    let places = Places::new(
        "[build]\ntarget = \"t\"\nprogress = \"plain\"\nplatform = [\"linux/amd64\", \"linux/arm64\"]\n",
        "[bake]\njobs = 2\nprogress = \"json\"\n",
    );
    let keys = [
        "bake.jobs",
        "bake.progress",
        "ctx.ls.target",
        "ctx.ls.platform",
        "build.platform",
    ];
    assert_eq!(
        places.explained(&keys, &["bake", "web"], &[]),
        "bake.jobs = 2  # ~/.config/bk/bk.toml:2\nbake.progress = \"plain\"  # bk.toml:3, over ~/.config/bk/bk.toml:3\n"
            .replace("= 2 ", "= \"2\" ")
    );
    assert_eq!(
        places.explained(&keys, &["ctx", "ls"], &[]),
        "ctx.ls.target = \"t\"  # bk.toml:2\n"
    );
    assert_eq!(
        places.explained(&keys, &["ctx", "ls"], &[("BK_TARGET", "v")]),
        "ctx.ls.target = \"v\"  # BK_TARGET, over bk.toml:2\n"
    );
    let ran = run(&mut places.bk(&["config", "explain", "man"]));
    assert_eq!(
        (ran.code, &*ran.err),
        (Some(2), "ERROR: COMMAND: `bk man` has no settings\n")
    );
    let ran = run(&mut places.bk(&["config", "explain", "--nope", "."]));
    assert!(
        ran.err.starts_with("error: unexpected argument '--nope' found\n"),
        "{}",
        ran.err
    );
    let ran = run(&mut places.bk(&["--addr", "tcp://h:1", "config", "explain", "."]));
    assert!(
        ran.out.contains("addr = [\"tcp://h:1\"]  # command line\n"),
        "{}",
        ran.out
    );
    let ran = run(&mut places.bk(&["config", "path"]));
    assert_eq!(
        (ran.code, ran.out),
        (Some(0), format!("{}\n", text(&places.user())))
    );
}

#[test]
fn an_option_overrules_weaker_ones_that_mean_the_same() {
    let places = Places::new("[build]\nprogress = \"plain\"\n", "tlscacert = \"ca.pem\"\n");
    let keys = ["build.progress", "build.quiet", "tlsdir", "tlscacert"];
    assert_eq!(
        places.explained(&keys, &["-q", "--tlsdir", "/d", "."], &[]),
        "tlsdir = \"/d\"  # command line\n\
         build.progress = \"auto\"  # default, not bk.toml:2 because of build.quiet\n\
         build.quiet = true  # command line\n"
    );
    assert_eq!(
        places.explained(&keys, &["-q=false", "."], &[]),
        "tlscacert = \"~/.config/bk/ca.pem\"  # ~/.config/bk/bk.toml:1\n\
         build.progress = \"plain\"  # bk.toml:2\nbuild.quiet = false  # command line\n"
    );
}

#[test]
fn who_names_a_daemon_does_not_show_it_what_belongs_to_another() {
    let places = Places::new(
        "",
        "addr = [\"tcp://h:1\"]\nbackend = \"buildkitd\"\ntlscert = \"c\"\ntlskey = \"k\"\ndocker-route = \"h2c\"\n",
    );
    let keys = ["addr", "backend", "builder", "tlscert", "tlskey", "docker-route"];
    assert_eq!(
        places.explained(&keys, &["."], &[("BK_BACKEND", "auto")]),
        "addr = [\"tcp://h:1\"]  # ~/.config/bk/bk.toml:1\n\
         backend = \"auto\"  # BK_BACKEND, over ~/.config/bk/bk.toml:2\n\
         docker-route = \"h2c\"  # ~/.config/bk/bk.toml:5\n\
         tlscert = \"~/.config/bk/c\"  # ~/.config/bk/bk.toml:3\n\
         tlskey = \"~/.config/bk/k\"  # ~/.config/bk/bk.toml:4\n"
    );
    for (arguments, variables, row) in [
        (
            &["--addr", "tcp://other:1", "."][..],
            &[][..],
            "addr = [\"tcp://other:1\"]  # command line, over ~/.config/bk/bk.toml:1\n",
        ),
        (
            &["."],
            &[("DOCKER_HOST", "tcp://other:1")],
            "addr = [\"tcp://other:1\"]  # DOCKER_HOST, over ~/.config/bk/bk.toml:1\n",
        ),
        (&["--builder", "b", "."], &[], "builder = \"b\"  # command line\n"),
    ] {
        let rows = format!("{row}docker-route = \"h2c\"  # ~/.config/bk/bk.toml:5\n");
        assert_eq!(places.explained(&keys, arguments, variables), rows);
    }
}

#[test]
fn a_build_obeys_its_settings() {
    let (daemon, places) = (fake(Script::healthy()), Places::new("", ""));
    let iid = places.home.path().join("iid");
    let user = format!(
        "addr = \"{}\"\nbackend = \"buildkitd\"\n[build]\ntag = \"set:1\"\nquiet = true\niidfile = \"{}\"\n",
        daemon.address(),
        iid.display()
    );
    fs::create_dir_all(places.user().parent().expect("a parent")).expect("a directory");
    fs::write(places.user(), user).expect("writable");
    let ran = run(&mut places.bk(&["build", "."]));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    assert_eq!(
        ran.out,
        format!("{}\n", fs::read_to_string(&iid).expect("the image id"))
    );
    assert!(daemon.image("set:1").is_some());
    let ran = run(places.bk(&["build", "-vv", "."]).env("BK_TAG", "set:2"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(daemon.image("set:2").is_some());
    let read = format!("bk: settings: read {}\n", text(&places.user()));
    assert!(ran.err.starts_with(&read), "{}", ran.err);
    assert!(
        ran.err
            .contains("bk: setting: build.tag = [\"set:2\"] from BK_TAG\n"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("bk: setting: verbose = 2 from command line\n"),
        "{}",
        ran.err
    );
}

#[test]
fn an_address_that_nobody_answers_at_is_told_with_its_source() {
    let places = Places::new("", "addr = \"unix:///none.sock\"\n");
    let said = |command: &mut Command| {
        let ran = run(command);
        assert_eq!((ran.code, &*ran.out), (Some(1), ""));
        let first = ran.err.lines().next().unwrap_or_default();
        first.replace(text(places.home.path()), "~")
    };
    let start = "ERROR: cannot reach a daemon at unix:///none.sock (~/.config/bk/bk.toml:1: addr): ";
    let line = said(&mut places.bk(&["build", "."]));
    assert!(line.starts_with(start), "{line}");
    let line = said(places.bk(&["build", "."]).env("BK_ADDR", "unix:///other.sock"));
    assert!(
        line.starts_with("ERROR: cannot reach a daemon at unix:///other.sock (BK_ADDR): "),
        "{line}"
    );
    let line = said(&mut places.bk(&["--addr", "unix:///third.sock", "build", "."]));
    assert!(
        line.starts_with("ERROR: cannot reach a daemon at unix:///third.sock: "),
        "{line}"
    );
}

#[test]
fn files_can_be_left_alone() {
    let places = Places::new("nonsense", "more nonsense");
    let (daemon, quiet) = (fake(Script::healthy()), ["-q", "--no-config"]);
    let ran = run(build(&daemon, places.context.path(), &quiet).env("HOME", places.home.path()));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    let ran = run(build(&daemon, places.context.path(), &["-q"])
        .env("HOME", places.home.path())
        .env("BK_NO_CONFIG", "1"));
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    for arguments in [
        &["completion", "bash"][..],
        &["man"],
        &["--help"],
        &["config", "path"],
        &["--version"],
    ] {
        let ran = run(&mut places.bk(arguments));
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_mistake_in_a_file_is_told_with_its_line() {
    for (file, want) in [
        (
            "[build]\nprogres = \"plain\"\n",
            "ERROR: bk.toml:2: build.progres: the key is not known; did you mean `progress`?\n",
        ),
        (
            "\n[biuld]\nx = 1\n",
            "ERROR: bk.toml:2: biuld: the key is not known; did you mean `build`?\n",
        ),
        (
            "progress = \"plain\"\n",
            "ERROR: bk.toml:1: progress: the key is not known\n  hint: `progress` is an option of `bk build`: write it below \
             [build]\n",
        ),
        (
            "[build]\ncolor = \"never\"\n",
            "ERROR: bk.toml:2: build.color: the key is not known\n  hint: `color` is an option of every command: write it at \
             the top, before the first table\n",
        ),
        (
            "[build]\nprogress = \"plian\"\n",
            "ERROR: bk.toml:2: build.progress: `plian` is not allowed; did you mean `plain`?\n  hint: progress takes one of \
             auto, tty, plain, ordered, grouped, json, rawjson, quiet\n",
        ),
        (
            "[build]\nno-cache = \"maybe\"\n",
            "ERROR: bk.toml:2: build.no-cache: `maybe` is not allowed\n  hint: no-cache takes true or false\n",
        ),
        (
            "[build]\ncpu-shares = -1\n",
            "ERROR: bk.toml:2: build.cpu-shares: `-1` is not allowed: invalid digit found in string\n",
        ),
        (
            "[build]\ntarget = [\"a\"]\n",
            "ERROR: bk.toml:2: build.target: it takes one value, not a list\n",
        ),
        (
            "[build]\ntarget = 1.5\n",
            "ERROR: bk.toml:2: build.target: a float has no meaning here\n",
        ),
        (
            "build = 1\n",
            "ERROR: bk.toml:1: build: this is a command, and has to be a table\n",
        ),
        (
            "[build]\ntarget = \"a\"\ntarget = \"b\"\n",
            "ERROR: bk.toml:3: duplicate key\n",
        ),
        (
            "[build]\nbuild-arg = [\"AWS_SECRET_ACCESS_KEY\"]\n",
            "ERROR: bk.toml:2: build.build-arg: the bk.toml of a context may not pass on variables of the environment: it has \
             to say the value\n  hint: a context may come from a stranger; if you want this, say it on the command line or in \
             ~/.config/bk/bk.toml, or let --no-config leave such files alone\n",
        ),
        (
            "[build]\n\nsecret = \"id=a,src=/etc/shadow\"\n",
            "ERROR: bk.toml:3: build.secret: the bk.toml of a context may not set this\n  hint: a context may come from a \
             stranger; if you want this, say it on the command line or in ~/.config/bk/bk.toml, or let --no-config leave such \
             files alone\n",
        ),
    ] {
        assert_eq!(Places::new(file, "").refused(&[]), want, "{file}");
    }
    let places = Places::new("", "[build]\ntag = \"UPPER\"\n");
    let said = places.refused(&[]);
    assert!(
        said.starts_with("ERROR: ~/.config/bk/bk.toml:2: build.tag: `UPPER`: "),
        "{said}"
    );
}

#[test]
fn a_mistake_in_a_variable_has_its_name() {
    let places = Places::new("", "");
    for (variable, value, want) in [
        (
            "BK_PROGRESS",
            "plian",
            "ERROR: BK_PROGRESS: `plian` is not allowed; did you mean `plain`?\n  hint: BK_PROGRESS takes one of auto, tty, \
             plain, ordered, grouped, json, rawjson, quiet\n",
        ),
        (
            "BK_NO_CACHE",
            "maybe",
            "ERROR: BK_NO_CACHE: `maybe` is not allowed\n  hint: BK_NO_CACHE takes true or false\n",
        ),
        (
            "BK_SHM_SIZE",
            "much",
            "ERROR: BK_SHM_SIZE: `much` is not an amount of memory\n  hint: BK_SHM_SIZE takes bytes, or a number with a unit, for instance \
             64m or 1g\n",
        ),
        (
            "BK_CONFIG",
            "/none/bk.toml",
            "ERROR: BK_CONFIG: `/none/bk.toml` does not exist\n",
        ),
    ] {
        assert_eq!(places.refused(&[(variable, value)]), want);
    }
    let said = places.refused(&[("BK_TLSCERT", "c")]);
    assert!(
        said.starts_with("error: the following required arguments were not provided:\n  --tlskey <FILE>\n")
            && said.ends_with("  note: --tlscert comes from BK_TLSCERT\n"),
        "{said}"
    );
    let said = run(places.bk(&["build", "/none"]).env("BK_NO_CAHCE", "1")).err;
    assert!(
        said.starts_with("warning: BK_NO_CAHCE is not a setting; did you mean BK_NO_CACHE?\n"),
        "{said}"
    );
}

#[test]
fn what_is_no_file_is_not_read() {
    let places = Places::new("", "");
    let place = places.context.path().join("bk.toml");
    std::os::unix::fs::symlink("/etc/passwd", &place).expect("a link");
    assert_eq!(
        places.refused(&[]),
        "ERROR: bk.toml: it is a symbolic link; in a context it has to be a file\n"
    );
    fs::remove_file(&place).expect("there");
    nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    assert_eq!(places.refused(&[]), "ERROR: bk.toml: it is not a file\n");
    fs::remove_file(&place).expect("there");
    fs::create_dir(&place).expect("a directory");
    assert_eq!(places.refused(&[]), "ERROR: bk.toml: it is not a file\n");
    fs::remove_dir(&place).expect("there");
    fs::write(&place, "#".repeat(256 * 1024 + 1)).expect("writable");
    assert_eq!(places.refused(&[]), "ERROR: bk.toml: it is longer than 256 KiB\n");
    fs::write(&place, b"# fine\n# \xff\n").expect("writable");
    assert_eq!(places.refused(&[]), "ERROR: bk.toml:2: it is not UTF-8\n");
    assert_eq!(
        places.refused(&[("BK_CONFIG", "/dev/null"), ("BK_X", "")]),
        "ERROR: bk.toml:2: it is not UTF-8\n"
    );
    fs::remove_file(&place).expect("there");
    assert_eq!(
        places.refused(&[("BK_CONFIG", "/dev/null")]),
        "ERROR: /dev/null: it is not a file\n"
    );
    // The user's own may be a link: some keep all their settings in one place.
    let real = places.home.path().join("real.toml");
    fs::write(&real, "color = \"pink\"\n").expect("writable");
    fs::create_dir_all(places.user().parent().expect("a parent")).expect("a directory");
    std::os::unix::fs::symlink(&real, places.user()).expect("a link");
    assert_eq!(
        places.refused(&[]),
        "ERROR: ~/.config/bk/bk.toml:1: color: `pink` is not allowed\n  hint: color takes one of auto, always, never\n"
    );
}

#[test]
fn who_names_the_file_of_a_context_trusts_it() {
    let places = Places::new("addr = [\"tcp://h:1\"]\n", "");
    let file = places.context.path().join("bk.toml");
    assert_eq!(
        places.explained(&["addr"], &["."], &[("BK_CONFIG", text(&file))]),
        format!("addr = [\"tcp://h:1\"]  # {}:1\n", file.display())
    );
    assert!(Path::new(&file).is_file());
}
