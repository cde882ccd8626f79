//! What the last build of a context would have sent, kept on disk, and what changed since.
//!
//! The rule: a manifest is written and read entry by entry, in the order of the wire, so that memory does not grow with the
//! number of files; only differences are held, and those up to a bound. It becomes visible whole or not at all.

use std::{
    cmp::Ordering,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{self, AtomicBool},
    time::SystemTime,
};

use bk_build::{BuildError, LocalFailure};
use bk_fsync::{
    entry::{Entry, Kind},
    path::{RelPath, compare},
    pattern::PatternList,
};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{
    context::{ContextDifference, ContextView, Differs, Need},
    host::make_private_dir,
    limits::{MANIFEST_BYTES, MANIFEST_CHANGES, MANIFEST_RECORD, MANIFESTS_KEPT},
};

/// The first record of every manifest; files of another form count as missing.
const FORMAT: &[u8] = b"bk-manifest-1";

/// A directory of manifests, one for each context, Dockerfile and target that was built.
#[derive(Clone, Debug)]
pub struct ContextHistory {
    dir: PathBuf,
}

/// The manifest of a context as it is now, not kept yet. Dropping it forgets it.
#[derive(Debug)]
pub struct ContextRecord {
    file: Option<NamedTempFile>,
    dir: PathBuf,
    place: PathBuf,
    changes: Option<ContextChanges>,
}

/// What differs from the manifest that was kept, in the order of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextChanges {
    /// At most [`MANIFEST_CHANGES`](crate::limits::MANIFEST_CHANGES) differences. [`Differs::Content`] says that a file has
    /// another size, or another time of modification; its content was not read.
    pub list: Vec<ContextDifference>,
    /// How many there are more.
    pub more: u64,
}

impl ContextHistory {
    /// Manifests in `dir`, which is made, for its owner alone, when the first one is kept.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Walks what would be sent, makes its manifest, and compares it with the one that was kept for the same context,
    /// Dockerfile and `target`. What is odd is told to `warn`. Blocks.
    ///
    /// # Errors
    /// As [`ContextView::list`]; and what cannot be written is named.
    pub fn record(
        &self,
        view: &ContextView,
        target: Option<&str>,
        stop: &AtomicBool,
        warn: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<ContextRecord, BuildError> {
        let fail = |e: io::Error| {
            LocalFailure::new(&self.dir, "cannot keep the manifest of the context").caused_by(e)
        };
        make_private_dir(&self.dir).map_err(fail)?;
        let place = self.dir.join(key(view, target));
        let mut old = Old::open(&place);
        let mut changes = old.is_some().then(ContextChanges::default);
        let file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(&self.dir)
            .map_err(fail)?;
        let mut out = BufWriter::new(file);
        out.write_all(FORMAT)
            .and_then(|()| out.write_all(b"\0"))
            .map_err(fail)?;
        let mut written = 0;
        view.list(stop, warn, |entry| -> Result<(), BuildError> {
            let record = Record::of(view, entry);
            if let (Some(old), Some(changes)) = (&mut old, &mut changes) {
                old.against(Some(&record), changes);
            }
            if written <= MANIFEST_BYTES {
                written += record.write(&mut out).map_err(fail)?;
            }
            Ok(())
        })?;
        if stop.load(atomic::Ordering::Relaxed) {
            return Err(BuildError::Cancelled);
        }
        if let (Some(old), Some(changes)) = (&mut old, &mut changes) {
            old.against(None, changes);
        }
        let file = out.into_inner().map_err(|e| fail(e.into_error()))?;
        Ok(ContextRecord {
            // One that is cut off would tell of changes that there are not.
            file: (written <= MANIFEST_BYTES).then_some(file),
            dir: self.dir.clone(),
            place,
            changes,
        })
    }
}

impl ContextRecord {
    /// What changed since the manifest that was kept; `None` when there is none.
    pub fn changes(&self) -> Option<&ContextChanges> {
        self.changes.as_ref()
    }

