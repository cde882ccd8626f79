//! Trees that are made of other trees.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;

use bk_fsync::entry::Kind;
use bk_fsync::path::{PathFault, RelPath};
use bk_fsync::tree::{MapError, OpenFileError, OverlayTree, PathMapTree, Run, SingleFileTree};
use bk_fsync::{DirTree, MemoryTree, SendError, SendOptions, Tree};

use crate::peer::transfer;

fn rel(path: &str) -> RelPath<'_> {
    RelPath::new(path.as_bytes()).unwrap()
}

fn text(tree: &dyn Tree, path: &str) -> String {
    let mut text = String::new();
    tree.open(rel(path)).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn names(tree: &dyn Tree, path: &str) -> Vec<String> {
    let listed = tree.open_dir(rel(path)).unwrap().list().unwrap();
    let mut names: Vec<_> = listed
        .into_iter()
        .map(|l| String::from_utf8(l.name).unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_overlay_shows_the_upper_entry_and_merges_directories() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for path in ["d/deep", "was-dir/x", "gone/a", "e"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o2750)).unwrap();
    fs::set_permissions(root.join("e"), fs::Permissions::from_mode(0o700)).unwrap();
    for (path, content) in [
        ("d/low", "low"),
        ("d/both", "old"),
        ("d/deep/f", "f"),
        ("was-file", "file"),
        ("e/x", "x"),
    ] {
        fs::write(root.join(path), content).unwrap();
    }
    symlink("d", root.join("l")).unwrap();
    let mut upper = MemoryTree::new();
    upper.add_file("d/both", 0o600, "new").unwrap();
    upper.add_file("d/up", 0o644, "up").unwrap();
    upper.add_file("was-dir", 0o644, "now a file").unwrap();
    upper.add_file("was-file/in", 0o644, "now below").unwrap();
    upper.add_file("gone/a/new", 0o644, "hidden below only").unwrap();
    upper.add_file("l/x", 0o644, "not through the link").unwrap();
    upper.add_dir("e", 0o711).unwrap();
    let tree = OverlayTree::new(Arc::new(upper), Arc::new(DirTree::open(root).unwrap()));
    let tree = tree.hide("gone/a").unwrap().hide("d/deep/f").unwrap();

    let (outcome, got) = transfer(tree.clone(), SendOptions::new()).await;
    outcome.unwrap();
    assert_eq!(
        got.paths(),
        [
            "d",
            "d/both",
            "d/deep",
            "d/low",
            "d/up",
            "e",
            "e/x",
            "gone",
            "gone/a",
            "gone/a/new",
            "l",
            "l/x",
            "was-dir",
            "was-file",
            "was-file/in"
        ]
    );
    for (path, content) in [
        ("d/both", "new"),
        ("d/low", "low"),
        ("d/up", "up"),
        ("was-dir", "now a file"),
        ("was-file/in", "now below"),
        ("l/x", "not through the link"),
    ] {
        assert_eq!(got.files[path.as_bytes()], content.as_bytes(), "{path}");
    }
    // A directory that the upper tree only implies keeps what the lower one says; one that it names does not.
    assert_eq!(got.stat("d").mode & 0o777, 0o750);
    assert_eq!(got.stat("e").mode & 0o777, 0o711);
    // What is covered or hidden cannot be opened either.
    for path in ["gone/a/old", "d/deep/f", "was-dir/x", "l/low"] {
        assert!(tree.open(rel(path)).is_err(), "{path}");
    }
    assert!(tree.open_dir(rel("was-dir")).is_err());
    assert_eq!(names(&tree, "d/deep"), Vec::<String>::new());
    assert_eq!(tree.hide("../x").unwrap_err().fault, PathFault::Escapes);
}

#[test]
fn identity_and_holes_pass_through() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("sparse")).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_all_at(b"x", 4 << 20).unwrap();
    file.sync_all().unwrap();
    let found = file.metadata().unwrap();
    let lower: Arc<dyn Tree> = Arc::new(DirTree::open(dir.path()).unwrap());
    let overlay = OverlayTree::new(Arc::new(MemoryTree::new()), Arc::clone(&lower));
    let mapped = PathMapTree::new().map("at/sparse", lower, "sparse").unwrap();
    let hosted = PathMapTree::new()
        .map_host("at/sparse", dir.path().join("sparse"))
        .unwrap();
    let single = SingleFileTree::open("sparse", dir.path().join("sparse")).unwrap();
    let all: [(&dyn Tree, &str); 4] = [(&overlay, ""), (&mapped, "at"), (&hosted, "at"), (&single, "")];
    for (tree, above) in all {
        let meta = tree.open_dir(rel(above)).unwrap().stat(b"sparse").unwrap();
        assert_eq!((meta.dev, meta.ino), (found.dev(), found.ino()));
        assert_eq!(meta.ctime_ns, found.ctime() * 1_000_000_000 + found.ctime_nsec());
        let path = format!("{above}/sparse");
        let mut file = tree.open(rel(path.trim_start_matches('/'))).unwrap();
        assert_eq!(file.stat().unwrap().ino, found.ino());
        if found.blocks() * 512 < found.len() {
            let runs = file.data_runs(8).unwrap().unwrap();
            assert!(
                runs.len() == 1 && runs[0].0 <= 4 << 20 && runs[0].1 < 1 << 20,
                "{runs:?}"
            );
            assert_eq!(file.next_run().unwrap(), Run::Hole(runs[0].0));
            assert_eq!(file.next_run().unwrap(), Run::Data(runs[0].1));
        }
    }
}

