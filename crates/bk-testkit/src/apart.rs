//! A runtime of its own for everything that stands in for a daemon, so that a test can count the tasks of the client
//! alone and a busy client does not slow the daemon's answers down.

use std::{future::Future, sync::OnceLock};

use tokio::runtime::{EnterGuard, Runtime};

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let built = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bk-testkit")
            .enable_all()
            .build();
        built.unwrap_or_else(|e| panic!("no runtime for the test support: {e}"))
    })
}

/// Makes sockets belong to that runtime while the guard lives.
pub(crate) fn enter() -> EnterGuard<'static> {
    runtime().enter()
}

/// Runs a task there.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    runtime().spawn(task);
}
