//! What is in archives of images.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde_json::Value;

/// The JSON file `name` of a tar archive, for instance `index.json`, or a blob by its digest (`sha256:…`).
///
/// # Errors
/// When there is no such file, or when it is no JSON.
pub fn json_of(archive: &Path, name: &str) -> io::Result<Value> {
    serde_json::from_slice(&bytes_of(archive, name)?).map_err(io::Error::other)
}

/// The same, whatever it is.
///
/// # Errors
/// When there is no such file.
pub fn bytes_of(archive: &Path, name: &str) -> io::Result<Vec<u8>> {
    let blob = name
        .split_once(':')
        .map(|(algorithm, hex)| format!("blobs/{algorithm}/{hex}"));
    let path = blob.as_deref().unwrap_or(name);
    for entry in tar::Archive::new(File::open(archive)?).entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, path.to_owned()))
}
