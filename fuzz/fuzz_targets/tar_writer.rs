//! Archives of trees with any names, links and contents, read again by the `tar` crate.

#![no_main]

use std::{io::Read, sync::atomic::AtomicBool};

use bk_fsync::{MemoryTree, filter::Filter, report::Unobserved, tar::TarWriter};
use bk_fuzz::TreeFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Vec<TreeFile>| {
    let (mut tree, mut want) = (MemoryTree::new(), std::collections::BTreeMap::new());
    // The reader cuts PAX records at line feeds, which is its own mistake.
    for (path, content, mtime, mode) in input.into_iter().filter(|i| !i.0.contains(&b'\n')) {
        let mode = u32::from(mode) & 0o7777;
        let added = match &content {
            Some(content) => tree.add_file(&path, mode, content.clone()).is_ok(),
            None => tree.add_symlink(&path, path.repeat(2)).is_ok(),
        };
        if added {
            tree.edit(&path, |meta, _| meta.mtime_ns = mtime).expect("it is there");
            // What takes the place of a directory takes what was in it.
            want.retain(|known: &Vec<u8>, _| !known.starts_with(&[&path[..], b"/"].concat()));
            want.insert(path, (content, mode));
        }
    }
    let mut writer = TarWriter::new(Vec::new()).expect("memory");
    writer.append_tree(&tree, &Filter::default(), &Unobserved, &AtomicBool::new(false)).expect("whole");
    let archive = writer.finish().expect("memory");
    for entry in tar::Archive::new(&archive[..]).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let Some((content, mode)) = want.remove(entry.path_bytes().as_ref()) else { continue };
        let mut got = Vec::new();
        entry.read_to_end(&mut got).expect("content");
        assert_eq!(got, content.unwrap_or_default());
        assert!(entry.header().entry_type().is_symlink() || entry.header().mode().ok() == Some(mode));
    }
    assert!(want.is_empty(), "{want:?}");
});
