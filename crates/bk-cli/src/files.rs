//! The files that a build leaves for scripts. They appear whole or not at all.

mod metadata;
mod transfers;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bk_client::{BuildError, BuildOutcome, LocalFailure};

pub(crate) use metadata::Metadata;

/// Removes an image id of an earlier build, so that a failed build does not leave one that looks like its own.
///
/// # Errors
/// The file is there and cannot be removed.
pub(crate) fn remove_stale(iidfile: &Path) -> Result<(), BuildError> {
    match fs::symlink_metadata(iidfile) {
        Ok(found) if found.is_file() => match fs::remove_file(iidfile) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LocalFailure::new(
                iidfile,
                "cannot remove the image id of an earlier build",
            )
            .caused_by(e)
            .into()),
            _ => Ok(()),
        },
        // A link or a device stays and is written through; nothing there is fine.
        _ => Ok(()),
    }
}

/// Writes the image id, without a line end, as `docker buildx` does.
///
/// # Errors
/// The build made no image, or the file cannot be written.
pub(crate) fn write_image_id(iidfile: &Path, outcome: &BuildOutcome) -> Result<(), BuildError> {
    match &outcome.image_id {
        Some(id) => write(iidfile, id.as_bytes()),
        None => Err(LocalFailure::new(iidfile, "the daemon named no image id to write there").into()),
    }
}

/// Writes what is known of a build as a JSON object, as `docker buildx` does.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_metadata(file: &Path, outcome: &BuildOutcome, more: &Metadata) -> Result<(), BuildError> {
    write(file, metadata::text(outcome, more).as_bytes())
}

/// Writes what is known of several builds as a JSON object of objects by name, as `docker buildx bake` does.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_metadata_of(
    file: &Path,
    outcomes: &[(&str, &BuildOutcome)],
    more: &Metadata,
) -> Result<(), BuildError> {
    write(file, metadata::text_of(outcomes, more).as_bytes())
}

/// Writes what went over the wire: the counts of the whole build, and each transfer in detail.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_transfers(file: &Path, outcome: &BuildOutcome) -> Result<(), BuildError> {
    write(file, transfers::report(outcome).as_bytes())
}

/// Writes a file beside its place and renames it there. What a link points to is replaced, not the link; a device or
/// pipe is written to as it is.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(file: &Path, data: &[u8]) -> Result<(), BuildError> {
    let failed = |e: io::Error| LocalFailure::new(file, "cannot write it").caused_by(e).into();
    match fs::metadata(file) {
        Ok(found) if !found.is_file() => OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|mut f| f.write_all(data))
            .map_err(failed),
        Ok(_) => fs::canonicalize(file)
            .and_then(|place| replace(&place, data))
            .map_err(failed),
        Err(_) => replace(file, data).map_err(failed),
    }
}

/// A file that appears under its name when it is complete, and leaves nothing if it never is. What is no regular file, such
/// as a pipe, is written to as it is.
pub(crate) struct Pending {
    shown: PathBuf,
    /// Where it will be, and where it is meanwhile.
    places: Option<(PathBuf, PathBuf)>,
    file: fs::File,
}

impl Pending {
    /// Makes it. What a link points to is replaced, not the link.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn new(shown: &Path) -> Result<Self, BuildError> {
        let failed = |e: io::Error| LocalFailure::new(shown, "cannot write it").caused_by(e);
        let found = fs::metadata(shown);
        if found.as_ref().is_ok_and(|found| !found.is_file()) {
            let file = OpenOptions::new().write(true).open(shown).map_err(failed)?;
            return Ok(Self {
                shown: shown.to_owned(),
                places: None,
                file,
            });
        }
        let place = match found {
            Ok(_) => fs::canonicalize(shown).map_err(failed)?,
            Err(_) => {
                let dir = shown.parent().filter(|p| !p.as_os_str().is_empty());
                let dir = fs::canonicalize(dir.unwrap_or(Path::new("."))).map_err(failed)?;
                dir.join(shown.file_name().unwrap_or_default())
            }
        };
        let (beside, file) = create_beside(&place).map_err(failed)?;
        Ok(Self {
            shown: shown.to_owned(),
            places: Some((place, beside)),
            file,
        })
    }

    /// Every path that it has or will have.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let places = self.places.iter();
        places
            .flat_map(|(place, beside)| [place.clone(), beside.clone()])
            .collect()
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub(crate) fn commit(mut self) -> Result<(), BuildError> {
        if let Some((place, beside)) = self.places.take()
            && let Err(e) = fs::rename(&beside, &place)
        {
            drop(fs::remove_file(beside));
            return Err(LocalFailure::new(&self.shown, "cannot write it")
                .caused_by(e)
                .into());
        }
        Ok(())
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((_, beside)) = &self.places {
            // There is another error to tell; this is only tidying up.
            drop(fs::remove_file(beside));
        }
    }
}

fn replace(place: &Path, data: &[u8]) -> io::Result<()> {
    let (beside, mut file) = create_beside(place)?;
    let written = file.write_all(data).and_then(|()| fs::rename(&beside, place));
    if written.is_err() {
        // The first error is the one to tell; this is only tidying up.
        drop(fs::remove_file(&beside));
    }
    written
}

/// A new file in the directory of `place`, with the permissions that any new file gets.
fn create_beside(place: &Path) -> io::Result<(PathBuf, fs::File)> {
    let name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut attempt: u32 = 0;
    loop {
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}-{attempt}.tmp", std::process::id()));
        let beside = place.with_file_name(beside);
        match OpenOptions::new().write(true).create_new(true).open(&beside) {
            Ok(file) => return Ok((beside, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(pairs: &[(&str, &str)]) -> BuildOutcome {
        let mut outcome = BuildOutcome::default();
        outcome.image_id = Some("sha256:abc".to_owned());
        outcome.exporter_response = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        outcome
    }

    #[test]
    fn files_are_replaced_whole_and_nothing_stays_beside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("iid");
        for _ in 0..2 {
            write_image_id(&file, &outcome(&[])).expect("a writable directory");
        }
        assert_eq!(fs::read(&file).expect("the file"), b"sha256:abc");
        write_metadata(
            &dir.path().join("m"),
            &outcome(&[("k", "v")]),
            &Metadata::default(),
        )
        .expect("a writable directory");
        assert_eq!(
            fs::read(dir.path().join("m")).expect("the file"),
            b"{\n  \"k\": \"v\"\n}"
        );
        assert_eq!(fs::read_dir(dir.path()).expect("the directory").count(), 2);
        remove_stale(&file).expect("removable");
        remove_stale(&file).expect("gone is fine");
        assert!(!file.exists());
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("no/such/dir/iid");
        let error = write_image_id(&file, &outcome(&[])).expect_err("no directory");
        assert_eq!(error.to_string(), format!("{}: cannot write it", file.display()));
        let error = write_image_id(&file, &BuildOutcome::default()).expect_err("no id");
        assert!(
            error
                .to_string()
                .ends_with("the daemon named no image id to write there")
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        fs::write(&file, "old and longer than the new").expect("writable");
        std::os::unix::fs::symlink("file", &link).expect("a link");
        remove_stale(&link).expect("a link stays");
        write(&link, b"new").expect("writable");
        assert_eq!(fs::read_link(&link).expect("still a link"), Path::new("file"));
        assert_eq!(fs::read(&file).expect("the file"), b"new");
        write(Path::new("/dev/null"), b"x").expect("a device takes it");
        use std::os::unix::fs::FileTypeExt as _;
        assert!(
            fs::metadata("/dev/null")
                .expect("there")
                .file_type()
                .is_char_device()
        );
    }
}
