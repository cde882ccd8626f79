//! Cleaning up however this program ends.
//!
//! A guard is a second process in a session of its own that waits for the end of a pipe and then runs another job of
//! this program. The pipe ends when the guard is closed, and also when this program dies: of an error, of Ctrl-C, of
//! SIGKILL. So there is one clean-up, and no signal handler.

use crate::run::Result;
use std::io::Read;
use std::process::{Child, Command, Stdio};

/// The hidden job that a guard runs: waits, then returns so that `main` runs the job in the rest of its arguments.
pub(crate) const JOB: &str = "__when-input-ends";

/// A clean-up that is sure to happen.
pub(crate) struct Guard {
    child: Child,
}

impl Guard {
    /// Arranges that `cargo xtask <arguments>` runs when this value is closed, or else when this program ends.
    pub(crate) fn new(arguments: &[String]) -> Result<Guard> {
        let child = Command::new("setsid")
            .arg(std::env::current_exe()?)
            .arg(JOB)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start the guard: {e}"))?;
        Ok(Guard { child })
    }

    /// Runs the clean-up now and fails when it fails.
    pub(crate) fn close(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the clean-up failed: {status}").into())
        }
    }
}

/// Returns when the program at the other end of the pipe is done.
pub(crate) fn wait() {
    // Nothing is ever sent: whatever this returns, there is nobody left to wait for.
    let _ = std::io::stdin().read(&mut [0]);
}