    /// Keeps the manifest in place of the one before, and lets go of the oldest of others when there are too many. Blocks.
    ///
    /// # Errors
    /// What cannot be written is named.
    pub fn keep(self) -> Result<(), LocalFailure> {
        let Some(file) = self.file else { return Ok(()) };
        file.persist(&self.place).map_err(|e| {
            LocalFailure::new(&self.place, "cannot keep the manifest of the context").caused_by(e.error)
        })?;
        // What another program does to the directory meanwhile is its own affair.
        drop(forget_oldest(&self.dir));
        Ok(())
    }
}

impl ContextChanges {
    /// Those that an instruction takes: its paths may be patterns.
    pub fn taken_by(&self, need: &Need) -> Vec<&ContextDifference> {
        let patterns = need.paths.iter().map(|path| path.trim_start_matches('/'));
        let mut patterns = patterns.map(str::as_bytes);
        if patterns.clone().any(<[u8]>::is_empty) {
            return self.list.iter().collect();
        }
        let Ok(list) = PatternList::new(patterns.by_ref()) else {
            return Vec::new();
        };
        let taken = |change: &&ContextDifference| {
            list.matches_or_parent(&change.path)
                .is_ok_and(|verdict| verdict.matched)
        };
        self.list.iter().filter(taken).collect()
    }

