//! A destination full of traps, beside a directory in which nothing may change.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::NAMES;

/// What lies outside, and how it must stay.
const KEEP: &str = "not to be touched";

/// Makes `outside` and `dest` in `place` anew: links to the one lie in the other where entries may be written.
pub fn set(place: &Path) {
    let (dest, outside) = (place.join("dest"), place.join("outside"));
    for dir in [&dest, &outside] {
        if dir.exists() {
            fs::remove_dir_all(dir).expect("it is ours");
        }
        fs::create_dir(dir).expect("there is room");
    }
    fs::write(outside.join("keep"), KEEP).expect("there is room");
    fs::create_dir(dest.join("a")).expect("there is room");
    symlink("../outside", dest.join("l")).expect("there is room");
    symlink("../../outside/keep", dest.join("a/keep")).expect("there is room");
    symlink("../../outside", dest.join("a/b")).expect("there is room");
    symlink("../outside/new", dest.join("b")).expect("there is room");
}

/// Checks that nothing outside has changed, and that nothing of another name is left inside.
pub fn check(place: &Path) {
    let outside = place.join("outside");
    assert_eq!(names(&outside), ["keep"]);
    assert_eq!(fs::read_to_string(outside.join("keep")).expect("it is there"), KEEP);
    let meta = fs::symlink_metadata(outside.join("keep")).expect("it is there");
    assert!(meta.is_file() && meta.nlink() == 1, "a link to what is outside was made");
    assert_eq!(names(place), ["dest", "outside"]);
    let mut dirs = vec![place.join("dest")];
    while let Some(dir) = dirs.pop() {
        for name in names(&dir) {
            assert!(NAMES.contains(&name.as_str()), "{name:?} is left in the destination");
            let path = dir.join(name);
            if fs::symlink_metadata(&path).expect("it is there").is_dir() {
                dirs.push(path);
            }
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("it is there");
    let name =
        |e: std::io::Result<fs::DirEntry>| e.expect("it lists").file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}
