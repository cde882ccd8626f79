//! What a bake file may have a build do without being asked: nothing beyond the current directory and the usual network.
//!
//! The rule: a bake file can come with someone else's sources. What it wants beyond that, the person who runs it has to allow
//! by name, as with `docker buildx bake`.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use bk_build::{InputError, NamedContext};

use crate::{Plan, Target, csv};

/// What is allowed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Allowed {
    /// Whether steps may use the network of the machine that builds.
    pub network_host: bool,
    /// Whether steps may be privileged.
    pub security_insecure: bool,
    /// Whether steps may use every device.
    pub all_devices: bool,
    /// Devices that steps may use.
    pub devices: Vec<String>,
    /// Files and directories that may be read, `*` for all.
    pub read: Vec<String>,
    /// Files and directories that may be written, `*` for all.
    pub write: Vec<String>,
    /// Whether the SSH agent of the environment may be forwarded.
    pub ssh: bool,
}

impl Allowed {
    /// From values of `--allow`.
    ///
    /// # Errors
    /// A value that is not known.
    pub fn parse(texts: &[impl AsRef<str>]) -> Result<Self, InputError> {
        const FORMS: &str = "network.host, security.insecure, device[=NAME], ssh, fs=PATH, fs.read=PATH or fs.write=PATH; PATH may be *";
        let mut allowed = Self::default();
        for text in texts {
            let text = text.as_ref();
            let bad = || {
                InputError::new(
                    "--allow",
                    format!("`{text}` is nothing that can be allowed"),
                    FORMS,
                )
            };
            match text.split_once('=') {
                None => match text {
                    "network.host" => allowed.network_host = true,
                    "security.insecure" => allowed.security_insecure = true,
                    "device" => allowed.all_devices = true,
                    "ssh" => allowed.ssh = true,
                    _ => return Err(bad()),
                },
                Some((_, "")) => return Err(bad()),
                Some((key, value)) => match key {
                    "device" => allowed.devices.push(device(value)?),
                    "fs.read" => allowed.read.push(value.to_owned()),
                    "fs.write" => allowed.write.push(value.to_owned()),
                    "fs" => {
                        allowed.read.push(value.to_owned());
                        allowed.write.push(value.to_owned());
                    }
                    _ => return Err(bad()),
                },
            }
        }
        Ok(allowed)
    }

    /// What the targets want beyond what is allowed, as values of `--allow`, sorted. What is below `cwd`, the current
    /// directory, is always allowed. Links are followed; what is not there yet is judged by the directory that is.
    ///
    /// # Errors
    /// An entitlement that has no meaning.
    pub fn missing(&self, plan: &Plan, cwd: &Path) -> Result<Vec<String>, InputError> {
        let (mut wanted, mut read, mut write) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for target in plan.targets.values() {
            for entitlement in &target.entitlements {
                let allowed = match entitlement.split_once('=') {
                    None => match &**entitlement {
                        "network.host" => self.network_host,
                        "security.insecure" => self.security_insecure,
                        "device" => self.all_devices,
                        _ => true,
                    },
                    Some(("device", value)) => self.all_devices || self.devices.contains(&device(value)?),
                    Some(_) => true,
                };
                if !allowed {
                    wanted.insert(entitlement.clone());
                }
            }
            if !self.ssh && target.ssh.iter().any(|s| s.paths.is_empty()) {
                wanted.insert("ssh".to_owned());
            }
            files(target, &mut read, &mut write);
        }
        let lacking = |of: BTreeSet<PathBuf>, allowed: &[String]| -> BTreeSet<PathBuf> {
            if allowed.iter().any(|a| a == "*") {
                return BTreeSet::new();
            }
            let mut below: Vec<PathBuf> = allowed.iter().map(|a| real(&cwd.join(a))).collect();
            below.push(real(cwd));
            of.into_iter()
                .map(|path| real(&cwd.join(path)))
                .filter(|path| !below.iter().any(|dir| path.starts_with(dir)))
                .collect()
        };
        let (read, write) = (lacking(read, &self.read), lacking(write, &self.write));
        for path in read.union(&write) {
            let key = match (read.contains(path), write.contains(path)) {
                (true, true) => "fs",
                (true, false) => "fs.read",
                _ => "fs.write",
            };
            wanted.insert(format!("{key}={}", path.display()));
        }
        Ok(wanted.into_iter().collect())
    }
}

/// The name of a device in front of its options.
fn device(value: &str) -> Result<String, InputError> {
    Ok(csv::fields("--allow", value)?
        .into_iter()
        .next()
        .unwrap_or_default())
}

