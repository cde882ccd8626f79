//! How `bk` looks: colours, what `-v` says, completions that shells accept, pages that `man` accepts.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use bk_testkit::fake::Script;

use super::{
    bk, context,
    fake::{GOOD, build, fake},
    run, text,
};

#[test]
fn colours_are_for_terminals_unless_somebody_says_so() {
    let plain = "ERROR: PATH: `/none` does not exist\n  hint: PATH takes a directory on this machine, or a Git or HTTP address\n";
    let coloured = "\u{1b}[1;31mERROR:\u{1b}[0m PATH: `/none` does not exist\n\u{1b}[1;36m  hint:\u{1b}[0m PATH takes a \
                    directory on this machine, or a Git or HTTP address\n";
    for (arguments, variables, want) in [
        (&[][..], &[][..], plain),
        (&["--color=always"], &[], coloured),
        (&["--color", "always"], &[("NO_COLOR", "1")], coloured),
        (&[], &[("CLICOLOR_FORCE", "1")], coloured),
        (&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], plain),
        (&["--color=never"], &[("CLICOLOR_FORCE", "1")], plain),
    ] {
        let ran = run(bk(&["build", "/none"])
            .args(arguments)
            .envs(variables.iter().copied()));
        assert_eq!(
            (ran.code, &*ran.err),
            (Some(2), want),
            "{arguments:?} {variables:?}"
        );
    }
}

#[test]
fn help_and_mistakes_on_the_command_line_have_colours_too() {
    let ran = run(&mut bk(&["--help"]));
    assert!(ran.code == Some(0) && !ran.out.contains('\u{1b}'), "{}", ran.out);
    let ran = run(&mut bk(&["--color=always", "build", "--help"]));
    assert!(
        ran.out.contains("\u{1b}[1m\u{1b}[4mUsage:\u{1b}[0m"),
        "{}",
        ran.out
    );
    let ran = run(&mut bk(&["build", "--color=always", "--nope", "."]));
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err.starts_with("\u{1b}[1m\u{1b}[31merror:\u{1b}[0m"),
        "{}",
        ran.err
    );
    let ran = run(&mut bk(&["build", "--nope", "."]));
    assert!(
        ran.err.starts_with("error: unexpected argument '--nope' found\n"),
        "{}",
        ran.err
    );
}

#[test]
fn verbose_says_which_daemon() {
    let (daemon, dir) = (fake(Script::healthy()), context(GOOD));
    let silent = run(&mut build(&daemon, dir.path(), &["-q"]));
    assert_eq!((silent.code, &*silent.err), (Some(0), ""));
    let said = run(&mut build(&daemon, dir.path(), &["-q", "-v"]));
    let end = format!(" at {}\n", daemon.address());
    assert!(
        said.err.starts_with("bk: daemon: buildkitd") && said.err.ends_with(&end),
        "{}",
        said.err
    );
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
}

/// Runs a program of the machine with text on its standard input; `None` when it is not there.
fn through(program: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut pipe = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || drop(pipe.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it was written");
    let mut told = output.stdout;
    told.extend(output.stderr);
    Some((
        output.status.success(),
        String::from_utf8_lossy(&told).into_owned(),
    ))
}

#[test]
fn shells_accept_their_completions() {
    for (shell, check) in [
        ("bash", &["-n"][..]),
        ("zsh", &["-n"]),
        ("fish", &["--no-execute"]),
        ("elvish", &["-compileonly", "/dev/stdin"]),
        (
            "powershell",
            &[
                "-NoProfile",
                "-Command",
                "[scriptblock]::Create([Console]::In.ReadToEnd()) | Out-Null",
            ],
        ),
    ] {
        let script = run(&mut bk(&["completion", shell]));
        assert_eq!((script.code, &*script.err), (Some(0), ""), "{shell}");
        for word in ["build", "bake", "no-cache-filter", "docker-route"] {
            assert!(script.out.contains(word), "{word} for {shell}");
        }
        let program = if shell == "powershell" { "pwsh" } else { shell };
        match through(program, check, &script.out) {
            Some((fine, told)) => assert!(fine && told.is_empty(), "{shell}: {told}"),
            None => assert_ne!(shell, "bash", "bash is on every machine that tests this"),
        }
    }
    let ran = run(&mut bk(&["completion", "tcsh"]));
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err
            .contains("[possible values: bash, elvish, fish, powershell, zsh]"),
        "{}",
        ran.err
    );
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let script = run(&mut bk(&["completion", "bash"])).out;
    let ask = |words: &str, at: usize| {
        let asked = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={at}; _bk bk \"${{COMP_WORDS[{at}]}}\" \"${{COMP_WORDS[{}]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            at - 1
        );
        through("bash", &["--norc"], &asked).expect("bash").1
    };
    assert_eq!(ask("bk bu", 1), "build\n");
    assert_eq!(ask("bk ctx l", 2), "ls\nlint\n");
    assert_eq!(ask("bk build --no-cache-", 2), "--no-cache-filter\n");
    assert_eq!(ask("bk build --progress ord", 3), "ordered\n");
}

#[test]
fn there_is_a_page_for_each_command_and_man_reads_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pages = dir.path().join("new/man1");
    let ran = run(&mut bk(&["man", "--dir", text(&pages)]));
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), "", ""));
    let mut names: Vec<_> = fs::read_dir(&pages)
        .expect("a directory")
        .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    for name in ["bk.1", "bk-build.1", "bk-ctx.1", "bk-ctx-ls.1", "bk-completion.1"] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|n| n.contains("help")), "{names:?}");
    for name in &names {
        let page = fs::read_to_string(pages.join(name)).expect("a page");
        assert!(
            page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"),
            "{name}"
        );
        lint(&pages.join(name), &page);
    }
    let one = run(&mut bk(&["man", "ctx", "ls"]));
    assert_eq!(
        one.out,
        fs::read_to_string(pages.join("bk-ctx-ls.1")).expect("a page")
    );
    let ran = run(&mut bk(&["man", "biuld"]));
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err.starts_with(
            "ERROR: COMMAND: there is no command `biuld`\n  hint: COMMAND takes one of build, bake, ctx"
        ),
        "{}",
        ran.err
    );
}

/// What troff has to say about a page, where it is there.
fn lint(path: &Path, page: &str) {
    if let Some((fine, told)) = through("groff", &["-man", "-Tutf8", "-ww", "-z"], page) {
        assert!(fine && told.is_empty(), "{}: {told}", path.display());
    }
}
