//! `docs/errors.md` says what the program says: each block with the name of a snapshot is that snapshot.

use std::{collections::BTreeSet, fs, path::Path};

use super::snapshot::{blessing, directory};

/// Before a block: the name of the file it shows.
const MARK: &str = "<!-- shown: ";

#[test]
fn every_report_is_on_the_page_as_it_is() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let text = fs::read_to_string(&page).expect("the page");
    let mut made = String::new();
    let mut shown = BTreeSet::new();
    let mut rest = &*text;
    while let Some((before, behind)) = rest.split_once(MARK) {
        let (name, behind) = behind.split_once(" -->\n").expect("the end of the mark");
        let snapshot = fs::read_to_string(directory().join(format!("{name}.txt")))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        // The page has no blanks at the end of a line.
        let lines = snapshot.lines().map(|line| format!("{}\n", line.trim_end()));
        let snapshot: String = lines.collect();
        let (_, behind) = behind.split_once("```text\n").expect("a block");
        let (_, behind) = behind.split_once("```\n").expect("the end of the block");
        made.push_str(&format!("{before}{MARK}{name} -->\n```text\n{snapshot}```\n"));
        assert!(shown.insert(name.to_owned()), "{name} is shown twice");
        rest = behind;
    }
    made.push_str(rest);
    if blessing() {
        fs::write(&page, &made).expect("the page can be written");
    } else {
        assert_eq!(text, made, "docs/errors.md: BK_BLESS=1 writes its blocks anew");
    }
    let there: BTreeSet<String> = fs::read_dir(directory())
        .expect("the snapshots")
        .filter_map(|entry| entry.expect("readable").file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".txt")?.to_owned()))
        // What other daemons say instead.
        .filter(|name| !name.contains('.'))
        .collect();
    let missing: Vec<&String> = there.difference(&shown).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
}