    fn add(&mut self, path: Vec<u8>, what: Differs) {
        if self.list.len() < MANIFEST_CHANGES {
            self.list.push(ContextDifference { path, what });
        } else {
            self.more += 1;
        }
    }
}

/// The file of a manifest: the context, the Dockerfile and the target decide.
fn key(view: &ContextView, target: Option<&str>) -> String {
    let bytes = |path: Option<&Path>| path.map_or(Vec::new(), |p| p.as_os_str().as_encoded_bytes().to_vec());
    let mut digest = Sha256::new_with_prefix(FORMAT);
    for part in [
        bytes(view.root()),
        bytes(view.dockerfile()),
        target.unwrap_or_default().as_bytes().to_vec(),
    ] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digits = digest.finalize();
    digits.iter().fold(String::new(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

/// Removes the oldest manifests, and files that a program left that was killed.
fn forget_oldest(dir: &Path) -> io::Result<()> {
    let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        kept.push((entry.metadata()?.modified()?, entry.path()));
    }
    kept.sort();
    let surplus = kept.len().saturating_sub(MANIFESTS_KEPT);
    for (_, path) in kept.into_iter().take(surplus) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// What a manifest says of an entry.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    kind: String,
    mode: String,
    owner: String,
    /// What tells another content: size and time of a file, target of a link, number of a device.
    tag: String,
    path: Vec<u8>,
}

impl Record {
    fn of(view: &ContextView, entry: &Entry) -> Self {
        let (meta, policies) = (&entry.meta, view.policies());
        let (uid, gid) = policies.owner.apply(meta.uid, meta.gid);
        let tag = match meta.kind {
            Kind::File => format!("{}+{}", meta.size, meta.mtime_ns),
            Kind::Symlink => Sha256::digest(&entry.target)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect(),
            Kind::CharDevice | Kind::BlockDevice => meta.rdev.to_string(),
            _ => "-".to_owned(),
        };
        Self {
            kind: format!("{:?}", meta.kind),
            mode: format!("{:o}", policies.mode.apply(meta.kind, meta.mode)),
            owner: format!("{uid}:{gid}"),
            tag,
            path: entry.path.clone(),
        }
    }

    /// Writes it, ended by a zero byte, which no path holds; says how long it is.
    fn write(&self, out: &mut impl io::Write) -> io::Result<u64> {
        let head = format!("{} {} {} {} ", self.kind, self.mode, self.owner, self.tag);
        out.write_all(head.as_bytes())?;
        out.write_all(&self.path)?;
        out.write_all(b"\0")?;
        Ok(head.len() as u64 + self.path.len() as u64 + 1)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.splitn(5, |b| *b == b' ');
        let mut text = || String::from_utf8(parts.next()?.to_vec()).ok();
        let (kind, mode, owner, tag) = (text()?, text()?, text()?, text()?);
        let path = parts.next()?.to_vec();
        RelPath::new(&path).ok()?;
        Some(Self {
            kind,
            mode,
            owner,
            tag,
            path,
        })
    }

    fn differs(&self, old: &Self) -> Option<Differs> {
        if self.kind != old.kind {
            Some(Differs::Kind)
        } else if self.tag != old.tag {
            Some(Differs::Content)
        } else if self.mode != old.mode {
            Some(Differs::Mode)
        } else if self.owner != old.owner {
            Some(Differs::Owner)
        } else {
            None
        }
    }
}

/// The manifest that was kept, entry by entry. What cannot be read ends it.
struct Old {
    file: BufReader<File>,
    next: Option<Record>,
}

impl Old {
    fn open(place: &Path) -> Option<Self> {
        let mut old = Self {
            file: BufReader::new(File::open(place).ok()?),
            next: None,
        };
        (old.raw()? == FORMAT).then_some(())?;
        old.advance();
        Some(old)
    }

    fn raw(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut bounded = self.file.by_ref().take(MANIFEST_RECORD);
        bounded.read_until(0, &mut bytes).ok()?;
        bytes.pop_if(|last| *last == 0)?;
        Some(bytes)
    }

    fn advance(&mut self) {
        self.next = self.raw().and_then(|bytes| Record::read(&bytes));
    }

    /// Compares up to the entry `new`; all that is left when there is none.
    fn against(&mut self, new: Option<&Record>, changes: &mut ContextChanges) {
        loop {
            let order = match (&self.next, new) {
                (Some(old), Some(new)) => compare(&new.path, &old.path),
                (Some(_), None) => Ordering::Greater,
                (None, Some(_)) => Ordering::Less,
                (None, None) => return,
            };
            match (order, new) {
                (Ordering::Greater, _) => {
                    if let Some(old) = self.next.take() {
                        changes.add(old.path, Differs::Removed);
                    }
                    self.advance();
                }
                (Ordering::Less, Some(new)) => return changes.add(new.path.clone(), Differs::Added),
                (_, Some(new)) => {
                    let what = self.next.as_ref().and_then(|old| new.differs(old));
                    if let Some(what) = what {
                        changes.add(new.path.clone(), what);
                    }
                    return self.advance();
                }
                (_, None) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use bk_build::BuildRequest;

    use super::*;

    fn record(dir: &Path, history: &ContextHistory) -> ContextRecord {
        let view = ContextView::of(&BuildRequest::new(dir), None).expect("a view");
        let stop = AtomicBool::new(false);
        history.record(&view, None, &stop, &|_| {}).expect("a record")
    }

    #[test]
    fn changes_since_the_last_build_are_told() {
        let temp = tempfile::tempdir().expect("a directory");
        let (context, cache) = (temp.path().join("app"), temp.path().join("cache/contexts"));
        fs::create_dir_all(context.join("src")).expect("made");
        let write = |name: &str, text: &str| fs::write(context.join(name), text).expect("writable");
        write("Dockerfile", "FROM scratch\nCOPY src /src\nCOPY *.txt /\n");
        for name in ["src/same", "src/edited", "src/gone", "src/mode", "a.txt"] {
            write(name, "x");
        }
        let history = ContextHistory::in_dir(&cache);
        let first = record(&context, &history);
        assert_eq!(first.changes(), None);
        first.keep().expect("kept");
        assert_eq!(
            record(&context, &history).changes(),
            Some(&ContextChanges::default())
        );

        write("src/edited", "xy");
        write("src/new file\n", "");
        fs::remove_file(context.join("src/gone")).expect("removable");
        fs::set_permissions(context.join("src/mode"), fs::Permissions::from_mode(0o755)).expect("ours");
        write("a.txt", "longer");
        let second = record(&context, &history);
        let changes = second.changes().expect("there is one before");
        let told: Vec<(&[u8], Differs)> = changes.list.iter().map(|c| (&*c.path, c.what)).collect();
        assert_eq!(
            told,
            [
                (&b"a.txt"[..], Differs::Content),
                (b"src/edited", Differs::Content),
                (b"src/gone", Differs::Removed),
                (b"src/mode", Differs::Mode),
                (b"src/new file\n", Differs::Added),
            ]
        );
        let view = ContextView::of(&BuildRequest::new(&*context), None).expect("a view");
        let taken: Vec<usize> = view
            .needs()
            .instructions
            .iter()
            .map(|need| changes.taken_by(need).len())
            .collect();
        assert_eq!(taken, [4, 1]);
        // Nobody else may look at names of files.
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&cache), 0o700);
        second.keep().expect("kept");
        let files: Vec<PathBuf> = fs::read_dir(&cache)
            .expect("there")
            .map(|e| e.expect("readable").path())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(mode(&files[0]), 0o600);
        // A file that is none counts as missing.
        fs::write(&files[0], "nonsense").expect("writable");
        assert_eq!(record(&context, &history).changes(), None);
    }

    #[test]
    fn manifests_are_few() {
        let temp = tempfile::tempdir().expect("a directory");
        for number in 0..MANIFESTS_KEPT + 5 {
            fs::write(temp.path().join(number.to_string()), "x").expect("writable");
        }
        forget_oldest(temp.path()).expect("removable");
        assert_eq!(fs::read_dir(temp.path()).expect("there").count(), MANIFESTS_KEPT);
    }
}
