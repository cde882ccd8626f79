//! Archives as trees: what our writer and GNU tar say is what is there.

mod hand_made;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use bk_fsync::entry::{Entry, Kind};
use bk_fsync::filter::Filter;
use bk_fsync::path::RelPath;
use bk_fsync::report::Unobserved;
use bk_fsync::tar::{TarFault, TarReadError, TarWriter};
use bk_fsync::tree::{Run, TarTree};
use bk_fsync::walk::Walk;
use bk_fsync::{DirTree, FilePolicies, MemoryTree, OwnerPolicy, SyncPolicy, Tree, Utf8Policy};

const BLOCK: usize = 512;

fn read(archive: &[u8]) -> Result<TarTree, TarReadError> {
    TarTree::read(archive, std::env::temp_dir())
}

fn fault(archive: &[u8]) -> (Option<String>, TarFault) {
    let err = read(archive).unwrap_err();
    (err.member, err.fault)
}

fn walk(tree: &dyn Tree) -> Vec<Entry> {
    let (filter, never) = (Filter::default(), AtomicBool::new(false));
    Walk::new(tree, &filter, Utf8Policy::Any, &Unobserved, &never)
        .collect::<Result<_, _>>()
        .unwrap()
}

fn paths(tree: &dyn Tree) -> Vec<String> {
    walk(tree)
        .into_iter()
        .map(|e| String::from_utf8_lossy(&e.path).into_owned())
        .collect()
}

fn content(tree: &dyn Tree, path: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let mut file = tree.open(RelPath::new(path).unwrap()).unwrap();
    file.read_to_end(&mut content).unwrap();
    content
}

fn write(tree: &dyn Tree) -> Vec<u8> {
    let policies = FilePolicies::new()
        .owner(OwnerPolicy::Keep)
        .sync(SyncPolicy::Mtime);
    let mut tar = TarWriter::new(Vec::new()).unwrap().policies(policies);
    tar.append_tree(tree, &Filter::default(), &Unobserved, &AtomicBool::new(false))
        .unwrap();
    tar.finish().unwrap()
}

/// What two trees must agree on of an entry: path, kind, mode, time, owners and device, content, attributes.
type Summary = (
    Vec<u8>,
    Kind,
    u32,
    i64,
    (u32, u32, u64),
    Vec<u8>,
    Vec<(Vec<u8>, Vec<u8>)>,
);

/// All entries, with hard links as the first of their names.
fn summary(tree: &dyn Tree) -> Vec<Summary> {
    let mut first = BTreeMap::new();
    walk(tree)
        .into_iter()
        .map(|e| {
            let mut data = match e.meta.kind {
                Kind::File => content(tree, &e.path),
                _ => e.target.clone(),
            };
            if e.meta.nlink > 1 && e.meta.kind == Kind::File {
                let path = first
                    .entry((e.meta.dev, e.meta.ino))
                    .or_insert_with(|| e.path.clone());
                data.extend_from_slice(path);
            }
            let mut xattrs = e.xattrs;
            xattrs.sort();
            let mode = if e.meta.kind == Kind::Symlink {
                0
            } else {
                e.meta.mode
            };
            let numbers = (e.meta.uid, e.meta.gid, e.meta.rdev);
            // An archive has whole seconds unless it is told otherwise.
            (e.path, e.meta.kind, mode, e.meta.mtime_ns, numbers, data, xattrs)
        })
        .collect()
}

#[test]
fn what_the_writer_wrote_is_read_back() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut below = |end: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    };
    let names: [&[u8]; 7] = [
        b"a",
        b"b b",
        b"\xff",
        "é".as_bytes(),
        &[b'n'; 120],
        b"x\ny",
        b"a-b",
    ];
    for round in 0..300 {
        let mut tree = MemoryTree::new();
        let mut dirs = vec![Vec::new()];
        for number in 0..below(30) {
            let dir: Vec<u8> = dirs[usize::try_from(below(dirs.len() as u64)).unwrap()].clone();
            let name = names[usize::try_from(below(7)).unwrap()];
            let path = bk_fsync::path::join(RelPath::new(&dir).unwrap(), name);
            let mode = u32::try_from(below(0o10000)).unwrap();
            let added = match below(5) {
                0 => tree.add_dir(&path, mode).map(|_| dirs.push(path.clone())),
                1 => tree
                    .add_symlink(&path, name.repeat(1 + usize::try_from(below(3)).unwrap()))
                    .map(drop),
                2 => {
                    let mut meta = bk_fsync::entry::Meta::new(Kind::CharDevice);
                    (meta.mode, meta.rdev) = (mode, (0x123 << 8) | 0x45 | (0x678 << 20));
                    tree.add_special(&path, meta).map(drop)
                }
                _ => {
                    let len = [0, 1, 511, 512, 513, 70_000, 140_000][usize::try_from(below(7)).unwrap()];
                    let byte = u8::try_from(below(2) * (number % 256)).unwrap();
                    tree.add_file(&path, mode, vec![byte; len]).map(drop)
                }
            };
            if added.is_err() {
                continue;
            }
            let (time, id) = (
                i64::try_from(below(1 << 40)).unwrap() - (1 << 39),
                u32::try_from(below(1 << 32)).unwrap(),
            );
            let xattr = below(4) == 0;
            tree.edit(&path, |meta, xattrs| {
                meta.mtime_ns = time * 1_000_001;
                (meta.uid, meta.gid) = (id, id / 3);
                if xattr {
                    *xattrs = vec![(b"user.k".to_vec(), b"v\0\n=".to_vec())];
                }
            })
            .unwrap();
        }
        let archive = write(&tree);
        let again = read(&archive).unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        // Times travel whole with this policy.
        for (want, got) in summary(&tree).into_iter().zip(summary(&again)) {
            let short = |mut s: Summary| {
                s.5.truncate(40);
                s
            };
            assert!(
                want == got,
                "round {round}: {:?} {:?}",
                short(want.clone()),
                short(got.clone())
            );
        }
        assert_eq!(walk(&tree).len(), walk(&again).len(), "round {round}");
        // Zeros that became holes are written as holes: the bytes may differ, what they say does not.
        let third = read(&write(&again)).unwrap();
        assert!(summary(&again) == summary(&third), "round {round}");
    }
}