#[tokio::test]
async fn a_path_map_shows_what_is_mapped_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("srv/web/img")).unwrap();
    fs::set_permissions(root.join("srv/web"), fs::Permissions::from_mode(0o705)).unwrap();
    fs::write(root.join("srv/web/index"), "index").unwrap();
    fs::write(root.join("srv/web/img/a"), "a").unwrap();
    fs::write(root.join("srv/secret"), "no").unwrap();
    fs::write(root.join("go.mod"), "mod").unwrap();
    symlink("go.mod", root.join("l")).unwrap();
    let host: Arc<dyn Tree> = Arc::new(DirTree::open(root).unwrap());
    let mut memory = MemoryTree::new();
    memory.add_file("gen/v", 0o644, "generated").unwrap();
    let memory: Arc<dyn Tree> = Arc::new(memory);
    let tree = PathMapTree::new()
        .map("app", host.clone(), "srv/web")
        .unwrap()
        .map("app/go.mod", host.clone(), "go.mod")
        .unwrap()
        .map("app/img/gen", memory.clone(), "gen")
        .unwrap()
        .map("app/index/over", memory.clone(), "gen/v")
        .unwrap()
        .map("link", host.clone(), "l")
        .unwrap()
        .map("missing", host.clone(), "none")
        .unwrap()
        .map_host("deep/er/file", root.join("l"))
        .unwrap()
        .map_host("web", root.join("srv/web"))
        .unwrap();
    let (outcome, got) = transfer(tree.clone(), SendOptions::new()).await;
    outcome.unwrap();
    assert_eq!(
        got.paths(),
        [
            "app",
            "app/go.mod",
            "app/img",
            "app/img/a",
            "app/img/gen",
            "app/img/gen/v",
            "app/index",
            "app/index/over",
            "deep",
            "deep/er",
            "deep/er/file",
            "link",
            "web",
            "web/img",
            "web/img/a",
            "web/index"
        ]
    );
    assert_eq!(got.files[&b"app/go.mod"[..]], b"mod");
    assert_eq!(got.files[&b"app/img/gen/v"[..]], b"generated");
    assert_eq!(got.files[&b"deep/er/file"[..]], b"mod");
    assert_eq!(got.stat("link").linkname, b"go.mod");
    assert_eq!(
        (got.stat("app").mode & 0o777, got.stat("web").mode & 0o777),
        (0o705, 0o705)
    );
    for path in [
        "app/secret",
        "srv/secret",
        "app/index",
        "missing",
        "app/../go.mod",
    ] {
        assert!(
            RelPath::new(path.as_bytes()).map_or(true, |p| tree.open(p).is_err()),
            "{path}"
        );
    }
    assert_eq!(names(&tree, "app/img"), ["a", "gen"]);
    assert_eq!(text(&tree, "web/img/a"), "a");

    // The root can be mapped, and a prefix of another tree as well.
    let tree = PathMapTree::new()
        .map("", host, "srv")
        .unwrap()
        .map("gen", memory, "gen")
        .unwrap();
    assert_eq!(names(&tree, ""), ["gen", "secret", "web"]);
    assert_eq!(text(&tree, "gen/v"), "generated");
    let err = PathMapTree::new().map_host("x", root.join("none")).unwrap_err();
    assert!(
        matches!(&err, MapError::Host { path, .. } if path.ends_with("none")),
        "{err}"
    );
    assert!(PathMapTree::new().map_host("", root.join("go.mod")).is_err());
    assert!(
        PathMapTree::new()
            .map("a/../b", Arc::new(MemoryTree::new()), "")
            .is_err()
    );
}

#[tokio::test]
async fn a_single_file_is_there_or_it_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Containerfile");
    assert!(matches!(
        SingleFileTree::open("Dockerfile", &path),
        Err(OpenFileError::Host { .. })
    ));
    assert!(SingleFileTree::open("Dockerfile", dir.path()).is_err());
    fs::write(&path, "FROM scratch").unwrap();
    assert!(matches!(
        SingleFileTree::open("a/b", &path),
        Err(OpenFileError::Name(_))
    ));
    let tree = SingleFileTree::open("Dockerfile", &path).unwrap();
    let (outcome, got) = transfer(tree.clone(), SendOptions::new()).await;
    outcome.unwrap();
    assert_eq!(got.paths(), ["Dockerfile"]);
    assert_eq!(got.files[&b"Dockerfile"[..]], b"FROM scratch");
    assert_eq!(
        tree.open_dir(RelPath::ROOT)
            .unwrap()
            .stat(b"Dockerfile")
            .unwrap()
            .kind,
        Kind::File
    );
    fs::remove_file(&path).unwrap();
    let (outcome, _) = transfer(tree, SendOptions::new()).await;
    let err = outcome.unwrap_err();
    let SendError::List(err) = err else {
        panic!("{err}")
    };
    let cause = std::error::Error::source(&err).unwrap().to_string();
    assert!(cause.contains("Containerfile"), "{err}: {cause}");
}
