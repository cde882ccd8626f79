//! Which program is the daemon, and with which arguments it is private.
//!
//! The rule: a private daemon changes nothing of the machine's network and shares no socket, directory or containerd
//! namespace with a daemon of the system.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use crate::{
    DaemonError, Layout,
    host::{is_executable, supported},
};

/// The programs that are looked for.
const BUILDKITD: &str = "buildkitd";
const DOCKERD: &str = "dockerd";
const ROOTLESSKIT: &str = "rootlesskit";

/// What kind of daemon a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// A standalone buildkitd.
    Buildkitd,
    /// Docker Engine.
    Dockerd,
}

impl Kind {
    /// The usual name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Buildkitd => BUILDKITD,
            Self::Dockerd => DOCKERD,
        }
    }
}

/// A program that can be the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    kind: Kind,
    path: PathBuf,
    rootlesskit: Option<PathBuf>,
}

impl Program {
    /// Looks for one in the directories of `search`, a value as of `PATH`: `buildkitd`, for users other than root with
    /// `rootlesskit`; else `dockerd`, for root only.
    ///
    /// # Errors
    /// [`DaemonError::NotInstalled`] says what was looked for; [`DaemonError::Unsupported`] on Windows.
    pub fn find(search: Option<&OsStr>, root: bool) -> Result<Self, DaemonError> {
        supported()?;
        let mut looked_for = Vec::new();
        match (look_up(BUILDKITD, search), look_up(ROOTLESSKIT, search)) {
            (None, _) => looked_for.push("there is no `buildkitd` in PATH".to_owned()),
            (Some(path), _) if root => return Ok(Self::new(Kind::Buildkitd, path, None)),
            (Some(path), Some(kit)) => return Ok(Self::new(Kind::Buildkitd, path, Some(kit))),
            (Some(path), None) => looked_for.push(format!(
                "{} needs `rootlesskit` when not started by root, which is not in PATH",
                path.display()
            )),
        }
        match look_up(DOCKERD, search) {
            None => looked_for.push("there is no `dockerd` in PATH".to_owned()),
            Some(path) if root => return Ok(Self::new(Kind::Dockerd, path, None)),
            Some(path) => looked_for.push(format!("{} can only be started by root", path.display())),
        }
        Err(DaemonError::NotInstalled { looked_for })
    }

    /// The program that somebody named: a path, or a name in `search`. What it is, its file name says: it must hold
    /// `buildkitd` or `dockerd`.
    ///
    /// # Errors
    /// [`DaemonError::Program`] when it is not there or neither, or when it needs root;
    /// [`DaemonError::NotInstalled`] when `rootlesskit` is missing; [`DaemonError::Unsupported`] on Windows.
    pub fn named(program: &Path, search: Option<&OsStr>, root: bool) -> Result<Self, DaemonError> {
        supported()?;
        let bad = |why: &str| DaemonError::Program {
            program: program.to_owned(),
            why: why.to_owned(),
        };
        let name = program
            .file_name()
            .map(OsStr::to_string_lossy)
            .unwrap_or_default();
        let kind = match (name.contains(BUILDKITD), name.contains(DOCKERD)) {
            (true, _) => Kind::Buildkitd,
            (_, true) => Kind::Dockerd,
            _ => return Err(bad("its name says neither buildkitd nor dockerd")),
        };
        let path = match program.components().count() {
            1 => look_up(&name, search).ok_or_else(|| bad("there is no such program in PATH"))?,
            _ if is_program(program) => std::path::absolute(program).map_err(|e| bad(&e.to_string()))?,
            _ => return Err(bad("there is no such program")),
        };
        match (kind, root) {
            (_, true) => Ok(Self::new(kind, path, None)),
            (Kind::Dockerd, false) => Err(bad("dockerd can only be started by root")),
            (Kind::Buildkitd, false) => match look_up(ROOTLESSKIT, search) {
                Some(kit) => Ok(Self::new(kind, path, Some(kit))),
                None => Err(DaemonError::NotInstalled {
                    looked_for: vec![format!(
                        "{} needs `rootlesskit` when not started by root, which is not in PATH",
                        path.display()
                    )],
                }),
            },
        }
    }

