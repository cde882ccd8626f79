//! Directory trees to build from: every kind of file, exact modes and times, made in a temporary directory.
//!
//! A [`TreeBuilder`] only collects what to make; [`TreeBuilder::build`] makes it, so that directory modes and times are
//! set last and nothing of them depends on the umask or on the order of the calls.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use filetime::FileTime;
use tempfile::TempDir;

use crate::limits;

/// The modification time of everything whose time is not given: an odd moment with nanoseconds, in seconds since the
/// epoch.
pub const DEFAULT_MTIME: (i64, u32) = (1_700_000_001, 123_456_789);

/// What a file or directory is besides its content.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    mode: u32,
    mtime: (i64, u32),
}

impl Meta {
    /// Permission bits, with setuid, setgid and sticky (`0o7777`). The time is [`DEFAULT_MTIME`].
    pub fn mode(mode: u32) -> Self {
        Self {
            mode: mode & 0o7777,
            mtime: DEFAULT_MTIME,
        }
    }

    /// Sets the modification time, in seconds and nanoseconds since the epoch.
    #[must_use]
    pub fn mtime(mut self, seconds: i64, nanos: u32) -> Self {
        self.mtime = (seconds, nanos);
        self
    }
}

#[derive(Debug)]
enum Make {
    File { content: Vec<u8>, meta: Meta },
    Big { bytes: u64, seed: u64, meta: Meta },
    Dir { meta: Meta },
    Symlink { target: OsString },
    HardLink { target: OsString },
    Fifo { meta: Meta },
    Socket,
}

/// Collects what a tree consists of. Missing parent directories are made with mode 0755.
#[derive(Debug, Default)]
#[must_use]
pub struct TreeBuilder {
    make: Vec<(OsString, Make)>,
}

impl TreeBuilder {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(mut self, path: impl AsRef<OsStr>, make: Make) -> Self {
        self.make.push((path.as_ref().to_owned(), make));
        self
    }

    /// A file of mode 0644.
    pub fn file(self, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>) -> Self {
        self.file_with(path, content, Meta::mode(0o644))
    }

    /// A file.
    pub fn file_with(self, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>, meta: Meta) -> Self {
        self.push(
            path,
            Make::File {
                content: content.as_ref().to_vec(),
                meta,
            },
        )
    }

    /// A file with the content of `source`, of mode 0755.
    ///
    /// # Errors
    /// When `source` cannot be read.
    pub fn program(self, path: impl AsRef<OsStr>, source: &Path) -> io::Result<Self> {
        let content = fs::read(source)?;
        Ok(self.file_with(path, content, Meta::mode(0o755)))
    }

    /// A file of `bytes` pseudo-random bytes that depend on `seed` only, of mode 0644. Never held in memory.
    pub fn big(self, path: impl AsRef<OsStr>, bytes: u64, seed: u64) -> Self {
        self.push(
            path,
            Make::Big {
                bytes,
                seed,
                meta: Meta::mode(0o644),
            },
        )
    }

    /// `count` small files below `dir`, in directories of [`limits::FILES_PER_DIR`]; each has its own content, and
    /// sizes run from 0 to 63 bytes more than its name.
    pub fn many(mut self, dir: &str, count: usize) -> Self {
        for n in 0..count {
            let path = format!("{dir}/d{:04}/f{:06}", n / limits::FILES_PER_DIR, n);
            let content = if n % 64 == 0 {
                String::new()
            } else {
                format!("{n}{}", ".".repeat(n % 64))
            };
            self = self.file(path, content);
        }
        self
    }

    /// `depth` directories inside each other below `dir`, with a file `leaf` in the last one.
    pub fn deep(self, dir: &str, depth: usize) -> Self {
        let mut path = dir.to_owned();
        for n in 0..depth {
            path.push_str(&format!("/l{n}"));
        }
        self.file(format!("{path}/leaf"), format!("{depth} levels down\n"))
    }

    /// A directory of mode 0755.
    pub fn dir(self, path: impl AsRef<OsStr>) -> Self {
        self.dir_with(path, Meta::mode(0o755))
    }

    /// A directory.
    pub fn dir_with(self, path: impl AsRef<OsStr>, meta: Meta) -> Self {
        self.push(path, Make::Dir { meta })
    }

    /// A symbolic link with that raw text, dangling or not.
    pub fn symlink(self, path: impl AsRef<OsStr>, target: impl AsRef<OsStr>) -> Self {
        self.push(
            path,
            Make::Symlink {
                target: target.as_ref().to_owned(),
            },
        )
    }

    /// Another name for the file `target`, a path in this tree that was named before.
    pub fn hard_link(self, path: impl AsRef<OsStr>, target: impl AsRef<OsStr>) -> Self {
        self.push(
            path,
            Make::HardLink {
                target: target.as_ref().to_owned(),
            },
        )
    }

    /// A named pipe of mode 0644.
    pub fn fifo(self, path: impl AsRef<OsStr>) -> Self {
        self.push(
            path,
            Make::Fifo {
                meta: Meta::mode(0o644),
            },
        )
    }

    /// A socket that nobody listens on any more.
    pub fn socket(self, path: impl AsRef<OsStr>) -> Self {
        self.push(path, Make::Socket)
    }

