//! Every path of the recorded walks: sent as upstream sends it, and for the pattern that brute force finds.

use std::{collections::BTreeSet, fs};

use bk_build::{Context, Dockerfile};
use bk_fsync::{
    MemoryTree,
    pattern::{ParentMatches, PatternList},
};
use serde_json::Value;

use super::*;

fn strings(vector: &Value, key: &str) -> Vec<String> {
    let list = vector[key].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|v| v.as_str().expect("a string").to_owned())
        .collect()
}

/// The patterns of a list, each alone and without its `!`.
struct Alone {
    takes_back: bool,
    list: PatternList,
    /// What the pattern is told of a directory above that it does not match.
    unmatched: Option<ParentMatches>,
}

impl Alone {
    fn new(pattern: &str) -> Option<Self> {
        let text = pattern.trim();
        if text.is_empty() {
            return None;
        }
        let list = PatternList::new([text.strip_prefix('!').unwrap_or(text)]).expect("a pattern");
        let unmatched = ["\u{1}", "a", "Zz9.q"].iter().find_map(|path| {
            let asked = list.matches_below(path.as_bytes(), &ParentMatches::default());
            let (verdict, own) = asked.expect("an answer");
            (!verdict.matched).then_some(own)
        });
        Some(Self {
            takes_back: text.starts_with('!'),
            list,
            unmatched,
        })
    }

    /// Whether it matches the path itself.
    fn matches(&self, path: &str) -> bool {
        self.unmatched.as_ref().is_none_or(|above| {
            let asked = self.list.matches_below(path.as_bytes(), above);
            asked.expect("an answer").0.matched
        })
    }
}

/// By brute force: which patterns hit the path or a directory above, and which one had the last word, by upstream's rule:
/// a pattern that cannot change the answer is not asked, but what it said of a directory holds below.
fn last_word(patterns: &[Option<Alone>], path: &str) -> (Vec<bool>, bool, Option<usize>) {
    let above = path
        .rsplit_once('/')
        .map(|(above, _)| last_word(patterns, above).0);
    let (mut hits, mut ignored, mut last) = (vec![false; patterns.len()], false, None);
    for (at, pattern) in patterns.iter().enumerate() {
        let Some(pattern) = pattern else { continue };
        let known = above.as_ref().is_some_and(|above| above[at]);
        if known || (pattern.takes_back == ignored && pattern.matches(path)) {
            hits[at] = true;
            (ignored, last) = (!pattern.takes_back, Some(at + 1));
        }
    }
    (hits, ignored, last)
}

#[test]
fn every_recorded_path_is_explained() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../bk-fsync/tests/vectors/walk.jsonl"
    );
    let text = fs::read_to_string(file).expect("the vectors");
    let (mut paths, mut named) = (0, 0);
    for line in text.lines() {
        let vector: Value = serde_json::from_str(line).expect("a vector");
        let mut tree = MemoryTree::new();
        let entries = vector["tree"].as_array().expect("a tree");
        for entry in entries {
            let path = entry["path"].as_str().expect("a path");
            let added = match entry["kind"].as_str() {
                Some("dir") => tree.add_dir(path, 0o755),
                Some("file") => tree.add_file(path, 0o644, "x"),
                _ => tree.add_symlink(path, entry["link"].as_str().unwrap_or_default()),
            };
            added.expect("an entry");
        }
        let bytes = |key| {
            strings(&vector, key)
                .into_iter()
                .map(String::into_bytes)
                .collect()
        };
        let options = FilterOptions::new(bytes("include"), bytes("exclude"), bytes("follow"));
        let alone: Vec<_> = strings(&vector, "exclude")
            .iter()
            .map(|p| Alone::new(p))
            .collect();
        let view = ContextView::by_lists(tree, &options).expect("a view");
        let emitted: BTreeSet<String> = strings(&vector, "emitted").into_iter().collect();
        for entry in entries {
            let path = entry["path"].as_str().expect("a path");
            let why = view.why(path.as_bytes()).expect("an answer");
            paths += 1;
            assert_eq!(why.sent(), emitted.contains(path), "{path} in {line}");
            let settled = why
                .by
                .as_ref()
                .map_or(path, |by| std::str::from_utf8(&by.at).expect("text"));
            let (_, ignored, last) = last_word(&alone, settled);
            assert_eq!(why.by.as_ref().map(|by| by.line), last, "{path} in {line}");
            if why.not == Some(WhyNot::Ignored) {
                assert!(ignored, "{path} in {line}");
            }
            named += usize::from(last.is_some());
        }
    }
    assert!(
        paths > 10_000 && named > 1_000,
        "{paths} paths, {named} with a pattern"
    );
}

