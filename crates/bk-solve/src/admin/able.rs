//! What a daemon can do, as far as its version and its words tell.
//!
//! The rule: the table of what builds need is the one that refuses them, so this never promises what a build is refused.

use bk_build::{Able, BuilderInfo, Capability, Worker};

use crate::{
    requires::{BuildkitVersion, NEEDS, buildkit_of},
    solve::{is_of_engine, keeps_manifests},
};

/// What else came after BuildKit 0.8: a name, the version, the first engine.
const OTHERS: [(&str, BuildkitVersion, &str); 3] = [
    ("several --output", BuildkitVersion(0, 13), "26.0"),
    (HISTORY, BuildkitVersion(0, 11), "24.0"),
    ("prune --max-used-space", BuildkitVersion(0, 17), "28.0"),
];

const HISTORY: &str = "the build history";
/// What an engine with graph drivers cannot do, and others can.
const STORE: [&str; 3] = [
    "several platforms in one image",
    "archives of images (--output type=oci or docker)",
    "local caches (--cache-to type=local)",
];

/// What a daemon of that builder can do, as far as its version tells. Without asking it.
pub fn capabilities(info: &BuilderInfo) -> Vec<Capability> {
    by_version(buildkit_of(info), None)
}

/// The same for a daemon that was asked: whether it is known to be Docker Engine, whether it tells its version (BuildKit
/// 0.11), and which workers it has.
pub(super) fn of(
    line: Option<BuildkitVersion>,
    engine: bool,
    tells: bool,
    workers: &[Worker],
) -> Vec<Capability> {
    let mut all = by_version(line, Some(tells));
    if let Some(worker) = workers.first() {
        let has = |label: &str| worker.labels.contains_key(label);
        let keeps = keeps_manifests(engine || is_of_engine(&worker.id, has), has);
        all.extend(STORE.map(|name| {
            let able = match keeps {
                true => Able::Yes,
                false => Able::No("Docker Engine has this with its containerd image store only".to_owned()),
            };
            Capability::new(name, able)
        }));
    }
    all
}

fn by_version(line: Option<BuildkitVersion>, tells: Option<bool>) -> Vec<Capability> {
    let needs = NEEDS.iter().map(|need| (need.option, need.since, need.engine));
    let able = |name: &str, since: BuildkitVersion, engine: &str| match (line, tells) {
        // The history came together with the version.
        (_, Some(tells)) if name == HISTORY => match tells {
            true => Able::Yes,
            false => Able::No(format!("needs {since} (Docker Engine {engine})")),
        },
        (Some(has), _) if has >= since => Able::Yes,
        (Some(_), _) => Able::No(format!("needs {since} (Docker Engine {engine})")),
        (None, Some(false)) if since >= BuildkitVersion(0, 11) => {
            Able::No(format!("needs {since} (Docker Engine {engine})"))
        }
        (None, Some(true)) if since <= BuildkitVersion(0, 11) => Able::Yes,
        (None, _) => Able::Unknown(format!("needs {since}; the daemon does not say its version")),
    };
    needs
        .chain(OTHERS)
        .map(|(name, since, engine)| Capability::new(name, able(name, since, engine)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::{MOBY_LABEL, SNAPSHOTTER_LABEL};

    fn able(all: &[Capability], name: &str) -> Able {
        let found = all.iter().find(|c| c.name == name);
        found.unwrap_or_else(|| panic!("{name}")).able.clone()
    }

    #[test]
    fn what_is_told_follows_from_versions_and_answers() {
        let old = capabilities(&BuilderInfo::new("docker", "x").version("20.10.24"));
        let no = Able::No("needs BuildKit 0.10 (Docker Engine 23.0)".to_owned());
        assert_eq!(able(&old, "--shm-size"), no);
        let new = capabilities(&BuilderInfo::new("buildkitd", "x").version("v0.25.2"));
        assert_eq!(able(&new, "--shm-size"), Able::Yes);
        assert!(matches!(able(&new, "--memory and the other limits"), Able::No(_)));
        // Endpoints in front of an engine hide the version.
        let hidden = of(None, false, true, &[]);
        assert_eq!(
            (able(&hidden, HISTORY), able(&hidden, "--shm-size")),
            (Able::Yes, Able::Yes)
        );
        assert!(matches!(able(&hidden, "several --output"), Able::Unknown(_)));
        let hidden = of(None, false, false, &[]);
        assert!(matches!(able(&hidden, "several --output"), Able::No(_)));
        assert!(matches!(able(&hidden, "--shm-size"), Able::Unknown(_)));
    }

    #[test]
    fn graph_drivers_keep_no_manifests() {
        let mut worker = Worker::default();
        assert_eq!(
            able(&of(None, false, true, &[worker.clone()]), STORE[0]),
            Able::Yes
        );
        assert!(matches!(
            able(&of(None, true, true, &[worker.clone()]), STORE[0]),
            Able::No(_)
        ));
        worker.labels.insert(MOBY_LABEL.to_owned(), String::new());
        assert!(matches!(
            able(&of(None, false, true, &[worker.clone()]), STORE[0]),
            Able::No(_)
        ));
        worker
            .labels
            .insert(SNAPSHOTTER_LABEL.to_owned(), "overlayfs".to_owned());
        assert_eq!(able(&of(None, false, true, &[worker]), STORE[0]), Able::Yes);
    }
}
