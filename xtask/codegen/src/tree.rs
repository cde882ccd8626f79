//! Compares a directory with the files it should hold, and makes it hold them. Nothing else may be in it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::generate::Error;

/// Names the files that are missing, different or too many, in order.
pub(crate) fn differences(dir: &Path, wanted: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
    let mut changed = Vec::new();
    for (name, text) in wanted {
        let path = dir.join(name);
        match fs::read(&path) {
            Ok(found) if found == text.as_bytes() => {}
            Ok(_) => changed.push(name.clone()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => changed.push(name.clone()),
            Err(source) => return Err(Error::Io { path, source }),
        }
    }
    changed.extend(names(dir)?.into_iter().filter(|name| !wanted.contains_key(name)));
    changed.sort();
    Ok(changed)
}

/// Writes the named files, and removes those that should not be there.
pub(crate) fn write(dir: &Path, wanted: &BTreeMap<String, String>, changed: &[String]) -> Result<(), Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(at(dir))?;
    for name in changed {
        let path = dir.join(name);
        match wanted.get(name) {
            Some(text) => fs::write(&path, text),
            None => fs::remove_file(&path),
        }
        .map_err(at(&path))?;
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let fail = |source| Error::Io {
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(fail(err)),
    };
    entries
        .map(|entry| Ok(entry.map_err(fail)?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files
            .iter()
            .map(|(name, text)| (name.to_string(), text.to_string()))
            .collect()
    }

    #[test]
    fn names_missing_different_and_surplus_files_and_mends_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made");
        let wanted = wanted(&[("a.rs", "a"), ("b.rs", "b"), ("c.rs", "c")]);
        assert_eq!(differences(&path, &wanted).unwrap(), ["a.rs", "b.rs", "c.rs"]);

        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.rs"), "a").unwrap();
        fs::write(path.join("b.rs"), "other").unwrap();
        fs::write(path.join("z.rs"), "z").unwrap();
        let changed = differences(&path, &wanted).unwrap();
        assert_eq!(changed, ["b.rs", "c.rs", "z.rs"]);

        write(&path, &wanted, &changed).unwrap();
        assert!(differences(&path, &wanted).unwrap().is_empty());
        assert!(!path.join("z.rs").exists());
    }
}
