//! File systems of images as the fake daemon makes them: contexts, copies, the base image.

use super::receive::Received;
use crate::snapshot::{Entry, Kind, Snapshot};

/// Puts an entry into a tree, with the directories above it.
pub(super) fn put(tree: &mut Snapshot, path: &[u8], entry: Entry) {
    for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
        let parent = path.get(..at).unwrap_or_default().to_vec();
        tree.entries
            .entry(parent)
            .or_insert_with(|| Entry::new(Kind::Dir, 0o755));
    }
    tree.entries.insert(path.to_vec(), entry);
}

pub(super) fn copy_one(
    source: &Snapshot,
    from: &str,
    dest: &str,
    many: bool,
    tree: &mut Snapshot,
) -> Result<(), (String, Option<i32>)> {
    let from = from
        .trim_matches('/')
        .trim_start_matches("./")
        .trim_end_matches('.')
        .trim_matches('/');
    let into = dest
        .trim_matches('/')
        .trim_start_matches("./")
        .trim_matches('.')
        .as_bytes()
        .to_vec();
    let join = |dir: &[u8], name: &[u8]| {
        if dir.is_empty() {
            name.to_vec()
        } else {
            [dir, b"/", name].concat()
        }
    };
    if let Some(entry) = source
        .entries
        .get(from.as_bytes())
        .filter(|e| e.kind != Kind::Dir)
    {
        let name = from.rsplit('/').next().unwrap_or_default();
        let path = if many || dest.ends_with('/') {
            join(&into, name.as_bytes())
        } else {
            into
        };
        put(
            tree,
            &path,
            Entry {
                group: None,
                ..entry.clone()
            },
        );
        return Ok(());
    }
    let whole = from.is_empty();
    if !whole && !source.entries.contains_key(from.as_bytes()) {
        let text = format!("failed to calculate checksum of ref fake::context: \"/{from}\": not found");
        return Err((text, None));
    }
    let copied = if whole { source.clone() } else { source.below(from) };
    if !into.is_empty() {
        tree.entries
            .entry(into.clone())
            .or_insert_with(|| Entry::new(Kind::Dir, 0o755));
    }
    for (path, entry) in copied.entries {
        let group = entry.group.as_deref().map(|g| join(&into, g));
        put(tree, &join(&into, &path), Entry { group, ..entry });
    }
    Ok(())
}

/// What was transferred, as the tree that it is.
pub(super) fn context_tree(received: &Received) -> Snapshot {
    let mut tree = Snapshot::default();
    for (path, file) in &received.files {
        let stat = &file.stat;
        let kind = match stat.mode {
            m if m & (1 << 31) != 0 => Kind::Dir,
            m if m & (1 << 27) != 0 => Kind::Symlink,
            m if m & (1 << 26) != 0 => Kind::Device,
            m if m & (1 << 25) != 0 => Kind::Fifo,
            _ => Kind::File,
        };
        let special = |bit: u32, mode: u32| if stat.mode & (1 << bit) != 0 { mode } else { 0 };
        let mode = stat.mode & 0o777 | special(23, 0o4000) | special(22, 0o2000) | special(20, 0o1000);
        let mut entry = Entry::new(kind, mode);
        entry.mtime = stat.mod_time.div_euclid(1_000_000_000);
        if kind == Kind::File {
            let first = if stat.linkname.is_empty() {
                path
            } else {
                &stat.linkname
            };
            let content = received.files.get(first).unwrap_or(file);
            (entry.size, entry.digest) = (content.size, content.digest);
            entry.group = Some(first.clone());
        }
        if kind == Kind::Symlink {
            entry.target = Some(stat.linkname.clone());
        }
        tree.entries.insert(path.clone(), entry);
    }
    tree.regroup();
    tree
}

/// What every image of the fake registry holds.
pub(super) fn base_image() -> Snapshot {
    let mut tree = Snapshot::default();
    put(
        &mut tree,
        b"bin/sh",
        Entry::new(Kind::File, 0o755).content(b"not a real shell\n"),
    );
    put(
        &mut tree,
        b"etc/base",
        Entry::new(Kind::File, 0o644).content(b"from the registry\n"),
    );
    tree
}
