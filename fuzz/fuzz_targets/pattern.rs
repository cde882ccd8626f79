//! Pattern lists of any bytes: no panic, the two ways to ask agree wherever upstream's do, and plain patterns match
//! what the slow reference matches.

#![no_main]

use bk_fsync::filter::{Filter, FilterOptions};
use bk_fsync::path::{RelPath, clean};
use bk_fsync::pattern::{ParentMatches, PatternList};
use bk_fsync::tree::MemoryTree;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Patterns and a path, with NUL bytes between them.
    let mut given: Vec<&[u8]> = data.split(|b| *b == 0).collect();
    let path = given.pop().unwrap_or_default();
    let Ok(list) = PatternList::new(&given) else { return };
    let above = list.matches_or_parent(path);
    let below = list.matches_below(path, &ParentMatches::default());
    assert_eq!(above, below.map(|(verdict, _)| verdict));
    let (Ok(verdict), Ok(path)) = (above, RelPath::new(path)) else { return };
    let excluded = FilterOptions::new(vec![], given.iter().map(|p| p.to_vec()).collect(), vec![]);
    let filter = Filter::new(&MemoryTree::new(), &excluded).expect("the list was accepted before");
    if let Ok(decision) = filter.explain(path, false)
        && !list.has_exceptions()
    {
        assert_eq!(decision.visible, !verdict.matched, "a walk decides otherwise");
    }
    let plain =
        |text: &[u8]| text.len() < 24 && text.iter().all(|b| b" !#$+,-./09:;<=>?@AZ_az~*".contains(b));
    let [pattern] = list.patterns() else { return };
    if plain(pattern.text()) && plain(path.as_bytes()) && !pattern.is_exception() {
        let name = path.as_bytes();
        let mut prefixes = (0..=name.len()).filter(|at| matches!(name.get(*at), None | Some(b'/')));
        assert_eq!(clean(pattern.text()), pattern.text());
        assert_eq!(verdict.matched, prefixes.any(|at| bk_fuzz::matches(pattern.text(), &name[..at])));
    }
});
