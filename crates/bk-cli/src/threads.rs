//! The threads on which commands talk to daemons: as many as [`limits::WORKER_THREADS`] for every command.

use bk_client::{BuildError, LocalFailure};
use tokio::runtime::{Builder, Runtime};

use crate::limits;

/// Starts them; a system that has none left is told as such.
pub(crate) fn start() -> Result<Runtime, BuildError> {
    let started = Builder::new_multi_thread()
        .worker_threads(limits::WORKER_THREADS)
        .enable_all()
        .build();
    started.map_err(|e| {
        LocalFailure::new("bk", "cannot start its threads")
            .caused_by(e)
            .into()
    })
}