    /// Makes the tree.
    ///
    /// # Errors
    /// When the file system refuses something; the error names the path.
    pub fn build(self) -> io::Result<Tree> {
        let dir = tempfile::Builder::new()
            .prefix("bk-fixture-")
            .tempdir_in(roomy_place())?;
        self.build_in(dir.path())?;
        Ok(Tree { dir })
    }

    /// Makes the tree inside `root`, an existing directory.
    ///
    /// # Errors
    /// When the file system refuses something; the error names the path.
    pub fn build_in(self, root: &Path) -> io::Result<()> {
        let mut dirs: Vec<(PathBuf, Meta)> = vec![(root.to_owned(), Meta::mode(0o755))];
        for (path, make) in self.make {
            let full = root.join(&path);
            let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", full.display()));
            if let Some(parent) = full.parent() {
                make_parents(root, parent, &mut dirs).map_err(named)?;
            }
            make_one(root, &full, make, &mut dirs).map_err(named)?;
        }
        // Deepest first: setting the time of a directory must come after everything inside it.
        dirs.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, meta) in dirs {
            apply(&path, meta)?;
        }
        // A file that has only just changed is sent once more by the next build, since its time could stand for two
        // versions. Tests count files, so theirs must be older.
        std::thread::sleep(limits::SETTLED); // sleep: time itself has to pass
        Ok(())
    }
}

/// Where trees are made: in memory where there is plenty of room for them, else where temporary files go. Some disks of
/// build machines remove no more than a few hundred small files a second.
fn roomy_place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = nix::sys::statvfs::statvfs(memory).map(|fs| {
        #[expect(
            clippy::useless_conversion,
            reason = "the types of these numbers differ between systems"
        )]
        let (blocks, size) = (u64::from(fs.blocks_available()), u64::from(fs.fragment_size()));
        blocks.saturating_mul(size)
    });
    if room.is_ok_and(|bytes| bytes >= limits::ROOM) {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

fn make_parents(root: &Path, parent: &Path, dirs: &mut Vec<(PathBuf, Meta)>) -> io::Result<()> {
    if parent == root || parent.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(above) = parent.parent() {
        make_parents(root, above, dirs)?;
    }
    fs::create_dir(parent)?;
    dirs.push((parent.to_owned(), Meta::mode(0o755)));
    Ok(())
}

fn make_one(root: &Path, full: &Path, make: Make, dirs: &mut Vec<(PathBuf, Meta)>) -> io::Result<()> {
    match make {
        Make::File { content, meta } => {
            create(full)?.write_all(&content)?;
            apply(full, meta)
        }
        Make::Big { bytes, seed, meta } => {
            fill(&mut create(full)?, bytes, seed)?;
            apply(full, meta)
        }
        Make::Dir { meta } => {
            match fs::create_dir(full) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    dirs.retain(|(path, _)| path != full);
                }
                other => other?,
            }
            dirs.push((full.to_owned(), meta));
            Ok(())
        }
        Make::Symlink { target } => {
            symlink(target, full)?;
            set_time(full, DEFAULT_MTIME)
        }
        Make::HardLink { target } => fs::hard_link(root.join(target), full),
        Make::Fifo { meta } => {
            nix::unistd::mkfifo(full, nix::sys::stat::Mode::from_bits_truncate(0o644))?;
            apply(full, meta)
        }
        Make::Socket => {
            // The address of a socket is short; the tree may be deep. Bind near the root, then move.
            let near = root.join(".s");
            drop(UnixListener::bind(&near)?);
            fs::rename(&near, full)?;
            set_time(full, DEFAULT_MTIME)
        }
    }
}

fn create(full: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(full)
}

fn apply(path: &Path, meta: Meta) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode))?;
    set_time(path, meta.mtime)
}

/// By name and without following: opening a FIFO to set its time would wait for a writer.
fn set_time(path: &Path, (seconds, nanos): (i64, u32)) -> io::Result<()> {
    let time = FileTime::from_unix_time(seconds, nanos);
    filetime::set_symlink_file_times(path, time, time)
}

/// Writes `bytes` pseudo-random bytes (xorshift). Half of each chunk repeats the other half, so that a daemon which
/// compresses layers has something to do and something to gain.
fn fill(file: &mut fs::File, bytes: u64, seed: u64) -> io::Result<()> {
    let mut state = seed | 1;
    let mut chunk = vec![0u8; limits::CHUNK];
    let mut left = bytes;
    while left > 0 {
        let half = chunk.len() / 2;
        let (front, back) = chunk.split_at_mut(half);
        for word in front.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        back.copy_from_slice(front);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        file.write_all(chunk.get(..take).unwrap_or_default())?;
        left -= take as u64;
    }
    Ok(())
}

/// A tree on disk, removed when dropped.
#[derive(Debug)]
pub struct Tree {
    dir: TempDir,
}

impl Tree {
    /// Its root.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The full path of something in it.
    pub fn join(&self, path: impl AsRef<OsStr>) -> PathBuf {
        self.dir.path().join(path.as_ref())
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub fn snapshot(&self) -> io::Result<crate::snapshot::Snapshot> {
        crate::snapshot::Snapshot::of_dir(self.path())
    }
}

/// A name that is not UTF-8, for use as a path: the bytes as they are.
pub fn raw(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
