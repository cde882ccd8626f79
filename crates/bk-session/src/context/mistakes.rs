//! Patterns of an ignore file that cannot be what somebody meant.
//!
//! The rule: only what is certain by the patterns alone, or by one look at a name. Nothing is walked, so that a build can tell
//! it too; what merely matches nothing today is for those who ask (`lint`).

use std::path::Path;

use bk_build::{Warning, WarningKind};
use bk_fsync::{
    FilterOptions, MemoryTree,
    filter::Filter,
    path::{RelPath, show},
    pattern::{Pattern, PatternList},
};

use super::{lint::LintKind, view::kind_of};
use crate::{limits::IGNORE_WARNINGS, sources::Source};

/// A pattern that cannot be what was meant.
pub(super) struct Mistake {
    pub(super) kind: LintKind,
    /// Its place in the list that was given.
    pub(super) index: usize,
    /// With the pattern, in one line.
    pub(super) message: String,
}

/// The mistakes in the patterns of an ignore file that holds for `context`, in their order. Patterns that cannot be read have
/// an error of their own, and none here.
pub(super) fn mistakes(context: &Source, patterns: &[Vec<u8>]) -> Vec<Mistake> {
    let options = FilterOptions::new(Vec::new(), patterns.to_vec(), Vec::new());
    let Ok(filter) = Filter::new(&MemoryTree::new(), &options) else {
        return Vec::new();
    };
    let Some(list) = filter.excludes() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (at, pattern) in list.patterns().iter().enumerate() {
        let why = (LintKind::DeadPattern, misread(context, pattern));
        let why = match why.1 {
            None if pattern.is_exception() => (LintKind::NoEffect, futile(&filter, list, at)),
            _ => why,
        };
        if let (kind, Some(why)) = why {
            let bang = if pattern.is_exception() { "!" } else { "" };
            found.push(Mistake {
                kind,
                index: pattern.index(),
                message: format!("`{bang}{}`: {why}", show(pattern.text())),
            });
        }
    }
    found
}

/// The same as warnings of a build; `file` is what the ignore file is called, `patterns` have their lines. Few are told.
pub(crate) fn warnings(context: &Source, file: &Path, patterns: &[(Vec<u8>, usize)]) -> Vec<Warning> {
    let texts: Vec<Vec<u8>> = patterns.iter().map(|(pattern, _)| pattern.clone()).collect();
    let all = mistakes(context, &texts);
    let more = all.len().saturating_sub(IGNORE_WARNINGS);
    let file = file.display().to_string();
    let mut told: Vec<Warning> = Vec::new();
    for mistake in all.into_iter().take(IGNORE_WARNINGS) {
        let Some((_, line)) = patterns.get(mistake.index) else {
            continue;
        };
        let kind = WarningKind::IgnoreFile {
            file: file.clone(),
            line: *line as u64,
        };
        told.push(Warning::new(kind, format!("{file}:{line}: {}", mistake.message)));
    }
    if more > 0
        && let Some(last) = told.last_mut()
    {
        last.short
            .push_str(&format!(" (and {more} more; `bk ctx lint` lists them)"));
    }
    told
}

/// What was taken for something that patterns do not have.
fn misread(context: &Source, pattern: &Pattern) -> Option<String> {
    let text = pattern.text();
    let there = |path: &[u8]| {
        RelPath::new(path)
            .ok()
            .and_then(|rel| kind_of(&*context.tree, rel).ok().flatten())
            .is_some()
    };
    let remark = text
        .windows(2)
        .any(|two| two[0].is_ascii_whitespace() && two[1] == b'#');
    if (remark || text.first() == Some(&b'#')) && !there(text) {
        return Some(
            "comments have lines of their own, with the # in the first column; here it is a part of the name"
                .to_owned(),
        );
    }
    if text == b".." || text.starts_with(b"../") {
        return Some("this leads out of the context, and matches nothing".to_owned());
    }
    if text.starts_with(b"~/") && !there(b"~") {
        return Some(
            "`~` is no home directory here; patterns are paths from the root of the context".to_owned(),
        );
    }
    let root = context
        .root
        .as_deref()
        .map(|root| root.as_os_str().as_encoded_bytes());
    if let Some(root) = root
        .and_then(|root| root.strip_prefix(b"/"))
        .filter(|root| root.contains(&b'/'))
        && let Some(inside) = text.strip_prefix(root)
        && let Some(inside) = inside
            .strip_prefix(b"/")
            .or_else(|| inside.is_empty().then_some(b"**"))
        && !there(root.split(|b| *b == b'/').next().unwrap_or_default())
    {
        return Some(format!(
            "patterns are paths from the root of the context, not of the machine; write `{}`",
            show(inside)
        ));
    }
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        // What needs no backslash was not meant to have one.
        if *byte == b'\\' && bytes.next().is_some_and(u8::is_ascii_alphanumeric) {
            let meant: Vec<u8> = text.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect();
            return Some(format!(
                "a backslash takes the meaning of the next character away, and separates nothing; write `{}`",
                show(&meant)
            ));
        }
    }
    None
}