#[test]
fn instructions_and_patterns_are_named() {
    let mut tree = MemoryTree::new();
    let files = [
        "src/a.rs",
        "src/gen/b.rs",
        "doc/x",
        "node_modules/p/i.js",
        "keep/in/y",
        "keep/z",
        "real/r",
    ];
    for file in files {
        tree.add_file(file, 0o644, "x").expect("a file");
    }
    tree.add_symlink("link", "real").expect("a link");
    tree.add_file(
        ".dockerignore",
        0o644,
        "# comment\n\nnode_modules\nsrc/gen\nkeep\n!keep/in\n",
    )
    .expect("a file");
    tree.add_file(
        "Dockerfile",
        0o644,
        "FROM scratch\nCOPY src link /x/\nCOPY keep/* /y/\n",
    )
    .expect("a file");
    let request =
        bk_build::BuildRequest::new(Context::Tree(std::sync::Arc::new(tree))).dockerfile(Dockerfile::Default);
    let view = ContextView::of(&request, None).expect("a view");
    assert_eq!(view.warning(), None);
    let asked = view.asked().expect("it is asked for");
    assert_eq!(asked.exclude, ["node_modules", "src/gen", "keep", "!keep/in"]);
    assert_eq!(asked.follow, ["keep/*", "link", "src"]);
    let say = |path: &str| {
        let why = view.why(path.as_bytes()).expect("an answer");
        let by = why.by.as_ref().map(|by| {
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            (by.line, text(&by.pattern), text(&by.at))
        });
        let needed: Vec<usize> = why.needed_by.iter().map(|n| n.line).collect();
        (why.not, by, needed)
    };
    let by = |line, pattern: &str, at: &str| Some((line, pattern.to_owned(), at.to_owned()));
    assert_eq!(say("src/a.rs"), (None, None, vec![2]));
    assert_eq!(say("real/r"), (None, None, vec![2]));
    assert_eq!(say("src"), (None, None, vec![2]));
    assert_eq!(
        say("src/gen/b.rs"),
        (Some(WhyNot::Ignored), by(4, "src/gen", "src/gen"), vec![2])
    );
    assert_eq!(say("doc/x"), (Some(WhyNot::NotNeeded), None, vec![]));
    let modules = by(3, "node_modules", "node_modules");
    assert_eq!(
        say("node_modules/p/i.js"),
        (Some(WhyNot::Ignored), modules, vec![])
    );
    assert_eq!(say("keep/in/y"), (None, by(6, "!keep/in", "keep/in/y"), vec![3]));
    assert_eq!(say("keep"), (None, by(5, "keep", "keep"), vec![3]));
    assert_eq!(
        say("keep/z"),
        (Some(WhyNot::Ignored), by(5, "keep", "keep/z"), vec![3])
    );
    assert_eq!(say("gone"), (Some(WhyNot::Missing), None, vec![]));
    let stop = AtomicBool::new(false);
    let sent: Vec<_> = view
        .walk(&Quiet, &stop)
        .map(|e| e.expect("an entry").path)
        .collect();
    let want = [
        "keep",
        "keep/in",
        "keep/in/y",
        "link",
        "real",
        "real/r",
        "src",
        "src/a.rs",
    ];
    assert_eq!(sent, want.map(|p| p.as_bytes().to_vec()));
    assert!(view.why(b"../x").is_err());
    assert_eq!(
        view.path_of(Path::new("./src//a.rs")).expect("a path"),
        b"src/a.rs"
    );
    assert!(view.path_of(Path::new("../a")).is_err());
}
