//! Named pipes of Windows.
//!
//! The rule: a pipe all of whose instances are taken is waited for; the caller sets the deadline.

use std::{io, time::Duration};

use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient};

/// `ERROR_PIPE_BUSY`.
const BUSY: i32 = 231;
/// How long to wait before a busy pipe is tried again. Windows wakes nobody who waits without blocking.
const AGAIN: Duration = Duration::from_millis(50);

/// Opens the pipe, for instance `//./pipe/docker_engine`.
pub(crate) async fn open(name: &str) -> io::Result<NamedPipeClient> {
    let name = name.replace('/', "\\");
    loop {
        match ClientOptions::new().open(&name) {
            Err(e) if e.raw_os_error() == Some(BUSY) => tokio::time::sleep(AGAIN).await, // sleep: Windows wakes nobody who waits for a pipe without blocking
            opened => return opened,
        }
    }
}
