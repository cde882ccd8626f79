//! `bk ctx ls` against daemons: what it lists is what they ask for, and what an image gets.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bk_testkit::live::{Daemon, Route, Target};
use serde_json::Value;

use super::{
    bk,
    live::{build, on},
    run, text,
};

const PLACES: [(Daemon, Route); 3] = [
    (Daemon::Docker20_10, Route::Grpc),
    (Daemon::Docker28_5Containerd, Route::Grpc),
    (Daemon::BuildkitUnix, Route::Direct),
];

/// The least number of files of a tree.
const FILES: usize = 5_000;

/// A tree of files, made the same way each time, with its Dockerfile and ignore files.
struct Made {
    name: &'static str,
    files: Vec<(String, String)>,
    links: Vec<(&'static str, &'static str)>,
    flags: &'static [&'static str],
}

impl Made {
    fn write(&self, root: &Path) {
        assert!(
            self.files.len() >= FILES,
            "{} has {} files",
            self.name,
            self.files.len()
        );
        let mut made = BTreeSet::new();
        for (path, content) in &self.files {
            let path = root.join(path);
            let dir: PathBuf = path.parent().expect("a parent").to_owned();
            if made.insert(dir.clone()) {
                fs::create_dir_all(dir).expect("a directory");
            }
            fs::write(path, content).expect("writable");
        }
        for (path, to) in &self.links {
            std::os::unix::fs::symlink(to, root.join(path)).expect("a link");
        }
    }
}

fn files(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect()
}

/// Everything is copied, and a long ignore file holds.
fn javascript() -> Made {
    let mut files = files(&[
        (
            "Dockerfile",
            "FROM scratch AS build\nCOPY . /\nFROM build\nCOPY package.json /\n",
        ),
        (
            ".dockerignore",
            "\u{feff}# dependencies\nnode_modules\n!node_modules/keep*/**\n**/node_modules/.cache\n\n**/*.log\n  dist/  \n/coverage\n\
             src/**/[a-c]?.test.js\n!src/mod1/**\n*.md\n!README.md\n.env*\n!.env.example\na\\ b\n",
        ),
        ("package.json", "{}"),
        ("README.md", "r"),
        ("NOTES.md", "n"),
        (".env", "secret"),
        (".env.example", "none"),
        ("a b", "blank"),
        ("dist/out.js", "o"),
        ("coverage/x", "c"),
        ("sub/dist/in.js", "i"),
        ("node_modules.txt", "t"),
        ("node_modules-a/x", "x"),
    ]);
    for package in 0..400 {
        let name = if package % 97 == 0 {
            format!("keep{package}")
        } else {
            format!("p{package}")
        };
        for file in 0..11 {
            files.push((
                format!("node_modules/{name}/lib/f{file}.js"),
                format!("{package}.{file}"),
            ));
        }
    }
    for module in 0..40 {
        for file in 0..20 {
            let letter = char::from(b'a' + (file % 5) as u8);
            let end = if file % 3 == 0 { "test.js" } else { "js" };
            files.push((
                format!("src/mod{module}/{letter}{file}.{end}"),
                format!("{module}/{file}"),
            ));
            files.push((
                format!("src/mod{module}/{letter}{}.{end}", file % 10),
                format!("{file}"),
            ));
        }
        files.push((format!("src/mod{module}/debug.log"), "log".to_owned()));
    }
    Made {
        name: "javascript",
        files,
        links: vec![("src/link", "../package.json"), ("node_modules/bin", "keep0/lib")],
        flags: &[],
    }
}

