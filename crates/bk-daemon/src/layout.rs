//! Where a private daemon keeps what it has: its state, its lock, its logs and its sockets.
//!
//! The rule: directories belong to this user and nobody else may look into them. A socket in there is root on this
//! machine.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::{DaemonError, host::private_dir, limits};

/// The directories of one private daemon. Nothing is made before it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    state: PathBuf,
    run: PathBuf,
}

impl Layout {
    /// State below `state`, an absolute path, for instance `~/.cache/bk/daemon`. Sockets are in `run` below it; where that
    /// would be too long for a socket they are in a directory of `short` (for instance `/run/user/1000`), when there is one.
    pub fn new(state: impl Into<PathBuf>, short: Option<&Path>) -> Self {
        let state = state.into();
        let run = state.join("run");
        let run = match short {
            Some(short) if run.as_os_str().len() > limits::RUN_PATH => {
                let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
                let name: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
                short.join(format!("bk-{name}"))
            }
            _ => run,
        };
        Self { state, run }
    }

    /// The layout of a keeper that was told both directories.
    pub fn of(state: impl Into<PathBuf>, run: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            run: run.into(),
        }
    }

    /// The directory of everything that stays.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory of sockets.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// What the daemon writes.
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// What the keeper writes.
    pub fn keeper_log(&self) -> PathBuf {
        self.state.join("keeper.log")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.state.join("daemon.json")
    }

    pub(crate) fn keeper_socket(&self) -> PathBuf {
        self.run.join("keeper.sock")
    }

    /// Makes both directories, for this user alone.
    pub(crate) fn make(&self) -> Result<(), DaemonError> {
        if !self.state.is_absolute() || !self.run.is_absolute() {
            let path = self.state.clone();
            let what = "the directory of a private daemon must be an absolute path".to_owned();
            return Err(DaemonError::State {
                path,
                what,
                source: None,
            });
        }
        if self.run.as_os_str().len() > limits::RUN_PATH {
            let what = format!(
                "this path is longer than the {} bytes that sockets allow; set XDG_CACHE_HOME or XDG_RUNTIME_DIR to a \
                 shorter one",
                limits::RUN_PATH
            );
            return Err(DaemonError::State {
                path: self.run.clone(),
                what,
                source: None,
            });
        }
        private_dir(&self.state)?;
        private_dir(&self.run)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    };

    use super::*;

    #[test]
    fn sockets_have_short_paths() {
        let layout = Layout::new("/home/me/.cache/bk/daemon", Some(Path::new("/run/user/7")));
        assert_eq!(layout.run(), Path::new("/home/me/.cache/bk/daemon/run"));
        let long = format!("/home/{}/.cache/bk/daemon", "x".repeat(60));
        let layout = Layout::new(&long, Some(Path::new("/run/user/7")));
        assert_eq!(layout.run().parent(), Some(Path::new("/run/user/7")));
        assert_eq!(layout, Layout::new(&long, Some(Path::new("/run/user/7"))));
        let error = Layout::new(&long, None).make().expect_err("too long").to_string();
        assert!(error.contains("longer than the 62 bytes"), "{error}");
    }

    #[test]
    fn directories_are_closed_to_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path().join("a/daemon"), None);
        fs::create_dir_all(layout.state()).expect("made");
        fs::set_permissions(layout.state(), fs::Permissions::from_mode(0o755)).expect("ours");
        layout.make().expect("made");
        for dir in [layout.state(), layout.run()] {
            assert_eq!(fs::metadata(dir).expect("there").mode() & 0o777, 0o700);
        }
        fs::remove_dir(layout.run()).expect("empty");
        std::os::unix::fs::symlink("/tmp", layout.run()).expect("a link");
        let error = layout.make().expect_err("a link is no directory").to_string();
        assert!(error.contains("belongs to this user"), "{error}");
    }
}