#[test]
fn a_directory_with_links_and_holes_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/one"), "linked").unwrap();
    fs::hard_link(root.join("d/one"), root.join("two")).unwrap();
    symlink("/etc/passwd", root.join("out")).unwrap();
    fs::set_permissions(root.join("d/one"), fs::Permissions::from_mode(0o4711)).unwrap();
    let size = 1u64 << 30;
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(size).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"middle", 300 << 20).unwrap();
    fs::File::create(root.join("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let tree = DirTree::open(root).unwrap();
    let archive = write(&tree);
    if sparse.metadata().unwrap().blocks() * 512 < size / 2 {
        assert!(archive.len() < 1 << 20, "{}", archive.len());
    }
    let again = read(&archive).unwrap();
    assert_eq!(paths(&again), ["d", "d/one", "hole", "out", "sparse", "two"]);
    let at = again.open_dir(RelPath::ROOT).unwrap();
    let (one, two) = (
        again
            .open_dir(RelPath::new(b"d").unwrap())
            .unwrap()
            .stat(b"one")
            .unwrap(),
        at.stat(b"two").unwrap(),
    );
    assert_eq!(one, two);
    assert_eq!((one.nlink, one.mode), (2, 0o4711));
    assert_ne!(one.ino, at.stat(b"hole").unwrap().ino);
    assert_eq!(at.read_link(b"out").unwrap(), b"/etc/passwd");
    let mut file = again.open(RelPath::new(b"sparse").unwrap()).unwrap();
    assert_eq!(file.stat().unwrap().size, size);
    if let Some(runs) = file.data_runs(100).unwrap() {
        assert_eq!(
            runs.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            [0, 300 << 20],
            "{runs:?}"
        );
        assert!(matches!(file.next_run().unwrap(), Run::Data(len) if len == runs[0].1));
    }
    drop(file);
    // GNU tar agrees on what was written, byte by byte.
    let out = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar")
        .arg("-xC")
        .arg(out.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(tar.wait().unwrap().success());
    let (ours, theirs) = (
        fs::File::open(root.join("sparse")).unwrap(),
        fs::File::open(out.path().join("sparse")).unwrap(),
    );
    assert_eq!(theirs.metadata().unwrap().len(), size);
    let mut buffers = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..size).step_by(1 << 20) {
        ours.read_exact_at(&mut buffers.0, at).unwrap();
        theirs.read_exact_at(&mut buffers.1, at).unwrap();
        assert!(buffers.0 == buffers.1, "at {at}");
    }
    assert_eq!(fs::metadata(out.path().join("hole")).unwrap().len(), 1 << 20);
}

#[test]
fn what_gnu_tar_wrote_is_read_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    let long = "long/".repeat(40) + &"name".repeat(30);
    fs::create_dir_all(root.join(&long).parent().unwrap()).unwrap();
    fs::write(root.join(&long), "deep").unwrap();
    fs::hard_link(root.join(&long), root.join("linked")).unwrap();
    symlink("t".repeat(150), root.join("sym")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    // More runs than one header holds.
    for number in 0..40u64 {
        sparse
            .write_all_at(&[u8::try_from(number).unwrap() + 1], number * (128 << 10))
            .unwrap();
    }
    sparse.sync_all().unwrap();
    let want = summary(&DirTree::open(&root).unwrap());
    let forms: [&[&str]; 6] = [
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0", "-z"],
        &[
            "--format=posix",
            "--pax-option=globexthdr.name=g,SCHILY.xattr.user.all=x",
            "-z",
        ],
    ];
    for form in forms {
        let archive = Command::new("tar")
            .args(form)
            .arg("-cC")
            .arg(&root)
            .arg(".")
            .output()
            .unwrap();
        assert!(
            archive.status.success(),
            "{form:?} {}",
            String::from_utf8_lossy(&archive.stderr)
        );
        let tree = read(&archive.stdout).unwrap_or_else(|e| panic!("{form:?} {e:?}"));
        let mut got = summary(&tree);
        let mut want = want.clone();
        let global = form.iter().any(|f| f.contains("user.all"));
        for (got, want) in got.iter_mut().zip(&mut want) {
            if form[0] == "--format=gnu" {
                want.3 = want.3.div_euclid(1_000_000_000) * 1_000_000_000;
            }
            if global {
                assert_eq!(got.6, [(b"user.all".to_vec(), b"x".to_vec())]);
            }
            (got.6, want.6) = (Vec::new(), Vec::new());
        }
        assert!(got == want, "{form:?}");
    }
    for (flag, name) in [("-j", "bzip2"), ("-J", "xz")] {
        let Ok(archive) = Command::new("tar")
            .arg(flag)
            .arg("-cC")
            .arg(&root)
            .arg("sym")
            .output()
        else {
            continue;
        };
        if archive.status.success() {
            assert!(matches!(fault(&archive.stdout).1, TarFault::Compressed(found) if found == name));
        }
    }
}
