//! What can go wrong with a private daemon, and how it looks as the failure of a build.

use std::{io, path::PathBuf};

use bk_build::{BuildError, InputError, LocalFailure};

/// Why there is no private daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// None of the programs is there that could be one.
    #[error("there is no daemon to start: {}", looked_for.join("; "))]
    NotInstalled {
        /// What was looked for, and why each does not do.
        looked_for: Vec<String>,
    },
    /// A program was named that cannot be one.
    #[error("`{}`: {why}", program.display())]
    Program {
        /// As it was named.
        program: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A directory or file of the daemon's state cannot be used.
    #[error("{}: {what}", path.display())]
    State {
        /// The directory or file.
        path: PathBuf,
        /// What was tried.
        what: String,
        /// The system's own error, when there is one.
        source: Option<io::Error>,
    },
    /// The daemon did not come up, or ended.
    #[error("the private {program} {reason}{}", shown(log))]
    Failed {
        /// Its name.
        program: String,
        /// What happened, for instance `ended with exit status: 1`.
        reason: String,
        /// The end of what it wrote.
        log: Vec<String>,
        /// Where the rest is.
        log_file: PathBuf,
    },
    /// This system has none.
    #[error("there are no private daemons on Windows")]
    Unsupported,
    /// Another kind of daemon runs on that state.
    #[error("a private {running} is running already, and {wanted} was asked for")]
    Other {
        /// The program that runs.
        running: String,
        /// The program that was asked for.
        wanted: String,
    },
    /// The process that looks after the daemon did not do its part.
    #[error("the keeper of the private daemon: {reason}")]
    Keeper {
        /// What happened.
        reason: String,
        /// Where it writes what else it has to say.
        log_file: PathBuf,
    },
}

fn shown(log: &[String]) -> String {
    match log {
        [] => String::new(),
        lines => format!("; its log ends with\n  {}", lines.join("\n  ")),
    }
}

impl DaemonError {
    pub(crate) fn state(path: impl Into<PathBuf>, what: impl Into<String>, source: io::Error) -> Self {
        Self::State {
            path: path.into(),
            what: what.into(),
            source: Some(source),
        }
    }

    /// What to do about it, when that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotInstalled { .. } => Some(
                "install buildkitd (and rootlesskit, when not root) or dockerd, or name a daemon with --addr"
                    .to_owned(),
            ),
            Self::Unsupported => Some("name a daemon with --addr".to_owned()),
            Self::Other { .. } => Some("stop it with `bk daemon stop`, or use it".to_owned()),
            Self::Failed { log_file, .. } => Some(format!("its whole log is {}", log_file.display())),
            Self::Keeper { log_file, .. } => Some(format!("see {}", log_file.display())),
            _ => None,
        }
    }
}

impl From<DaemonError> for BuildError {
    fn from(error: DaemonError) -> Self {
        let hint = error.hint();
        let path = match &error {
            DaemonError::Program { .. } => {
                let allowed = "the path of a buildkitd or dockerd, or its name in PATH";
                return InputError::new("--daemonless-program", error.to_string(), allowed).into();
            }
            DaemonError::State { .. } => None,
            _ => Some("--daemonless"),
        };
        let failure = match error {
            DaemonError::State { path, what, source } => {
                let failure = LocalFailure::new(path, what);
                match source {
                    Some(e) => failure.caused_by(e),
                    None => failure,
                }
            }
            other => LocalFailure::new(path.unwrap_or_default(), other.to_string()),
        };
        match hint {
            Some(hint) => failure.hint(hint).into(),
            None => failure.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_to_do() {
        let none = DaemonError::NotInstalled {
            looked_for: vec!["no buildkitd in PATH".to_owned(), "dockerd needs root".to_owned()],
        };
        let error = BuildError::from(none);
        assert_eq!(
            error.to_string(),
            "--daemonless: there is no daemon to start: no buildkitd in PATH; dockerd needs root"
        );
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.starts_with("install buildkitd"))
        );
        let failed = DaemonError::Failed {
            program: "dockerd".to_owned(),
            reason: "ended with exit status: 1".to_owned(),
            log: vec!["a".to_owned(), "b".to_owned()],
            log_file: "/c/daemon.log".into(),
        };
        let error = BuildError::from(failed);
        assert_eq!(
            error.to_string(),
            "--daemonless: the private dockerd ended with exit status: 1; its log ends with\n  a\n  b"
        );
        assert_eq!(error.hint().as_deref(), Some("its whole log is /c/daemon.log"));
        let odd = DaemonError::Program {
            program: "podman".into(),
            why: "is neither".to_owned(),
        };
        assert_eq!(
            BuildError::from(odd).to_string(),
            "--daemonless-program: `podman`: is neither"
        );
    }
}
