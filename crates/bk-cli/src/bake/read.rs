//! Files and variables of the process: the only part of `bk bake` that looks at the surroundings.

use std::{
    fs::File as Opened,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bk_bake::{Allowed, DEFAULT_FILES, File, HCL_FILES, Variables, limits::FILE_BYTES};
use bk_client::{BuildError, InputError, LocalFailure};

/// The files that were named, by the flag or else by `BUILDX_BAKE_FILE`; else those of the usual names that are there.
///
/// # Errors
/// A file that cannot be read, or none.
pub(super) fn files(named: &[PathBuf]) -> Result<Vec<File>, BuildError> {
    let from_variable = match named.is_empty() {
        true => named_by_variable(),
        false => Vec::new(),
    };
    let named = if named.is_empty() { &from_variable } else { named };
    let mut all = Vec::new();
    for path in named {
        let name = path.to_string_lossy();
        // Beside files of a remote definition these would be local; all are here.
        let name = name.strip_prefix("cwd://").unwrap_or(&name).to_owned();
        if bk_client::is_remote(&name) {
            let why = format!("`{name}`: definitions are not fetched");
            return Err(InputError::new("--file", why, "a file on this machine").into());
        }
        let text = match name.as_str() {
            "-" => text(&name, io::stdin().lock())?,
            path => text(path, open(path.as_ref())?)?,
        };
        all.push(File::new(name, text));
    }
    if !named.is_empty() {
        return Ok(all);
    }
    for name in HCL_FILES {
        if Path::new(name).exists() {
            return Err(InputError::new(
                name,
                "HCL is not supported, and without this file the definition is not complete",
                "another directory, or --file to name the files that count; `docker buildx bake --print` writes what \
                 they mean as JSON",
            )
            .into());
        }
    }
    for name in DEFAULT_FILES {
        match Opened::open(name) {
            Ok(file) => all.push(File::new(name, text(name, file)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(name, e)),
        }
    }
    if all.is_empty() {
        let why = format!("none is here: {}", DEFAULT_FILES.join(", "));
        return Err(InputError::new("--file", why, "a bake file in JSON or a compose file").into());
    }
    Ok(all)
}

fn named_by_variable() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let between = var("BUILDX_BAKE_PATH_SEPARATOR").unwrap_or_else(|| ":".to_owned());
    let names = var("BUILDX_BAKE_FILE").unwrap_or_default();
    let names = names.split(&between).map(str::trim).filter(|n| !n.is_empty());
    names.map(PathBuf::from).collect()
}

/// What is allowed: the values of `--allow`, and every file where `BUILDX_BAKE_ENTITLEMENTS_FS` turns looking at files off.
///
/// # Errors
/// A value that is not known.
pub(super) fn allowed(texts: &[String]) -> Result<Allowed, InputError> {
    const NAME: &str = "BUILDX_BAKE_ENTITLEMENTS_FS";
    let mut allowed = Allowed::parse(texts)?;
    match std::env::var(NAME).unwrap_or_default().as_str() {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => {}
        "0" | "f" | "F" | "false" | "FALSE" | "False" => {
            allowed.read.push("*".to_owned());
            allowed.write.push("*".to_owned());
            allowed.ssh = true;
        }
        other => {
            let why = format!("`{other}` is neither true nor false");
            return Err(InputError::new(NAME, why, "true or false"));
        }
    }
    Ok(allowed)
}

/// The variables that files find.
///
/// # Errors
/// The file `.env` is there and cannot be read.
pub(super) fn variables() -> Result<Variables, BuildError> {
    // What is not UTF-8 cannot be a part of a file's text.
    let utf8 = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let variables = Variables::new(utf8).built_in("BAKE_LOCAL_PLATFORM", platform());
    const NAME: &str = ".env";
    match Opened::open(NAME) {
        Ok(file) if file.metadata().is_ok_and(|m| m.is_dir()) => Ok(variables),
        Ok(file) => Ok(variables.dot_env(NAME, text(NAME, file)?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(variables),
        Err(e) => Err(failed(NAME, e)),
    }
}

fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "arm" => "arm/v7",
        "powerpc64" => "ppc64le",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}

fn open(path: &Path) -> Result<Opened, BuildError> {
    Opened::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            let why = format!("`{}` does not exist", path.display());
            InputError::new("--file", why, "a bake file in JSON or a compose file").into()
        }
        _ => failed(&path.to_string_lossy(), e),
    })
}

fn text(name: &str, input: impl Read) -> Result<String, BuildError> {
    let mut bytes = Vec::new();
    input
        .take(FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| failed(name, e))?;
    // One byte too many is refused by whoever reads it.
    String::from_utf8(bytes).map_err(|_| InputError::new(name, "it is not UTF-8", "").into())
}

fn failed(name: &str, e: io::Error) -> BuildError {
    LocalFailure::new(name, "cannot read it").caused_by(e).into()
}
