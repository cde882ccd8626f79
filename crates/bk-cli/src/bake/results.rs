//! Targets that use the results of others: who has to wait for whom, and how a result gets from one to the other.
//!
//! The rule: a result is an OCI layout in a directory of this run, which is gone when the run is over. The daemon sends it
//! once and fetches of it what it lacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use bk_bake::Plan;
use bk_client::{BuildError, BuildRequest, LocalFailure, NamedContext, OciReference, SetEnd};
use serde_json::Value;

use super::flags;
use crate::limits::LAYOUT_INDEX_BYTES;

/// A build of the plan.
pub(super) struct Build {
    pub(super) name: String,
    pub(super) request: BuildRequest,
    /// Contexts that are results: their names, and the targets.
    pub(super) uses: Vec<(String, String)>,
}

/// How a build ended.
pub(super) struct Ended {
    pub(super) name: String,
    pub(super) end: SetEnd,
}

/// The directories of results that others use.
pub(super) struct Results {
    dir: tempfile::TempDir,
    used: BTreeSet<String>,
}

impl Results {
    /// Makes a directory, where a target of the plan uses the result of another one.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn new(plan: &Plan) -> Result<Option<Self>, BuildError> {
        let used: BTreeSet<String> = plan
            .targets
            .values()
            .flat_map(|target| flags::uses(target).into_iter().map(|(_, used)| used))
            .collect();
        if used.is_empty() {
            return Ok(None);
        }
        let dir = tempfile::Builder::new()
            .prefix("bk-bake-")
            .tempdir()
            .map_err(|e| {
                let place = std::env::temp_dir();
                LocalFailure::new(place, "cannot make a directory for results").caused_by(e)
            })?;
        Ok(Some(Self { dir, used }))
    }

    /// Where the result of a target goes, if another one uses it.
    pub(super) fn layout(&self, name: &str) -> Option<PathBuf> {
        self.used.contains(name).then(|| self.dir.path().join(name))
    }

    /// The request with the results that it uses, which are there by now.
    ///
    /// # Errors
    /// A result cannot be read.
    pub(super) fn put_into(&self, build: &mut Build) -> Result<(), BuildError> {
        for (key, used) in &build.uses {
            let dir = self.dir.path().join(used);
            let digest = digest(&dir)?;
            let layout = NamedContext::OciLayout(OciReference {
                dir,
                tag: None,
                digest: Some(digest),
            });
            let request = std::mem::replace(&mut build.request, BuildRequest::new(""));
            build.request = request.named_context(key, layout);
        }
        Ok(())
    }
}

/// The digest of the image in a layout that one build has made.
fn digest(dir: &Path) -> Result<String, BuildError> {
    let path = dir.join("index.json");
    let failed = |why: &str| LocalFailure::new(&path, why);
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|f| f.take(LAYOUT_INDEX_BYTES).read_to_end(&mut text))
        .map_err(|e| failed("cannot read the result of a target").caused_by(e))?;
    let index: Value = serde_json::from_slice(&text)
        .map_err(|e| failed("the result of a target is no OCI layout").caused_by(e))?;
    // Several are several names of one image.
    let digest = index["manifests"][0]["digest"].as_str();
    let digest = digest.ok_or_else(|| failed("the result of a target holds no image"))?;
    Ok(digest.to_owned())
}

/// Splits off the builds whose results are all there: what is left has to wait.
pub(super) fn ready(waiting: Vec<Build>, built: &BTreeMap<String, bool>) -> (Vec<Build>, Vec<Build>) {
    let there = |used: &String| built.get(used).copied().unwrap_or_default();
    waiting
        .into_iter()
        .partition(|build| build.uses.iter().all(|(_, used)| there(used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(name: &str, uses: &[&str]) -> Build {
        Build {
            name: name.to_owned(),
            request: BuildRequest::new("."),
            uses: uses.iter().map(|u| ("c".to_owned(), (*u).to_owned())).collect(),
        }
    }

    #[test]
    fn users_wait_until_what_they_use_is_built() {
        let all = vec![
            build("a", &["b", "c"]),
            build("b", &["c"]),
            build("c", &[]),
            build("d", &[]),
        ];
        let names = |builds: &[Build]| builds.iter().map(|b| b.name.clone()).collect::<Vec<_>>();
        let mut built = BTreeMap::new();
        let (first, rest) = ready(all, &built);
        assert_eq!(
            (names(&first), names(&rest)),
            (vec!["c".into(), "d".into()], vec!["a".into(), "b".into()])
        );
        built.extend([("c".to_owned(), true), ("d".to_owned(), false)]);
        let (second, rest) = ready(rest, &built);
        assert_eq!(
            (names(&second), names(&rest)),
            (vec!["b".into()], vec!["a".into()])
        );
        built.insert("b".to_owned(), false);
        let (third, rest) = ready(rest, &built);
        assert!(third.is_empty() && rest.len() == 1);
    }

    #[test]
    fn a_result_is_known_by_its_digest() {
        let dir = tempfile::tempdir().expect("a directory");
        let index = r#"{"manifests": [{"digest": "sha256:1"}, {"digest": "sha256:1"}]}"#;
        std::fs::write(dir.path().join("index.json"), index).expect("writable");
        assert_eq!(digest(dir.path()).expect("a digest"), "sha256:1");
        for bad in ["", "{}", r#"{"manifests": []}"#] {
            std::fs::write(dir.path().join("index.json"), bad).expect("writable");
            assert!(digest(dir.path()).is_err(), "{bad}");
        }
    }
}
