//! Files of this machine that could not be sent: what failed, and what to do about it.
//!
//! The rule: every way on which files leave (a session, an archive, an upload) says it in the same words.

use std::{io, path::PathBuf};

use bk_build::LocalFailure;
use bk_fsync::read::FileFault;

use crate::service::stream::chain;

/// A file that was listed and could not be sent.
pub(crate) fn unsent(path: PathBuf, fault: FileFault) -> LocalFailure {
    let advice = match &fault {
        FileFault::Open(e) | FileFault::Read(e) => access(e),
        FileFault::NotRegular
        | FileFault::SizeChanged { .. }
        | FileFault::ChangedSinceListed
        | FileFault::ChangedWhileRead => Some(
            "something writes to it during the build; leave it out with the ignore file, or see --on-change",
        ),
        _ => None,
    };
    let mut failure = LocalFailure::new(path, chain(&fault)).caused_by(fault);
    failure.hint = advice.map(str::to_owned);
    failure
}

/// What could not be listed or opened; `action` is what was tried.
pub(crate) fn unreadable(path: PathBuf, action: &str, error: io::Error) -> LocalFailure {
    let advice = access(&error);
    let mut failure = LocalFailure::new(path, format!("cannot {action}: {error}")).caused_by(error);
    failure.hint = advice.map(str::to_owned);
    failure
}

/// What to do about a file that cannot be read.
pub(crate) fn access(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Some("make it readable for the user who builds, or leave it out with the ignore file")
        }
        io::ErrorKind::NotFound => {
            Some("something removed it during the build; build again, or leave it out with the ignore file")
        }
        _ => None,
    }
}
