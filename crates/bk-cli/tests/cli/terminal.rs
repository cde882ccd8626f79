//! The binary on a pseudo-terminal: `auto` draws in place, and gives the terminal back.

use std::{fs::File, io::Read as _, process::Stdio};

use bk_testkit::fake::Script;
use nix::pty::{Winsize, openpty};

use super::{
    context,
    fake::{GOOD, build, fake},
};

/// What stands on a terminal of 100 by 30 after `bk build` with these flags, and its exit code.
fn on_terminal(
    dockerfile: &str,
    flags: &[&str],
    variables: &[(&str, &str)],
) -> (Option<i32>, vt100::Parser, Vec<u8>) {
    let (daemon, dir) = (fake(Script::healthy()), context(dockerfile));
    let size = Winsize {
        ws_row: 30,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pair = openpty(Some(&size), None).expect("a pseudo-terminal");
    let mut command = build(&daemon, dir.path(), flags);
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    command.envs(variables.iter().copied());
    command.stdout(Stdio::null()).stderr(Stdio::from(pair.slave));
    let mut child = command.spawn().expect("bk starts");
    // The last handle on the other side is the child's.
    drop(command);
    let mut drawn = Vec::new();
    let mut buffer = [0; 4096];
    let mut source = File::from(pair.master);
    // A terminal whose other side is closed is an input error on Linux.
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        drawn.extend_from_slice(&buffer[..count]);
    }
    let code = child.wait().expect("it ends").code();
    let mut parser = vt100::Parser::new(30, 100, 0);
    parser.process(&drawn);
    (code, parser, drawn)
}

#[test]
fn a_terminal_is_drawn_on_in_place() {
    let (code, parser, drawn) = on_terminal(GOOD, &["-t", "app:1"], &[]);
    let screen = parser.screen().contents();
    assert_eq!(code, Some(0), "{screen}");
    let first = screen.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("[+] Building ") && first.contains(" FINISHED"),
        "{screen}"
    );
    assert!(screen.contains("] RUN echo one  "), "{screen}");
    assert!(
        screen.lines().last().is_some_and(|l| l.contains(" cached, ")),
        "{screen}"
    );
    assert!(!parser.screen().hide_cursor());
    assert!(drawn.windows(5).any(|w| w == b"\x1b[34m"), "colours");
}

#[test]
fn a_failure_stands_below_and_colours_can_be_turned_off() {
    let dockerfile = "FROM scratch\nCOPY sh /bin/sh\nRUN echo oh && exit 3\n";
    let (code, parser, drawn) = on_terminal(dockerfile, &[], &[("NO_COLOR", "1")]);
    let screen = parser.screen().contents();
    assert_eq!(code, Some(1), "{screen}");
    assert!(
        screen.contains(" FAILED") && screen.contains(" => ERROR "),
        "{screen}"
    );
    assert!(
        screen.contains("RUN echo oh && exit 3:\noh\n------\n"),
        "{screen}"
    );
    assert!(screen.contains(">>> RUN echo oh && exit 3"), "{screen}");
    assert!(!drawn.windows(3).any(|w| w == b"\x1b[3"), "no colour");
    assert!(!parser.screen().hide_cursor());
}

#[test]
fn a_dumb_terminal_gets_lines() {
    let (code, _, drawn) = on_terminal(GOOD, &[], &[("TERM", "dumb")]);
    assert_eq!(code, Some(0));
    assert!(drawn.starts_with(b"#0 building with "));
    assert!(!drawn.contains(&0x1b));
}