/// Some paths are copied, through links and patterns, with arguments and a target.
fn rust() -> Made {
    let mut files = files(&[
        (
            "Dockerfile",
            "ARG WHAT=crates\nFROM scratch AS sources\nARG WHAT\nARG BIN=app\nENV MAIN=/Cargo.toml LOCK=\"Cargo.lock\"\n\
             COPY $MAIN ${LOCK} /\nCOPY [\"${WHAT}\", \"/crates\"]\nCOPY linked /linked\nCOPY assets/*.txt /assets/\n\
             FROM scratch AS unused\nCOPY target /target\nFROM scratch AS tests\nCOPY tests /tests\n\
             FROM sources AS release\nCOPY --from=tests /tests /tests\nADD ./scripts/../scripts/${BIN}.sh /scripts/\n\
             FROM scratch\nCOPY other /other\n",
        ),
        (
            ".dockerignore",
            "target\n**/*.rs.bk\n**/.git\ncrates/*/benches\n!crates/c1*/benches\ntests/data/*\n!tests/data/k?ep\n",
        ),
        ("Cargo.toml", "[workspace]"),
        ("Cargo.lock", "# lock"),
        ("scripts/app.sh", "#!/bin/sh"),
        ("scripts/other.sh", "#!/bin/sh"),
        ("assets/a.txt", "a"),
        ("assets/b.bin", "b"),
        ("real/deep/x", "x"),
        ("tests/data/keep", "k"),
        ("tests/data/drop", "d"),
        ("tests/t.rs", "t"),
        ("other/o", "o"),
    ]);
    for at in 0..2_500 {
        files.push((format!("target/debug/deps/d{at}.o"), format!("{at}")));
    }
    for at in 0..60 {
        for file in 0..40 {
            files.push((
                format!("crates/c{at}/src/m{}/f{file}.rs", file % 4),
                format!("{at}{file}"),
            ));
        }
        for file in ["benches/b.rs", "src/old.rs.bk", ".git/HEAD", "Cargo.toml"] {
            files.push((format!("crates/c{at}/{file}"), format!("{at}")));
        }
    }
    Made {
        name: "rust",
        files,
        links: vec![("linked", "real/deep")],
        flags: &["--target", "RELEASE", "--build-arg", "BIN=app"],
    }
}

/// One Dockerfile of several, with its own ignore file, and the platform in a path.
fn monorepo() -> Made {
    let mut files = files(&[
        ("Dockerfile", "FROM scratch\nCOPY nothing /\n"),
        (".dockerignore", "*\n"),
        (
            "docker/app.Dockerfile",
            "FROM scratch AS base\nARG TARGETARCH\nCOPY packages/shared /packages/shared\n\
             COPY tools/$TARGETARCH /tools/\nFROM base\nARG APP=app7\nCOPY packages/${APP:-none} /packages/${APP}\n\
             COPY packages/app1?/src /sources/\n",
        ),
        (
            "docker/app.Dockerfile.dockerignore",
            "**\n!packages\npackages/*/dist\n!packages/shared/dist\n**/*.snap\n!tools\ntools/**/*.tmp\n!\u{e9}t\u{e9}\n",
        ),
        ("tools/amd64/run", "amd64"),
        ("tools/amd64/x.tmp", "tmp"),
        ("tools/arm64/run", "arm64"),
        ("\u{e9}t\u{e9}/f", "s"),
    ]);
    for app in 0..50 {
        let name = if app == 0 {
            "shared".to_owned()
        } else {
            format!("app{app}")
        };
        for file in 0..50 {
            files.push((
                format!("packages/{name}/src/d{}/f{file}.ts", file % 7),
                format!("{app}-{file}"),
            ));
            files.push((
                format!("packages/{name}/dist/f{file}.js"),
                format!("{file}-{app}"),
            ));
        }
        files.push((format!("packages/{name}/src/a.snap"), "snap".to_owned()));
    }
    Made {
        name: "monorepo",
        files,
        links: vec![("packages/app7/up", "../shared/src")],
        flags: &["--platform", "linux/amd64"],
    }
}

