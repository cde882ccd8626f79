//! Sizes, digests and findings of small trees.

use std::sync::{Arc, atomic::AtomicBool};

use bk_build::{BuildRequest, Context};
use bk_fsync::MemoryTree;

use super::{ContextView, Differs, LintKind};

fn view(files: &[(&str, u32, &str)], links: &[(&str, &str)]) -> ContextView {
    let mut tree = MemoryTree::new();
    tree.add_file("Dockerfile", 0o644, "FROM scratch\nCOPY . /\n")
        .expect("a file");
    for (path, mode, content) in files {
        tree.add_file(*path, *mode, (*content).to_owned())
            .expect("a file");
    }
    for (path, to) in links {
        tree.add_symlink(*path, *to).expect("a link");
    }
    ContextView::of(&BuildRequest::new(Context::Tree(Arc::new(tree))), None).expect("a view")
}

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

#[test]
fn sizes_are_added_up_to_the_depth() {
    let view = view(
        &[
            ("a/b/c/d", 0o644, "four"),
            ("a/x", 0o644, "1"),
            ("z", 0o644, "larger one"),
        ],
        &[],
    );
    let all = view.sizes(Some(1), &never(), &|_| {}).expect("sizes");
    let children: Vec<_> = all
        .children
        .iter()
        .map(|c| (&*c.name, c.bytes, c.files))
        .collect();
    assert_eq!(
        children,
        [(&b"Dockerfile"[..], 22, 1), (b"z", 10, 1), (b"a", 5, 2)]
    );
    assert_eq!((all.bytes, all.files), (37, 4));
    let all = view.sizes(None, &never(), &|_| {}).expect("sizes");
    assert_eq!(all.children[2].children[0].children[0].children[0].name, b"d");
    assert_eq!((all.bytes, all.files), (37, 4));
}

#[test]
fn digests_are_as_defined() {
    use sha2::{Digest as _, Sha256};
    let view = view(&[("d/f", 0o755, "content")], &[("l", "d/f")]);
    let mut want = Sha256::new_with_prefix(b"bk-context-1\n");
    let mut entry = |kind: u8, mode: u32, path: &str| {
        want.update([kind]);
        want.update(mode.to_be_bytes());
        want.update((path.len() as u64).to_be_bytes());
        want.update(path);
    };
    entry(b'f', 0o644, "Dockerfile");
    let file = |want: &mut Sha256, text: &str| {
        want.update((text.len() as u64).to_be_bytes());
        want.update(Sha256::digest(text));
    };
    file(&mut want, "FROM scratch\nCOPY . /\n");
    let mut entry = |kind: u8, mode: u32, path: &str| {
        want.update([kind]);
        want.update(mode.to_be_bytes());
        want.update((path.len() as u64).to_be_bytes());
        want.update(path);
    };
    entry(b'd', 0o755, "d");
    entry(b'f', 0o755, "d/f");
    file(&mut want, "content");
    want.update([b'l']);
    want.update(0o777_u32.to_be_bytes());
    want.update(1_u64.to_be_bytes());
    want.update("l");
    want.update(3_u64.to_be_bytes());
    want.update("d/f");
    let hex: String = want.finalize().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        view.digest(&never(), &|_| {}).expect("a digest"),
        format!("sha256:{hex}")
    );
}

#[test]
fn differences_come_in_wire_order() {
    let one = view(
        &[
            ("a/x", 0o644, "same"),
            ("a-b", 0o644, "one"),
            ("m", 0o644, ""),
            ("n", 0o644, "1"),
        ],
        &[("k", "t")],
    );
    let two = view(
        &[
            ("a/x", 0o644, "sane"),
            ("k", 0o644, ""),
            ("m", 0o600, ""),
            ("n", 0o600, "2"),
            ("o", 0o644, ""),
        ],
        &[],
    );
    let mut found = Vec::new();
    let each = |d: super::ContextDifference| {
        found.push((String::from_utf8(d.path).expect("text"), d.what));
        Ok::<_, bk_build::BuildError>(())
    };
    one.differences(&two, &never(), &|_| {}, each).expect("an answer");
    let want = [
        ("a/x", Differs::Content),
        ("a-b", Differs::Added),
        ("k", Differs::Kind),
        ("m", Differs::Mode),
        ("n", Differs::Content),
        ("o", Differs::Removed),
    ];
    assert_eq!(found, want.map(|(path, what)| (path.to_owned(), what)));
    let stopped = AtomicBool::new(true);
    assert!(one.digest(&stopped, &|_| {}).is_err());
}

#[test]
fn findings_name_lines_and_paths() {
    let large = "x".repeat(2 * 1024 * 1024);
    let ignore = "**/*.log\n!a/keep.log\n!b.txt\nnone\nnode_modules\na**b\n!a/again\na/again\n";
    let view = view(
        &[
            (".dockerignore", 0o644, ignore),
            ("a/keep.log", 0o644, "k"),
            ("a/other.log", 0o644, "o"),
            ("a/again", 0o644, ""),
            ("b.txt", 0o644, "b"),
            ("node_modules/in", 0o644, ""),
            ("p/node_modules/x/y", 0o644, &large),
            ("tls/key.pem", 0o644, "-----BEGIN PRIVATE KEY-----"),
            ("tls/cert.pem", 0o644, "-----BEGIN CERTIFICATE-----"),
        ],
        &[],
    );
    let found = view.lint(&never(), &|_| {}).expect("findings");
    let found: Vec<_> = found
        .iter()
        .map(|f| (f.kind, f.place.as_ref().map(|(_, line)| *line), f.path.as_deref()))
        .collect();
    use LintKind::{DeadPattern, Differs, Huge, NoEffect, Secret};
    assert_eq!(
        found,
        [
            (NoEffect, Some(3), None),
            (DeadPattern, Some(4), None),
            (Differs, Some(5), None),
            (DeadPattern, Some(6), None),
            (Differs, Some(6), None),
            (NoEffect, Some(7), None),
            (Secret, None, Some(&b"tls/key.pem"[..])),
            (Huge, None, Some(b"p/node_modules")),
        ]
    );
}
