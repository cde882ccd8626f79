//! Archives of any bytes: read as a tree or refused, with nothing outside of it, and no more than was stored.

#![no_main]

use std::io::Read;

use bk_fsync::{Tree, entry::Kind, path::RelPath, tree::TarTree};
use bk_fuzz::tar::mended;
use libfuzzer_sys::fuzz_target;

/// Larger files are mostly holes: not worth reading.
const READ: u64 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    visit(input);
    visit(&mended(input));
});

fn visit(archive: &[u8]) {
    let Ok(tree) = TarTree::read(archive, std::env::temp_dir()) else {
        return;
    };
    let mut dirs = vec![Vec::new()];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        let at = RelPath::new(&dir).expect("a clean path");
        let mut open = tree.open_dir(at).expect("it was listed");
        for listed in open.list().expect("memory") {
            seen += 1;
            assert!(seen < 10_000, "a small archive cannot hold so much");
            let path = bk_fsync::path::join(at, &listed.name);
            let rel = RelPath::new(&path).expect("a clean path");
            let meta = open.stat(&listed.name).expect("it was listed");
            assert!(listed.kind == Some(meta.kind) && meta.mode <= 0o7777 && meta.nlink >= 1);
            open.xattrs(&listed.name).expect("stored");
            match meta.kind {
                Kind::Dir => dirs.push(path.clone()),
                Kind::Symlink => {
                    let target = open.read_link(&listed.name).expect("stored");
                    assert_eq!(target.len() as u64, meta.size);
                }
                Kind::File => {
                    assert_ne!(meta.ino, 0);
                    let mut file = tree.open(rel).expect("stored");
                    let mut content = Vec::new();
                    let got = (&mut file).take(READ).read_to_end(&mut content).expect("stored");
                    assert_eq!(got as u64, meta.size.min(READ));
                }
                _ => {}
            }
            assert_eq!(meta.kind == Kind::File, tree.open(rel).is_ok());
        }
    }
}