/// Compares what is listed with what a daemon asked for and was told.
fn check(target: &Target, made: &Made) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    made.write(dir.path());
    let dockerfile = dir.path().join("docker/app.Dockerfile");
    let mut flags: Vec<&str> = made.flags.to_vec();
    if dockerfile.exists() {
        flags.extend(["-f", text(&dockerfile)]);
    }
    let ls = run(bk(&["ctx", "ls", "--json"]).args(&flags).arg(dir.path()));
    assert_eq!((ls.code, &*ls.err), (Some(0), ""), "{}", made.name);
    let listed: Vec<Value> = ls
        .out
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let paths: Vec<&str> = listed
        .iter()
        .map(|l| l["path"].as_str().expect("a path"))
        .collect();
    let in_order = paths
        .windows(2)
        .all(|two| two[0].split('/').lt(two[1].split('/')));
    assert!(in_order, "{}", made.name);
    let bytes: u64 = listed
        .iter()
        .filter(|l| l["kind"] == "file")
        .map(|l| l["size"].as_u64().expect("a size"))
        .sum();

    let reports = tempfile::tempdir().expect("a temporary directory");
    let report = reports.path().join("report");
    flags.extend(["--no-cache", "--transfer-report", text(&report)]);
    let built = run(&mut build(target, dir.path(), &flags));
    assert_eq!(
        built.code,
        Some(0),
        "{} on {}: {}",
        made.name,
        target.name(),
        built.err
    );
    let report: Value = serde_json::from_str(&fs::read_to_string(&report).expect("a report")).expect("JSON");
    let transfers = report["transfers"].as_array().expect("transfers");
    let sent: Vec<&Value> = transfers
        .iter()
        .filter(|t| t["source"] == "context" && t["asked"]["follow"] != serde_json::json!([".dockerignore"]))
        .collect();
    let place = format!("{} on {}: {report:#}", made.name, target.name());
    assert_eq!(sent.len(), 1, "{place}");
    let (asked, sent) = (&sent[0]["asked"], sent[0]);

    // The daemon's own lists, applied without the Dockerfile.
    let list = |key: &str| -> Vec<Vec<u8>> {
        let list = asked[key].as_array().expect("a list");
        list.iter()
            .map(|p| p.as_str().expect("text").as_bytes().to_vec())
            .collect()
    };
    let options = bk_fsync::FilterOptions::new(list("include"), list("exclude"), list("follow"));
    let tree = bk_fsync::DirTree::open(dir.path()).expect("a tree");
    let filter = bk_fsync::filter::Filter::new(&tree, &options).expect("a filter");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let names = bk_fsync::Utf8Policy::Any;
    let walk = bk_fsync::walk::Walk::new(&tree, &filter, names, &bk_fsync::report::Unobserved, &stop);
    let offered: Vec<String> = walk
        .map(|e| String::from_utf8(e.expect("an entry").path).expect("UTF-8"))
        .collect();
    assert_eq!(paths, offered, "{place}");
    assert_eq!(asked["omitted"], 0, "{place}");
    assert_eq!(sent["entries"], paths.len(), "{place}");
    assert_eq!(sent["offeredBytes"], bytes, "{place}");
    let files = listed.iter().filter(|l| l["kind"] == "file").count();
    assert!(files > 100, "{place}");

    // The lists themselves, as the library tells them.
    let mut request = bk_client::BuildRequest::new(dir.path());
    if dockerfile.exists() {
        request.dockerfile = bk_client::Dockerfile::Path(dockerfile);
        request.platforms = vec!["linux/amd64".to_owned()];
    }
    if made.name == "rust" {
        request.target = Some("release".to_owned());
    }
    let view = bk_client::ContextView::of(&request, None).expect("a view");
    let ours = view.asked().expect("files are needed");
    assert_eq!(serde_json::json!(ours.exclude), asked["exclude"], "{place}");
    assert_eq!(serde_json::json!(ours.follow), asked["follow"], "{place}");
}

#[test]
fn what_is_listed_is_what_daemons_are_sent() {
    on(
        &PLACES,
        "cli::what_is_listed_is_what_daemons_are_sent",
        async |target| {
            for made in [javascript(), rust(), monorepo()] {
                check(target, &made);
            }
        },
    );
}
