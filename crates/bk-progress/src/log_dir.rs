//! Writes the output of each step to a file of its own. The one renderer that opens something: files right inside of one
//! directory, with names that a step cannot choose.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bk_build::{BuildEvent, Vertex, VertexId};

use crate::{
    Renderer,
    limits::{LOG_FILE_NAME, OPEN_LOGS},
    tail::prefix,
    text::neutralise_line,
};

/// Writes the output of each step to a file of its own.
///
/// A file is made when its step writes for the first time, `NNN-name.log` with the place of the step among those that
/// began and what of its name is harmless. It has the bytes of the step as they are, control characters too. What had that
/// name before is replaced; links are neither followed nor written through. At most [`OPEN_LOGS`] files are open at once.
pub struct LogDir {
    dir: Directory,
    steps: HashMap<VertexId, Step>,
    open: VecDeque<(VertexId, File)>,
}

struct Step {
    file: String,
    made: bool,
}

impl LogDir {
    /// Writes below `path`, a directory, which is made when it is missing.
    ///
    /// # Errors
    /// It cannot be made or opened, or is something else.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        Ok(Self {
            dir: Directory::open(path)?,
            steps: HashMap::new(),
            open: VecDeque::new(),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir.path
    }

    fn start(&mut self, vertex: &Vertex) {
        let number = self.steps.len() + 1;
        self.steps.entry(vertex.id.clone()).or_insert_with(|| Step {
            file: file_name(number, &vertex.name),
            made: false,
        });
    }

    fn close(&mut self, vertex: &VertexId) {
        self.open.retain(|(id, _)| id != vertex);
    }

    fn log(&mut self, vertex: &VertexId, data: &[u8]) -> io::Result<()> {
        let Some(step) = self.steps.get_mut(vertex) else {
            return Ok(());
        };
        let named = |e: io::Error| {
            let path = self.dir.path.join(&step.file);
            io::Error::new(e.kind(), format!("{}: {e}", path.display()))
        };
        if let Some((_, file)) = self.open.iter_mut().find(|(id, _)| id == vertex) {
            return file.write_all(data).map_err(named);
        }
        let mut file = match step.made {
            true => self.dir.append(&step.file),
            false => self.dir.make(&step.file),
        }
        .map_err(named)?;
        file.write_all(data).map_err(named)?;
        step.made = true;
        if self.open.len() == OPEN_LOGS {
            self.open.pop_front();
        }
        self.open.push_back((vertex.clone(), file));
        Ok(())
    }
}

impl Renderer for LogDir {
    fn event(&mut self, event: &BuildEvent) -> io::Result<()> {
        match event {
            BuildEvent::VertexStarted(v) => self.start(v),
            BuildEvent::VertexCompleted(v) | BuildEvent::VertexFailed(v) => self.close(&v.id),
            BuildEvent::Log(l) => return self.log(&l.vertex, &l.data),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.open.clear();
        Ok(())
    }
}

/// A name of letters, digits, dots, dashes and underscores that begins with a number.
fn file_name(number: usize, name: &str) -> String {
    let mut harmless = String::new();
    for c in neutralise_line(name).chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') {
            harmless.push(c);
        } else if !harmless.is_empty() && !harmless.ends_with('-') {
            harmless.push('-');
        }
    }
    let harmless = prefix(&harmless, LOG_FILE_NAME).trim_end_matches(['-', '.']);
    match harmless {
        "" => format!("{number:03}.log"),
        name => format!("{number:03}-{name}.log"),
    }
}

/// The directory that was opened once, wherever its path leads later.
struct Directory {
    path: PathBuf,
    #[cfg(unix)]
    handle: std::os::fd::OwnedFd,
}

