//! When a private daemon is started, which one, and what builds on it are told.
//!
//! The rule: nobody gets one by surprise. Without being asked for it is started only when no daemon was named, none
//! answers, and a program is there that can be one; and then it is said.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bk_build::{BuildError, BuildRequest, LocalFailure, Network};
use bk_daemon::{DaemonError, DaemonFacts, Keeper, Kind, Layout, Lease, PrivateDaemon, Program, is_root};

use crate::{ConnectOptions, Environment};

/// Who is told which program is about to be used.
type Notice = Arc<dyn Fn(&Program) + Send + Sync>;

/// How a private daemon is started: which program, when, and for how long.
#[derive(Clone)]
pub struct Daemonless {
    keeper: Keeper,
    always: bool,
    program: Option<PathBuf>,
    idle: Option<Duration>,
    notice: Option<Notice>,
}

impl Daemonless {
    /// A private daemon, kept by that process, when no daemon is named and none answers: the `buildkitd` (with
    /// `rootlesskit`, when not root) or else the `dockerd` that `PATH` has.
    pub fn new(keeper: Keeper) -> Self {
        Self {
            keeper,
            always: false,
            program: None,
            idle: None,
            notice: None,
        }
    }

    /// Sets whether it is used without looking for any other; the default is no.
    #[must_use]
    pub fn always(mut self, yes: bool) -> Self {
        self.always = yes;
        self
    }

    /// Sets the program: the path of a buildkitd or dockerd, or its name in `PATH`. Default: what is there.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Sets how long it stays after its last use; the default is [`bk_daemon::limits::IDLE`], and at most it is
    /// [`bk_daemon::limits::MAX_IDLE`].
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// Sets who is told that it is used although nobody asked for it; the default is nobody.
    #[must_use]
    pub fn notice(mut self, tell: impl Fn(&Program) + Send + Sync + 'static) -> Self {
        self.notice = Some(Arc::new(tell));
        self
    }

    pub(crate) fn is_always(&self) -> bool {
        self.always
    }

    fn find(&self, environment: &Environment) -> Result<Program, DaemonError> {
        let search = environment.search_path.as_deref();
        match &self.program {
            Some(program) => Program::named(program, search, is_root()),
            None => Program::find(search, is_root()),
        }
    }

    fn daemon(&self, layout: Layout, program: Program) -> PrivateDaemon {
        let daemon = PrivateDaemon::new(layout, program, self.keeper.clone()).insists(self.program.is_some());
        match self.idle {
            Some(idle) => daemon.idle(idle),
            None => daemon,
        }
    }

    /// A lease, as somebody asked for.
    pub(crate) async fn lease(&self, options: &ConnectOptions) -> Result<Lease, BuildError> {
        let environment = options.the_environment();
        let program = self.find(environment)?;
        let layout = private_layout(environment).ok_or_else(|| {
            LocalFailure::new("--daemonless", "there is no directory for a private daemon")
                .hint("set HOME or XDG_CACHE_HOME")
        })?;
        Ok(self.daemon(layout, program).lease().await?)
    }

    /// A lease because nothing else answers; nothing when there is no program or no place for it.
    pub(crate) async fn lease_instead(&self, options: &ConnectOptions) -> Result<Option<Lease>, BuildError> {
        let environment = options.the_environment();
        let program = match self.find(environment) {
            Ok(program) => program,
            // What somebody named has to be there.
            Err(e) if self.program.is_some() => return Err(e.into()),
            Err(_) => return Ok(None),
        };
        let Some(layout) = private_layout(environment) else {
            return Ok(None);
        };
        if let Some(tell) = &self.notice {
            tell(&program);
        }
        Ok(Some(self.daemon(layout, program).lease().await?))
    }
}

impl fmt::Debug for Daemonless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemonless")
            .field("keeper", &self.keeper)
            .field("always", &self.always)
            .field("program", &self.program)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// Where the private daemon of this environment's user is; nothing without a directory for caches.
pub fn private_layout(environment: &Environment) -> Option<Layout> {
    let state = environment.cache_dir.as_ref()?.join("bk/daemon");
    let short = match is_root() {
        true => Some(Path::new("/run")),
        false => environment.runtime_dir.as_deref(),
    };
    Some(Layout::new(state, short))
}

/// What a build on a private daemon needs: a dockerd without a network of its own gives steps that of the machine, as a
/// buildkitd does.
pub(crate) fn complete(daemon: &DaemonFacts, request: &mut BuildRequest) {
    if daemon.kind == Kind::Dockerd && request.steps.network == Network::Default {
        request.steps.network = Network::Host;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect_with;

    fn options(environment: Environment, how: Daemonless) -> ConnectOptions {
        ConnectOptions::new().environment(environment).daemonless(how)
    }

    fn nobody() -> Daemonless {
        Daemonless::new(Keeper::new("/nonexistent/keeper", &[]))
    }

    #[tokio::test]
    async fn what_is_missing_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut environment = Environment::empty();
        environment.search_path = Some(dir.path().into());
        let always = nobody().always(true);
        let e = connect_with(options(environment.clone(), always.clone()))
            .await
            .expect_err("none");
        let text = "--daemonless: there is no daemon to start: there is no `buildkitd` in PATH; there is no `dockerd` in PATH";
        assert_eq!(e.to_string(), text);
        let named = nobody().program("podman");
        let e = connect_with(options(environment.clone(), named.always(true)))
            .await
            .expect_err("none");
        assert_eq!(
            e.to_string(),
            "--daemonless-program: `podman`: its name says neither buildkitd nor dockerd"
        );
    }

    #[test]
    fn its_place_is_below_the_cache() {
        let mut environment = Environment::empty();
        assert_eq!(private_layout(&environment), None);
        environment.cache_dir = Some("/home/me/.cache".into());
        let layout = private_layout(&environment).expect("a place");
        assert_eq!(layout.state(), Path::new("/home/me/.cache/bk/daemon"));
    }
}