    /// A program whose kind and paths are known. With `rootlesskit` it runs inside of that.
    pub fn new(kind: Kind, path: impl Into<PathBuf>, rootlesskit: Option<PathBuf>) -> Self {
        Self {
            kind,
            path: path.into(),
            rootlesskit,
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The program that gives it a user namespace.
    pub fn rootlesskit(&self) -> Option<&Path> {
        self.rootlesskit.as_deref()
    }

    /// The socket on which it listens.
    pub(crate) fn socket(&self, layout: &Layout) -> PathBuf {
        layout.run().join(match self.kind {
            Kind::Buildkitd => "buildkitd.sock",
            Kind::Dockerd => "docker.sock",
        })
    }

    /// The file of its configuration, which is empty so that none of the system's is read.
    pub(crate) fn configuration(&self, layout: &Layout) -> Option<PathBuf> {
        (self.kind == Kind::Dockerd).then(|| layout.state().join("dockerd.json"))
    }

    /// What is started, and with which arguments.
    pub(crate) fn command(&self, layout: &Layout) -> (PathBuf, Vec<OsString>) {
        let path = |name: &str, path: PathBuf| -> [OsString; 2] { [name.into(), path.into()] };
        let address = || {
            let mut address = OsString::from("unix://");
            address.push(self.socket(layout));
            address
        };
        let mut arguments: Vec<OsString> = Vec::new();
        match self.kind {
            Kind::Buildkitd => {
                arguments.extend(path("--root", layout.state().join("buildkit")));
                arguments.extend(["--addr".into(), address()]);
                // One of the system may be there, and is not ours.
                arguments.push("--containerd-worker=false".into());
            }
            Kind::Dockerd => {
                if let Some(file) = self.configuration(layout) {
                    arguments.extend(path("--config-file", file));
                }
                arguments.extend(["--host".into(), address()]);
                arguments.extend(path("--data-root", layout.state().join("docker")));
                arguments.extend(path("--exec-root", layout.run().join("exec")));
                arguments.extend(path("--pidfile", layout.run().join("docker.pid")));
                let fixed = [
                    "--bridge=none",
                    "--iptables=false",
                    "--ip6tables=false",
                    "--ip-forward=false",
                    "--ip-masq=false",
                    "--containerd-namespace=bk",
                    "--containerd-plugins-namespace=bk-plugins",
                    "--shutdown-timeout=5",
                ];
                arguments.extend(fixed.map(OsString::from));
            }
        }
        let Some(kit) = &self.rootlesskit else {
            return (self.path.clone(), arguments);
        };
        let mut outer = Vec::from(path("--state-dir", layout.run().join("rootlesskit")));
        outer.push(self.path.clone().into());
        outer.extend(arguments);
        (kit.clone(), outer)
    }
}

/// The first program of that name.
fn look_up(name: &str, search: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(search?)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && is_executable(&found))
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn dir_with(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for name in names {
            fs::write(dir.path().join(name), "#!/bin/sh\n").expect("writable");
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).expect("ours");
        }
        dir
    }

    #[test]
    fn buildkitd_comes_first_and_not_root_needs_rootlesskit() {
        let all = dir_with(&["buildkitd", "dockerd", "rootlesskit"]);
        let search = Some(all.path().as_os_str());
        let found = Program::find(search, true).expect("found");
        assert_eq!((found.kind(), found.rootlesskit()), (Kind::Buildkitd, None));
        let found = Program::find(search, false).expect("found");
        assert_eq!(found.rootlesskit(), Some(&*all.path().join("rootlesskit")));

        let docker = dir_with(&["dockerd"]);
        let search = Some(docker.path().as_os_str());
        assert_eq!(Program::find(search, true).expect("found").kind(), Kind::Dockerd);
        let error = Program::find(search, false).expect_err("not root").to_string();
        let path = docker.path().join("dockerd");
        assert_eq!(
            error,
            format!(
                "there is no daemon to start: there is no `buildkitd` in PATH; {} can only be started by root",
                path.display()
            )
        );
        let bare = dir_with(&["buildkitd"]);
        let error = Program::find(Some(bare.path().as_os_str()), false).expect_err("no kit");
        assert!(error.to_string().contains("needs `rootlesskit`"), "{error}");
        assert_eq!(
            Program::find(None, true).expect_err("nothing").to_string(),
            "there is no daemon to start: there is no `buildkitd` in PATH; there is no `dockerd` in PATH"
        );
    }

    #[test]
    fn a_named_program_is_what_its_name_says() {
        let dir = dir_with(&["my-buildkitd-v0.20", "podman"]);
        let search = Some(dir.path().as_os_str());
        let found = Program::named(Path::new("my-buildkitd-v0.20"), search, true).expect("found");
        assert_eq!(found.kind(), Kind::Buildkitd);
        for (name, why) in [
            ("podman", "its name says neither buildkitd nor dockerd"),
            ("dockerd", "there is no such program in PATH"),
            ("/nonexistent/dockerd", "there is no such program"),
        ] {
            let error = Program::named(Path::new(name), search, true).expect_err(name);
            assert_eq!(error.to_string(), format!("`{name}`: {why}"));
        }
    }

    #[test]
    fn arguments_are_exact() {
        let layout = Layout::of("/c/bk/daemon", "/c/bk/daemon/run");
        let line = |program: &Program| {
            let (path, arguments) = program.command(&layout);
            let words = arguments.iter().map(|a| a.to_string_lossy().into_owned());
            std::iter::once(path.display().to_string())
                .chain(words)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            line(&Program::new(Kind::Buildkitd, "/b/buildkitd", None)),
            "/b/buildkitd --root /c/bk/daemon/buildkit --addr unix:///c/bk/daemon/run/buildkitd.sock \
             --containerd-worker=false"
        );
        assert_eq!(
            line(&Program::new(
                Kind::Buildkitd,
                "/b/buildkitd",
                Some("/b/rootlesskit".into())
            )),
            "/b/rootlesskit --state-dir /c/bk/daemon/run/rootlesskit /b/buildkitd --root /c/bk/daemon/buildkit --addr \
             unix:///c/bk/daemon/run/buildkitd.sock --containerd-worker=false"
        );
        assert_eq!(
            line(&Program::new(Kind::Dockerd, "/b/dockerd", None)),
            "/b/dockerd --config-file /c/bk/daemon/dockerd.json --host unix:///c/bk/daemon/run/docker.sock --data-root \
             /c/bk/daemon/docker --exec-root /c/bk/daemon/run/exec --pidfile /c/bk/daemon/run/docker.pid --bridge=none \
             --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --containerd-namespace=bk \
             --containerd-plugins-namespace=bk-plugins --shutdown-timeout=5"
        );
    }
}