#[cfg(unix)]
impl Directory {
    fn open(path: PathBuf) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags, open};
        let handle = open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path, handle })
    }

    /// Makes a file that was not there, in place of one that was.
    fn make(&self, name: &str) -> io::Result<File> {
        use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
        match unlinkat(&self.handle, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // What is left of it is the user's choice, by the umask.
        Ok(openat(&self.handle, name, flags, Mode::from_raw_mode(0o666))?.into())
    }

    /// Opens a file that was made before.
    fn append(&self, name: &str) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags, openat};
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.handle, name, flags, Mode::empty())?.into())
    }
}

#[cfg(not(unix))]
impl Directory {
    fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { path })
    }

    fn make(&self, name: &str) -> io::Result<File> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        File::options().write(true).create_new(true).open(path)
    }

    fn append(&self, name: &str) -> io::Result<File> {
        File::options().append(true).open(self.path.join(name))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use bk_build::{LogChunk, LogStream};

    use super::*;

    fn start(dir: &mut LogDir, id: &str, name: &str) {
        dir.event(&BuildEvent::VertexStarted(Vertex::new(id, name)))
            .expect("nothing is written");
    }

    fn log(dir: &mut LogDir, id: &str, data: &[u8]) -> io::Result<()> {
        let chunk = LogChunk::new(id.into(), LogStream::Stdout, data.to_vec());
        dir.event(&BuildEvent::Log(chunk))
    }

    #[test]
    fn each_step_has_a_file_with_its_bytes() {
        let place = tempfile::tempdir().expect("a directory");
        let mut dir = LogDir::create(place.path().join("a/b")).expect("it can be made");
        start(&mut dir, "1", "[1/2] RUN make && ../../etc/passwd\n\0");
        start(&mut dir, "2", "[2/2] RUN nothing");
        for n in 0..OPEN_LOGS + 3 {
            start(&mut dir, &format!("more {n}"), "");
            log(&mut dir, &format!("more {n}"), b"x").expect("it can be written");
            log(&mut dir, "1", b"\x1b[1m\xff\n").expect("it can be written");
        }
        assert!(dir.open.len() <= OPEN_LOGS);
        dir.finish().expect("nothing is written");
        let written =
            fs::read(place.path().join("a/b/001-1-2-RUN-make-..-..-etc-passwd.log")).expect("the file");
        assert_eq!(written, b"\x1b[1m\xff\n".repeat(OPEN_LOGS + 3));
        assert_eq!(
            fs::read(place.path().join("a/b/003.log")).expect("the file"),
            b"x"
        );
        let names = fs::read_dir(dir.path()).expect("the directory").count();
        assert_eq!(names, OPEN_LOGS + 4, "no file for a step that wrote nothing");
    }

    #[test]
    fn links_are_replaced_and_not_followed() {
        let place = tempfile::tempdir().expect("a directory");
        let outside = place.path().join("outside");
        fs::write(&outside, "mine").expect("it can be written");
        let mut dir = LogDir::create(place.path().join("logs")).expect("it can be made");
        symlink(&outside, dir.path().join("001-RUN.log")).expect("a link");
        fs::create_dir(dir.path().join("002-RUN.log")).expect("a directory");
        start(&mut dir, "1", "RUN");
        start(&mut dir, "2", "RUN");
        log(&mut dir, "1", b"theirs").expect("the link is replaced");
        assert_eq!(fs::read_to_string(&outside).expect("the file"), "mine");
        assert_eq!(
            fs::read(dir.path().join("001-RUN.log")).expect("the file"),
            b"theirs"
        );
        let error = log(&mut dir, "2", b"x").expect_err("a directory is not replaced");
        assert!(error.to_string().contains("logs/002-RUN.log: "), "{error}");
    }

    #[test]
    fn names_are_harmless() {
        for (name, file) in [
            ("", "007.log"),
            ("../..", "007.log"),
            ("-rf /", "007-rf.log"),
            ("\u{1b}[31mé漢", "007.log"),
            ("CON", "007-CON.log"),
        ] {
            assert_eq!(file_name(7, name), file, "{name:?}");
        }
        assert!(file_name(7, &"x".repeat(10_000)).len() <= LOG_FILE_NAME + 8);
    }
}
