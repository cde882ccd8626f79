//! The limits that benchmarks stand beside: what the kernel takes for the same files when a program does nothing else.
//!
//! The rule: one thread reads the disk and does the least that the task needs, by the same system calls; content goes
//! through a Unix socket, to a thread that only takes it.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use bk_fsync::limits::DATA_CHUNK;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, statat};

/// Bytes of names that are asked of a directory at once.
const NAMES: usize = 32 * 1024;

/// Lists everything below `root` and examines every name, as `find` does. Entries found.
///
/// # Errors
/// Whatever the file system says.
pub fn list(root: &Path) -> io::Result<u64> {
    below(open(CWD, root, OFlags::DIRECTORY)?, &mut |_, _| Ok(()))
}

/// As [`list`], and writes the content of every file to a Unix socket. Bytes that arrived at its other end.
///
/// # Errors
/// Whatever the file system or the socket says.
pub fn copy(root: &Path) -> io::Result<u64> {
    drained(|to| {
        let mut piece = vec![0; DATA_CHUNK];
        below(open(CWD, root, OFlags::DIRECTORY)?, &mut |dir, name| {
            let mut file = std::fs::File::from(open(dir, name, OFlags::empty())?);
            loop {
                match file.read(&mut piece)? {
                    0 => return Ok(()),
                    count => to.write_all(&piece[..count])?,
                }
            }
        })?;
        Ok(())
    })
}

/// Hands `write` one end of a Unix socket, and takes what comes out of the other. Bytes that arrived there.
///
/// # Errors
/// Whatever `write` or the socket says.
pub fn drained(write: impl FnOnce(&mut UnixStream) -> io::Result<()>) -> io::Result<u64> {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    std::thread::scope(|scope| {
        let taken = scope.spawn(move || {
            let (mut piece, mut bytes) = (vec![0; DATA_CHUNK], 0);
            loop {
                match theirs.read(&mut piece)? {
                    0 => return Ok(bytes),
                    count => bytes += count as u64,
                }
            }
        });
        let written = write(&mut ours);
        drop(ours);
        let taken = taken
            .join()
            .map_err(|_| io::Error::other("the reader panicked"))?;
        written.and(taken)
    })
}

fn open(dir: impl AsFd, name: impl rustix::path::Arg, more: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

type OnFile<'a> = dyn FnMut(&OwnedFd, &std::ffi::CStr) -> io::Result<()> + 'a;

fn below(dir: OwnedFd, file: &mut OnFile<'_>) -> io::Result<u64> {
    let mut room = vec![MaybeUninit::uninit(); NAMES];
    let mut names = RawDir::new(&dir, &mut room);
    let mut entries = 0;
    while let Some(name) = names.next() {
        let name = name?;
        let name = name.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        entries += 1;
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => entries += below(open(&dir, name, OFlags::DIRECTORY)?, file)?,
            FileType::RegularFile => file(&dir, name)?,
            _ => {}
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_listed_and_every_byte_arrives() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("a/b")).unwrap();
        std::fs::write(place.path().join("a/b/c"), vec![7; 3 * DATA_CHUNK + 1]).unwrap();
        std::fs::write(place.path().join("d"), "four").unwrap();
        std::os::unix::fs::symlink("d", place.path().join("e")).unwrap();
        assert_eq!(list(place.path()).unwrap(), 5);
        assert_eq!(copy(place.path()).unwrap(), 3 * DATA_CHUNK as u64 + 5);
    }
}
