//! The line of crates: who may depend on whom. A new edge is a change of this file.

use super::Finding;
use crate::run::Result;
use serde_json::Value;
use std::path::Path;

/// The layers, from left to right; a crate may depend only on crates of layers to its left.
const LAYERS: [&[&str]; 8] = [
    &["bk-proto"],
    &["bk-fsync"],
    &["bk-build"],
    // The renderers hang off the contract: of what follows only the program draws.
    // Bake files hang there too: they are requests in other words.
    &["bk-progress", "bk-session", "bk-bake", "bk-dial", "bk-daemon"],
    &["bk-solve"],
    &["backend-buildkitd", "backend-docker"],
    &["bk-client"],
    &["bk-cli"],
];

/// May be used by tests of any crate and by nothing else; may itself use all up to the facade.
const TESTKIT: &str = "bk-testkit";
const FACADE: &str = "bk-client";

/// Draws events; only the program uses it.
const RENDERERS: &str = "bk-progress";
const PROGRAM: &str = "bk-cli";

/// Beside the line: nothing depends on them.
const BESIDE: [&str; 4] = ["xtask", "xtask-codegen", "bk-benches", "bk-fuzz"];

/// One package of the workspace and what it depends on.
#[derive(Debug, PartialEq)]
pub(crate) struct Package {
    name: String,
    /// The manifest, from the root of the workspace.
    pub(crate) manifest: String,
    edges: Vec<Edge>,
}

/// A dependency; `dev` when only tests, examples and benches have it.
#[derive(Debug, PartialEq)]
struct Edge {
    to: String,
    dev: bool,
}

/// The packages in the output of `cargo metadata` of the workspace at `root`, with the dependencies that are packages
/// of it too.
pub(crate) fn packages(metadata: &Value, root: &Path) -> Result<Vec<Package>> {
    let list = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = list.iter().map(|package| text(&package["name"])).collect();
    let package = |package: &Value| {
        let none = Vec::new();
        let edges = package["dependencies"].as_array().unwrap_or(&none).iter();
        let edges = edges.map(|edge| Edge {
            to: text(&edge["name"]),
            dev: edge["kind"] == "dev",
        });
        Package {
            name: text(&package["name"]),
            manifest: relative(&text(&package["manifest_path"]), root),
            edges: edges.filter(|edge| names.contains(&edge.to)).collect(),
        }
    };
    Ok(list.iter().map(package).collect())
}

fn relative(path: &str, root: &Path) -> String {
    Path::new(path)
        .strip_prefix(root)
        .map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

/// All edges against the line.
pub(crate) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let known =
            layer(&package.name).is_some() || package.name == TESTKIT || BESIDE.contains(&&*package.name);
        if !known {
            let text = format!("{} has no place in the layers", package.name);
            findings.push(Finding::new(&package.manifest, 0, text));
            continue;
        }
        for edge in &package.edges {
            if let Some(why) = objection(&package.name, edge) {
                let text = format!("{} must not depend on {}: {why}", package.name, edge.to);
                findings.push(Finding::new(&package.manifest, 0, text));
            }
        }
    }
    findings
}

/// Why the edge is against the line, if it is.
fn objection(from: &str, edge: &Edge) -> Option<&'static str> {
    let to = edge.to.as_str();
    if BESIDE.contains(&to) {
        return Some("it stands beside the line");
    }
    if from.starts_with("xtask") {
        return Some("the chores compile in seconds; run the crate instead");
    }
    if BESIDE.contains(&from) {
        return None;
    }
    if to == TESTKIT {
        return if edge.dev {
            None
        } else {
            Some("it is for tests only")
        };
    }
    if to == RENDERERS && from != PROGRAM {
        return Some("only the program draws");
    }
    let (from_layer, to_layer) = (
        if from == TESTKIT {
            layer(FACADE)? + 1
        } else {
            layer(from)?
        },
        layer(to)?,
    );
    (to_layer >= from_layer).then_some("it is not to its left")
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The findings for one edge.
    fn edge(from: &str, to: &str, dev: bool) -> usize {
        let edges = vec![Edge { to: to.into(), dev }];
        check(&[Package {
            name: from.into(),
            manifest: "Cargo.toml".into(),
            edges,
        }])
        .len()
    }

    #[test]
    fn edges_go_left_only() {
        assert_eq!(edge("bk-fsync", "bk-proto", false), 0);
        assert_eq!(edge("bk-cli", "bk-proto", false), 0);
        assert_eq!(edge("bk-proto", "bk-fsync", false), 1);
        assert_eq!(edge("bk-proto", "bk-fsync", true), 1);
        assert_eq!(edge("backend-docker", "backend-buildkitd", false), 1);
        assert_eq!(edge("backend-docker", "bk-solve", false), 0);
    }

    #[test]
    fn only_the_program_draws() {
        assert_eq!(edge("bk-cli", "bk-progress", false), 0);
        assert_eq!(edge("bk-solve", "bk-progress", false), 1);
        assert_eq!(edge("bk-progress", "bk-build", false), 0);
        assert_eq!(edge("bk-progress", "bk-session", false), 1);
    }

    #[test]
    fn the_test_kit_is_for_tests() {
        assert_eq!(edge("bk-session", "bk-testkit", true), 0);
        assert_eq!(edge("bk-session", "bk-testkit", false), 1);
        assert_eq!(edge("bk-testkit", "bk-client", false), 0);
        assert_eq!(edge("bk-testkit", "bk-cli", false), 1);
    }

    #[test]
    fn nothing_depends_on_what_stands_beside() {
        assert_eq!(edge("bk-cli", "xtask", true), 1);
        assert_eq!(edge("bk-benches", "bk-client", false), 0);
        assert_eq!(edge("xtask", "bk-proto", false), 1);
        assert_eq!(edge("bk-proto", "xtask-codegen", true), 1);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(
            check(&[Package {
                name: "bk-new".into(),
                manifest: "m".into(),
                edges: Vec::new()
            }])
            .len(),
            1
        );
    }

    #[test]
    fn packages_are_read_from_metadata() {
        let metadata = json!({"packages": [
            {"name": "bk-fsync", "manifest_path": "/w/f/Cargo.toml", "dependencies": [
                {"name": "bk-proto", "kind": null}, {"name": "serde", "kind": null}, {"name": "bk-testkit", "kind": "dev"}]},
            {"name": "bk-proto", "manifest_path": "/w/p/Cargo.toml", "dependencies": []},
            {"name": "bk-testkit", "manifest_path": "/w/t/Cargo.toml", "dependencies": []},
        ]});
        let list = packages(&metadata, Path::new("/w")).unwrap();
        let edges = vec![
            Edge {
                to: "bk-proto".into(),
                dev: false,
            },
            Edge {
                to: "bk-testkit".into(),
                dev: true,
            },
        ];
        assert_eq!(
            list[0],
            Package {
                name: "bk-fsync".into(),
                manifest: "f/Cargo.toml".into(),
                edges
            }
        );
    }
}