/// Why an exception can never change anything.
fn futile(filter: &Filter, list: &PatternList, at: usize) -> Option<String> {
    let patterns = list.patterns();
    let exception = patterns.get(at)?;
    if !patterns.iter().take(at).any(|p| !p.is_exception()) {
        let later = patterns.iter().skip(at).any(|p| !p.is_exception());
        return later
            .then(|| "nothing is ignored before it, and the last pattern that matches decides".to_owned());
    }
    let text = exception.text();
    let plain = !text.iter().any(|b| b"*?[]\\{}^|+()$".contains(b));
    for later in patterns.iter().skip(at + 1).filter(|p| !p.is_exception()) {
        let all = later.text() == b"*" || later.text() == b"**";
        let covers = || {
            let alone = PatternList::new([later.text()]).ok()?;
            Some(alone.matches_or_parent(text).ok()?.matched)
        };
        if all || plain && covers() == Some(true) {
            return Some(format!(
                "`{}` below it ignores that again, and the last pattern that matches decides",
                show(later.text())
            ));
        }
    }
    let example = example(text)?;
    let verdict = list.matches_or_parent(&example).ok()?;
    let path = RelPath::new(&example).ok()?;
    let hidden = verdict.decided_by == Some(at) && !filter.explain(path, false).ok()?.visible;
    hidden.then(|| {
        format!(
            "daemons do not look for `{}`, since the directory that holds it is ignored; take that back first",
            show(&example)
        )
    })
}

/// A path that a pattern matches, if that is easy to tell.
fn example(pattern: &[u8]) -> Option<Vec<u8>> {
    if pattern.iter().any(|b| b"[]\\{}^|+()$".contains(b)) {
        return None;
    }
    let parts: Vec<Vec<u8>> = pattern
        .split(|b| *b == b'/')
        .map(|part| match part {
            b"**" => b"x".to_vec(),
            part => part
                .iter()
                .map(|b| if b"*?".contains(b) { b'x' } else { *b })
                .collect(),
        })
        .collect();
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use bk_fsync::Tree;

    use super::*;

    fn said(patterns: &[&str]) -> Vec<String> {
        let mut tree = MemoryTree::new();
        tree.add_file("odd # name", 0o644, "x").expect("a file");
        let tree: Arc<dyn Tree> = Arc::new(tree);
        let context = Source {
            tree,
            root: Some(PathBuf::from("/home/me/app")),
        };
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|p| p.as_bytes().to_vec()).collect();
        let found = mistakes(&context, &patterns);
        found
            .into_iter()
            .map(|m| format!("{} {}", m.index, m.message))
            .collect()
    }

    #[test]
    fn what_was_misread_is_told() {
        let comment =
            "comments have lines of their own, with the # in the first column; here it is a part of the name";
        assert_eq!(
            said(&["dist # made", "# indented", "odd # name", "c#", "a#b"]),
            [
                format!("0 `dist # made`: {comment}"),
                format!("1 `# indented`: {comment}")
            ]
        );
        let slash =
            "a backslash takes the meaning of the next character away, and separates nothing; write `";
        assert_eq!(
            said(&["src\\bin", "a\\*b", "a\\ b", "\\#x", "\\!x"]),
            [format!("0 `src\\bin`: {slash}src/bin`")]
        );
        let root = "patterns are paths from the root of the context, not of the machine; write `";
        assert_eq!(
            said(&[
                "home/me/app/dist",
                "home/me/other",
                "home",
                "../lib",
                "~/x",
                "a/~/x",
                "./x"
            ]),
            [
                format!("0 `home/me/app/dist`: {root}dist`"),
                "3 `../lib`: this leads out of the context, and matches nothing".to_owned(),
                "4 `~/x`: `~` is no home directory here; patterns are paths from the root of the context"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn exceptions_that_never_count_are_told() {
        let early = "nothing is ignored before it, and the last pattern that matches decides";
        assert_eq!(said(&["!keep", "*.log"]), [format!("0 `!keep`: {early}")]);
        let again = "below it ignores that again, and the last pattern that matches decides";
        assert_eq!(said(&["*", "!src", "**"]), [format!("1 `!src`: `**` {again}")]);
        assert_eq!(
            said(&["dist", "!dist/a", "dist"]),
            [format!("1 `!dist/a`: `dist` {again}")]
        );
        let ignored = "since the directory that holds it is ignored; take that back first";
        assert_eq!(
            said(&["*", "!src/*/**"]),
            [format!(
                "1 `!src/*/**`: daemons do not look for `src/x/x`, {ignored}"
            )]
        );
    }

    #[test]
    fn what_is_usual_is_not_told() {
        for patterns in [
            &["*", "!src", "!Cargo.*", "src/target"][..],
            &["node_modules", "!node_modules/keep"],
            &["**/*.md", "!README.md", "!docs/**/*.md"],
            &["docs/*", "!docs/README.md", "docs/*.tmp"],
            &["*", "!**/*.rs", "!**/Cargo.toml"],
            &["*", "!src/**", "!src/*/*.c"],
            &["a", "!a/b", "a/b/c", "!a/b/c/d"],
            &[".git", "*.log", "/dist/", "./build"],
            &["!only"],
        ] {
            assert_eq!(said(patterns), [""; 0], "{patterns:?}");
        }
    }
}