/// The files of this machine that a target reads and writes.
fn files(target: &Target, read: &mut BTreeSet<PathBuf>, write: &mut BTreeSet<PathBuf>) {
    let local = |text: &str| -> Option<PathBuf> {
        let path = text.strip_prefix("cwd://").unwrap_or(text);
        match NamedContext::parse(path) {
            Ok(NamedContext::Dir(path) | NamedContext::File(path)) => Some(path),
            Ok(NamedContext::OciLayout(layout)) => Some(layout.dir),
            // What is no context is an error elsewhere; the rest is not on this machine.
            _ => None,
        }
    };
    if let Some(context) = target.context.as_deref().and_then(local) {
        if let Some(dockerfile) = target
            .dockerfile
            .as_deref()
            .filter(|_| target.dockerfile_inline.is_none())
        {
            read.insert(match dockerfile.strip_prefix("cwd://") {
                Some(path) => path.into(),
                None => context.join(dockerfile),
            });
        }
        read.insert(context);
    }
    read.extend(target.contexts.values().filter_map(|value| local(value)));
    let paths = |text: &String| PathBuf::from(text);
    read.extend(
        target
            .secret
            .iter()
            .map(|s| &s.src)
            .filter(|s| !s.is_empty())
            .map(paths),
    );
    read.extend(target.ssh.iter().flat_map(|s| &s.paths).map(paths));
    let local = |c: &&crate::CacheEntry| c.kind == "local";
    read.extend(
        target
            .cache_from
            .iter()
            .filter(local)
            .filter_map(|c| c.attrs.get("src"))
            .map(paths),
    );
    write.extend(
        target
            .cache_to
            .iter()
            .filter(local)
            .filter_map(|c| c.attrs.get("dest"))
            .map(paths),
    );
    let to_file = |dest: &&String| !dest.is_empty() && *dest != "-";
    write.extend(target.output.iter().map(|o| &o.dest).filter(to_file).map(paths));
}

/// The path with its links followed, as far as there is something.
fn real(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut at = path;
    loop {
        if let Ok(found) = at.canonicalize() {
            let mut whole = found;
            for part in rest.iter().rev() {
                match part {
                    Component::ParentDir => drop(whole.pop()),
                    Component::Normal(name) => whole.push(name),
                    _ => {}
                }
            }
            return whole;
        }
        let (Some(parent), Some(last)) = (at.parent(), at.components().next_back()) else {
            return path.to_owned();
        };
        rest.push(last);
        at = parent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Definition, File, Variables};

    fn plan(text: &str) -> Plan {
        let variables = Variables::default();
        let file = File::new("b.json", text);
        let definition = Definition::parse(&[file], &variables).expect("a definition");
        definition.plan(&["*"], &[], &variables).expect("a plan")
    }

    #[test]
    fn what_leaves_the_directory_has_to_be_allowed() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("there");
        let cwd = root.join("in");
        std::fs::create_dir_all(cwd.join("sub")).expect("writable");
        std::fs::create_dir(root.join("out")).expect("writable");
        std::os::unix::fs::symlink("../out", cwd.join("link")).expect("writable");
        let plan = plan(
            r#"{"target": {
                "inside": {"context": "sub", "contexts": {"a": "sub/../sub", "b": "docker-image://x", "c": "https://h/x.git", "d": "target:outside"},
                           "output": ["type=local,dest=new/dir", "type=image"], "secret": ["id=a,src=sub/s", "id=b,env=X"]},
                "outside": {"context": "..", "dockerfile": "cwd://Dockerfile", "contexts": {"l": "link/x", "o": "oci-layout://../lay:1"}, "ssh": ["default"],
                            "output": [{"type": "tar", "dest": "../out/x.tar"}, {"type": "tar", "dest": "-"}],
                            "cache-to": ["type=local,dest=../cache"], "network": "host",
                            "entitlements": ["security.insecure", "device=v/c=d"]}
            }}"#,
        );
        let missing = |texts: &[&str]| {
            let allowed = Allowed::parse(texts).expect("known");
            allowed.missing(&plan, &cwd).expect("known")
        };
        let shown = root.display();
        assert_eq!(
            missing(&[]),
            [
                "device=v/c=d".to_owned(),
                format!("fs.read={shown}"),
                format!("fs.read={shown}/lay"),
                format!("fs.read={shown}/out/x"),
                format!("fs.write={shown}/cache"),
                format!("fs.write={shown}/out/x.tar"),
                "network.host".to_owned(),
                "security.insecure".to_owned(),
                "ssh".to_owned(),
            ]
        );
        let all = ["fs=..", "network.host", "security.insecure", "ssh", "device"];
        assert!(missing(&all).is_empty());
        let stars = [
            "fs.read=*",
            "fs.write=../out",
            "network.host",
            "security.insecure",
            "ssh",
            "device=v/c=d",
        ];
        assert_eq!(missing(&stars), [format!("fs.write={shown}/cache")]);
        for bad in ["", "fs", "fs=", "network", "image.push=x"] {
            assert!(Allowed::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
