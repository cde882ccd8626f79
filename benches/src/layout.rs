//! The names and sizes of the files in all trees: some directories of a project, two levels deep, with files of half a
//! KiB to 8 KiB.

use std::io;
use std::path::Path;

/// Files in one directory.
const FILES_PER_DIR: usize = 50;
/// Directories in each one at the top.
const DIRS_PER_TOP: usize = 10;
const TOPS: [&str; 8] = [
    "src",
    "lib",
    "docs",
    "node_modules",
    "target",
    "tests",
    "vendor",
    "assets",
];
const ENDINGS: [&str; 8] = ["rs", "go", "md", "js", "json", "o", "log", "png"];

/// A directory with files in it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Dir {
    /// Name of the directory at the top.
    pub top: String,
    /// Name of the directory in it.
    pub name: String,
    /// Name and size in bytes of each file.
    pub files: Vec<(String, usize)>,
}

/// A tree of `count` files, directories of the same top next to each other.
#[must_use]
pub fn layout(count: usize) -> Vec<Dir> {
    let dirs = 0..count.div_ceil(FILES_PER_DIR);
    let dir = |at: usize| {
        let top = at / DIRS_PER_TOP;
        let numbers = at * FILES_PER_DIR..count.min((at + 1) * FILES_PER_DIR);
        let file = |n: usize| {
            (
                format!("file{n:06}.{}", ENDINGS[n % ENDINGS.len()]),
                512 + n * 7919 % 7680,
            )
        };
        Dir {
            top: format!("{}{:03}", TOPS[top % TOPS.len()], top / TOPS.len()),
            name: format!("part{at:05}"),
            files: numbers.map(file).collect(),
        }
    };
    dirs.map(dir).collect()
}

/// Writes the files of a layout below `root`.
///
/// # Errors
/// Whatever the file system says.
pub fn write(root: &Path, dirs: &[Dir]) -> io::Result<()> {
    for dir in dirs {
        let place = root.join(&dir.top).join(&dir.name);
        std::fs::create_dir_all(&place)?;
        for (name, size) in &dir.files {
            std::fs::write(place.join(name), vec![b'x'; *size])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_has_as_many_files_as_asked_for() {
        let dirs = layout(1_234);
        assert_eq!(dirs.iter().map(|d| d.files.len()).sum::<usize>(), 1_234);
        assert_eq!(
            (dirs[0].top.as_str(), dirs[0].name.as_str()),
            ("src000", "part00000")
        );
        assert_eq!(dirs[0].files[0], ("file000000.rs".to_owned(), 512));
        assert_eq!(dirs[10].top, "lib000");
    }
}
