//! A walk that is helped by threads yields what one alone yields, in the same order.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bk_fsync::MemoryTree;
use bk_fsync::filter::{Filter, FilterOptions};
use bk_fsync::limits::SCAN_NAMES;
use bk_fsync::policy::Utf8Policy;
use bk_fsync::report::Unobserved;
use bk_fsync::tree::Tree;
use bk_fsync::walk::Walk;

use crate::peer::{Op, hooked};

/// What a walk yields, and the text of the error that it ends with.
fn walk(tree: &dyn Tree, exclude: &[&str], helped: bool) -> (Vec<String>, Option<String>) {
    let exclude = exclude.iter().map(|p| p.as_bytes().to_vec()).collect();
    let filter = Filter::new(tree, &FilterOptions::new(Vec::new(), exclude, Vec::new())).unwrap();
    let stop = AtomicBool::new(false);
    let walk = Walk::new(tree, &filter, Utf8Policy::Any, &Unobserved, &stop);
    let (mut paths, mut error) = (Vec::new(), None);
    let mut take = |walk: Walk<'_>| {
        for entry in walk {
            match entry {
                Ok(entry) => paths.push(String::from_utf8(entry.path).unwrap()),
                Err(err) => error = Some(err.to_string()),
            }
        }
    };
    if helped {
        std::thread::scope(|scope| take(walk.helped(scope)));
    } else {
        take(walk);
    }
    (paths, error)
}

/// Directories of every size, three deep; one holds more names than are examined at once.
fn tree() -> MemoryTree {
    let mut tree = MemoryTree::new();
    for at in 0..6_000u32 {
        let (top, middle, name) = (at % 23, at % 7, at.wrapping_mul(2_654_435_761) >> 12);
        tree.add_file(format!("d{top}/m{middle}-{top}/f{name}"), 0o644, "")
            .unwrap();
    }
    for at in 0..3 * SCAN_NAMES {
        tree.add_file(format!("d5/wide/f{at}"), 0o644, "").unwrap();
        tree.add_file(format!("d5/wide/s{}/x", at % 50), 0o644, "")
            .unwrap();
    }
    tree
}

#[test]
fn the_order_is_that_of_a_walk_alone() {
    let tree = tree();
    for exclude in [&[][..], &["*", "!d1*/m3*", "!d5"], &["**/f1*", "d2"]] {
        let alone = walk(&tree, exclude, false);
        assert!(alone.1.is_none() && alone.0.len() > 300);
        for _ in 0..10 {
            assert!(walk(&tree, exclude, true) == alone, "{exclude:?}");
        }
    }
}

#[test]
fn an_error_comes_where_a_walk_alone_meets_it() {
    for broken in [&b"d11"[..], b"d11/m4-11"] {
        let tree = hooked(tree(), move |op| match op {
            Op::OpenDir(path) if path == broken => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        });
        let alone = walk(&tree, &[], false);
        assert!(alone.1.as_deref().is_some_and(|text| text.contains("d11")));
        for _ in 0..10 {
            assert!(walk(&tree, &[], true) == alone);
        }
    }
}

#[test]
fn excluded_directories_are_opened_by_nobody() {
    static OPENED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    let tree = hooked(tree(), |op| {
        if let Op::OpenDir(path) = op {
            OPENED.lock().unwrap().push(path.to_vec());
        }
        Ok(())
    });
    walk(&tree, &["d1*", "!d12/m0-12", "**/wide"], true);
    let opened = OPENED.lock().unwrap();
    assert!(opened.len() > 80);
    for path in opened.iter() {
        let text = String::from_utf8_lossy(path);
        let excluded = text.starts_with("d1") && !(text == "d12" || text.starts_with("d12/m0-12"));
        assert!(!excluded && !text.contains("wide"), "{text}");
    }
}

#[test]
fn helpers_end_with_a_walk_that_is_dropped_or_stopped() {
    let tree = tree();
    let filter = Filter::new(&tree, &FilterOptions::default()).unwrap();
    let stop = AtomicBool::new(false);
    // The scopes end only when all helpers have.
    std::thread::scope(|scope| {
        let mut walk = Walk::new(&tree, &filter, Utf8Policy::Any, &Unobserved, &stop).helped(scope);
        assert!(walk.by_ref().take(40).all(|entry| entry.is_ok()));
    });
    std::thread::scope(|scope| {
        let mut walk = Walk::new(&tree, &filter, Utf8Policy::Any, &Unobserved, &stop).helped(scope);
        assert!(walk.next().is_some());
        stop.store(true, Ordering::Relaxed);
        assert!(walk.count() < 6_000);
    });
}
