//! What daemons say of their caches and their histories, through both clients.

use std::collections::BTreeMap;

use bk_testkit::{
    conformance::fresh_token,
    fixture::TreeBuilder,
    live::{Daemon, Route},
};
use serde_json::Value;

use super::pair::{Versus, everywhere, on};
use crate::{Ran, run};

/// How often both are asked until nothing else has changed the daemon in between.
const ATTEMPTS: usize = 20;

/// Asks ours, theirs, and ours again, until ours says the same twice and theirs agrees: others build in between, and what they
/// use has no size for a moment.
fn stable<T: PartialEq>(versus: &Versus, ours: impl Fn() -> T, theirs: impl Fn() -> T) -> (T, T) {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let first = ours();
        let other = theirs();
        if ours() == first {
            if first == other {
                return (first, other);
            }
            last = Some((first, other));
        }
    }
    last.unwrap_or_else(|| panic!("{}: others change it all the time", versus.name()))
}

fn well(versus: &Versus, ran: Ran) -> String {
    assert_eq!(ran.code, Some(0), "{}: {}", versus.name(), ran.err);
    ran.out
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Id, whether it can go, and size, by line of a table; and the sums below.
fn listed(table: &str) -> (BTreeMap<String, (String, String)>, BTreeMap<String, String>) {
    let (mut records, mut sums) = (BTreeMap::new(), BTreeMap::new());
    for line in table.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [name, value] if name.ends_with(':') => {
                sums.insert(name.to_owned(), value.to_owned());
            }
            [id, reclaimable, size, ..] => {
                records.insert(id.to_owned(), (reclaimable.to_owned(), size.to_owned()));
            }
            _ => {}
        }
    }
    (records, sums)
}

#[test]
fn the_cache_is_that_of_buildx() {
    const TEST: &str = "versus::the_cache_is_that_of_buildx";
    everywhere(TEST, |versus, _| {
        let tree = TreeBuilder::new()
            .file("Dockerfile", "FROM scratch\nCOPY file /\n")
            .file("file", fresh_token())
            .build()
            .expect("fixture");
        // Without an output nothing but the cache is left of it on an endpoint; on an engine an image without a name.
        let ran = versus.ours(tree.path(), &[], &[]);
        assert_eq!(ran.code, Some(0), "{}: {}", versus.name(), ran.err);
        let (ours, theirs) = stable(
            versus,
            || listed(&well(versus, run(&mut versus.bk(&["du"])))),
            || listed(&well(versus, run(&mut versus.buildx(&["du"])))),
        );
        assert_eq!(ours, theirs, "{}", versus.name());
        let kinds = |filter: &str| {
            stable(
                versus,
                || listed(&well(versus, run(&mut versus.bk(&["du", "--filter", filter])))).0,
                || {
                    listed(&well(
                        versus,
                        run(&mut versus.buildx(&["du", "--filter", filter])),
                    ))
                    .0
                },
            )
        };
        for filter in ["type=source.local", "type!=regular", "description~=file"] {
            let (ours, theirs) = kinds(filter);
            assert_eq!(ours, theirs, "{}: {filter}", versus.name());
        }
    });
}

#[test]
fn the_history_is_that_of_buildx() {
    const TEST: &str = "versus::the_history_is_that_of_buildx";
    // Newer daemons may die of the limit that `docker buildx history ls` sends; this one does not know limits.
    on(&[(Daemon::Docker26_1, Route::Grpc)], TEST, |versus, _| {
        let tree = TreeBuilder::new()
            .file("Dockerfile", "FROM scratch\nCOPY file /\n")
            .file("file", fresh_token())
            .build()
            .expect("fixture");
        let ran = versus.ours(tree.path(), &[], &[]);
        assert_eq!(ran.code, Some(0), "{}: {}", versus.name(), ran.err);
        let lines = |out: String, of: fn(&Value) -> (String, [Value; 4])| -> BTreeMap<_, _> {
            let parse = |line| serde_json::from_str::<Value>(line).expect("JSON");
            out.lines().map(|line| of(&parse(line))).collect()
        };
        let (ours, theirs) = stable(
            versus,
            || {
                let out = well(
                    versus,
                    run(&mut versus.bk(&["history", "ls", "--json", "--filter", "status!=running"])),
                );
                lines(out, |record| {
                    // In its list buildx calls a build that was cancelled one that failed.
                    let state = match record["state"].as_str() {
                        Some("canceled") => "error".into(),
                        _ => record["state"].clone(),
                    };
                    let parts = [
                        state,
                        record["total_steps"].clone(),
                        record["cached_steps"].clone(),
                        record["completed_at"].clone(),
                    ];
                    (text(&record["build_ref"]), parts)
                })
            },
            || {
                let out = well(
                    versus,
                    run(&mut versus.buildx(&["history", "ls", "--format", "json"])),
                );
                let mut all = lines(out, |record| {
                    let id = text(&record["ref"]);
                    let parts = [
                        text(&record["status"]).to_lowercase().into(),
                        record["total_steps"].clone(),
                        record["cached_steps"].clone(),
                        record["completed_at"].clone(),
                    ];
                    (id.rsplit('/').next().unwrap_or_default().to_owned(), parts)
                });
                all.retain(|_, parts| parts[0] != "running");
                all
            },
        );
        assert!(!ours.is_empty(), "{}", versus.name());
        assert_eq!(ours, theirs, "{}", versus.name());
    });
}

#[test]
fn an_exported_build_is_that_of_buildx() {
    const TEST: &str = "versus::an_exported_build_is_that_of_buildx";
    // It knows no limits, as above; engines that do are the test's own.
    on(&[(Daemon::Docker26_1, Route::Grpc)], TEST, |versus, _| {
        let tree = TreeBuilder::new()
            .file("Dockerfile", "FROM scratch\nCOPY file /\n")
            .file("file", fresh_token())
            .build()
            .expect("fixture");
        let metadata = tree.path().with_extension("json");
        let file = ["--metadata-file", crate::text(&metadata)];
        let ran = versus.ours(tree.path(), &[], &file);
        assert_eq!(ran.code, Some(0), "{}: {}", versus.name(), ran.err);
        let said = std::fs::read(&metadata).expect("metadata");
        std::fs::remove_file(&metadata).expect("removable");
        let said: Value = serde_json::from_slice(&said).expect("JSON");
        let build_ref = text(&said["buildx.build.ref"]);
        let id = build_ref.rsplit('/').next().unwrap_or_default();
        crate::export::compare(&versus.name(), &[id], |w| versus.bk(w), |w| versus.buildx(w));
    });
}
