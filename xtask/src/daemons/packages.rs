//! Fetching Debian packages with apt and unpacking them without installing anything.
//!
//! The mirror and its keyring come from apt's own configuration, so that this works behind whatever mirror or proxy
//! the machine is set up with. Package lists and the cache are private: the system's apt state is not touched, and no
//! maintainer script runs, so no packaged service is ever started.

use super::layout::Layout;
use crate::run::{Result, output};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The packages that the daemons need, by Debian suite.
///
/// Libraries of the first suite are only what is not on every Debian 12: binaries of the newer suites need no newer C
/// library than 2.34, so they run with that of Debian 12. `runc` is the exception, so all engines use that of Debian 12.
const RECIPES: [Recipe; 8] = [
    Recipe {
        name: BUSYBOX,
        suite: BOOKWORM,
        packages: &["busybox-static"],
    },
    Recipe {
        name: UMOCI,
        suite: BOOKWORM,
        packages: &["umoci"],
    },
    Recipe {
        name: BOOKWORM,
        suite: BOOKWORM,
        packages: &[
            "docker.io",
            "containerd",
            "runc",
            "tini",
            "docker-registry",
            "busybox-static",
            "socat",
            "libwrap0",
            "libnsl2",
            "libtirpc3",
            "libssl3",
            "libgssapi-krb5-2",
            "libkrb5-3",
            "libk5crypto3",
            "libkrb5support0",
            "libcom-err2",
            "libkeyutils1",
            "libseccomp2",
            "libdevmapper1.02.1",
        ],
    },
    Recipe {
        name: SSHD,
        suite: BOOKWORM,
        packages: &["openssh-server"],
    },
    Recipe {
        name: PODMAN,
        suite: BOOKWORM,
        packages: &[
            "podman",
            "conmon",
            "libgpgme11",
            "libassuan0",
            "libsubid4",
            "libglib2.0-0",
        ],
    },
    Recipe {
        name: MINGW,
        suite: BOOKWORM,
        packages: &[
            "binutils-mingw-w64-x86-64",
            "gcc-mingw-w64-base",
            "gcc-mingw-w64-x86-64-win32",
            "gcc-mingw-w64-x86-64-win32-runtime",
            "mingw-w64-common",
            "mingw-w64-x86-64-dev",
        ],
    },
    Recipe {
        name: TRIXIE,
        suite: TRIXIE,
        packages: &["docker.io", "containerd"],
    },
    Recipe {
        name: FORKY,
        suite: FORKY,
        packages: &["docker.io", "containerd", "docker-cli", "docker-buildx"],
    },
];

/// The set with nothing but the static busybox, which is all that the demo needs when a daemon is at hand.
pub(crate) const BUSYBOX: &str = "busybox";
/// The set with the tool that makes OCI layouts.
pub(crate) const UMOCI: &str = "umoci";
/// Debian 12, and the set of everything from it.
pub(crate) const BOOKWORM: &str = "bookworm";
/// The set with the server of SSH, which tests start by themselves.
pub(crate) const SSHD: &str = "sshd";
/// The set with Podman, which tests run with everything of it in a directory of their own.
pub(crate) const PODMAN: &str = "podman";
/// The set with the C compiler and linker for Windows. What they need besides is what every gcc of Debian 12 needs.
pub(crate) const MINGW: &str = "mingw";
/// Debian 13, and its set.
pub(crate) const TRIXIE: &str = "trixie";
/// Debian 14, and its set.
pub(crate) const FORKY: &str = "forky";

/// A set of packages of one suite that are unpacked into one directory.
struct Recipe {
    name: &'static str,
    suite: &'static str,
    packages: &'static [&'static str],
}

impl Recipe {
    fn stamp(&self) -> String {
        self.packages.join(" ")
    }

    fn is_complete(&self, layout: &Layout) -> bool {
        fs::read_to_string(layout.packages(self.name).join(".complete")).is_ok_and(|s| s == self.stamp())
    }
}

/// Makes the sets called `names` available below `target/daemons/pkgs`; downloads nothing that is there already.
pub(crate) fn ensure(layout: &Layout, names: &[&str]) -> Result<()> {
    let missing: Vec<&Recipe> = RECIPES
        .iter()
        .filter(|r| names.contains(&r.name) && !r.is_complete(layout))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let suites: BTreeSet<&str> = missing.iter().map(|recipe| recipe.suite).collect();
    eprintln!(
        "fetching Debian packages: {} ...",
        missing.iter().map(|r| r.name).collect::<Vec<_>>().join(", ")
    );
    let apt = PrivateApt::new(layout)?;
    apt.update(&suites)?;
    for recipe in missing {
        let root = layout.packages(recipe.name);
        // Unpacked beside the old set, so that what runs from there misses nothing for long.
        let fresh = root.with_extension("new");
        super::remove_dir(&fresh)?;
        fs::create_dir_all(&fresh)?;
        for file in apt.download(recipe)? {
            output(Command::new("dpkg").arg("-x").arg(&file).arg(&fresh))?;
            fs::remove_file(&file)?;
        }
        fs::write(fresh.join(".complete"), recipe.stamp())?;
        super::remove_dir(&root)?;
        fs::rename(&fresh, &root)?;
    }
    Ok(())
}

/// Apt with its own sources, lists and cache.
struct PrivateApt {
    dir: PathBuf,
}

impl PrivateApt {
    fn new(layout: &Layout) -> Result<PrivateApt> {
        let dir = layout.base().join("apt");
        for sub in ["state/lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        fs::write(dir.join("state/status"), "")?;
        Ok(PrivateApt { dir })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        let dir = self.dir.display();
        for option in [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".into(),
            format!("Dir::State={dir}/state"),
            format!("Dir::State::status={dir}/state/status"),
            format!("Dir::Cache={dir}/cache"),
            // Hooks of the system (catalogues, desktop notices) have no business with private lists.
            "APT::Update::Post-Invoke=".into(),
            "APT::Update::Post-Invoke-Success=".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::Languages=none".into(),
            // A mirror may be frozen at a date. What it has is still signed, and is used for tests only.
            "Acquire::Check-Valid-Until=false".into(),
            // Without this apt warns that its unprivileged user cannot read the private directory.
            "APT::Sandbox::User=root".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C");
        command
    }

    /// Reads the package lists of `suites` from the first of the machine's mirrors that has them.
    fn update(&self, suites: &BTreeSet<&str>) -> Result<()> {
        let mirrors = mirrors()?;
        let keyring = keyring();
        let mut failures = Vec::new();
        for mirror in &mirrors {
            let lines = suites
                .iter()
                .map(|suite| format!("deb {keyring}{mirror} {suite} main\n"));
            fs::write(self.dir.join("sources.list"), lines.collect::<String>())?;
            match output(self.command().args(["-q", "update", "--error-on=any"])) {
                Ok(_) => return Ok(()),
                Err(error) => failures.push(error.to_string()),
            }
        }
        Err(format!("no Debian mirror of this machine works:\n{}", failures.join("\n")).into())
    }

    /// Downloads the packages of one suite; returns the files.
    fn download(&self, recipe: &Recipe) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join("debs").join(recipe.name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let wanted = recipe
            .packages
            .iter()
            .map(|package| format!("{package}/{}", recipe.suite));
        output(
            self.command()
                .args(["-q", "download"])
                .args(wanted)
                .current_dir(&dir),
        )?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&dir)? {
            files.push(entry?.path());
        }
        files.sort();
        if files.len() < recipe.packages.len() {
            return Err(format!(
                "apt-get download left {} of {} files",
                files.len(),
                recipe.packages.len()
            )
            .into());
        }
        Ok(files)
    }
}

/// The addresses of Debian's main archive in apt's configuration, the likeliest first.
///
/// They are what lies before `/dists/<codename>/` in the addresses that `apt-get update` would read. Those with an
/// `-updates` suite beside it come first: archives of third parties have none.
fn mirrors() -> Result<Vec<String>> {
    let codename = codename().unwrap_or_else(|| BOOKWORM.into());
    let text = output(Command::new("apt-get").args(["--print-uris", "update"]))?;
    let found = mirrors_in(&text, &codename);
    if found.is_empty() {
        return Err(format!("apt's configuration names no archive with the suite {codename}").into());
    }
    Ok(found)
}

fn mirrors_in(text: &str, codename: &str) -> Vec<String> {
    let before = |suite: &str| -> Vec<String> {
        let mark = format!("/dists/{suite}/InRelease'");
        text.lines()
            .filter_map(|line| Some(line.strip_prefix('\'')?.split_once(mark.as_str())?.0.to_owned()))
            .collect()
    };
    let updates = before(&format!("{codename}-updates"));
    let (mut first, second): (Vec<_>, Vec<_>) =
        before(codename).into_iter().partition(|m| updates.contains(m));
    first.extend(second);
    first.dedup();
    first
}

/// The codename of the running distribution.
fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_owned())
}

/// The `[signed-by=…] ` part of a source line: the keyring that the machine's own sources name, else that of the
/// distribution, else nothing, which makes apt use its trusted keys.
fn keyring() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    let named = files
        .iter()
        .filter_map(|f| fs::read_to_string(f).ok())
        .find_map(|text| debian_keyring_in(&text));
    let path = named.unwrap_or_else(|| "/usr/share/keyrings/debian-archive-keyring.gpg".into());
    if Path::new(&path).exists() {
        format!("[signed-by={path}] ")
    } else {
        String::new()
    }
}

/// The keyring of Debian's archive that a source file of either format names.
fn debian_keyring_in(text: &str) -> Option<String> {
    text.split(|c: char| c.is_whitespace() || "[]=".contains(c))
        .find(|word| word.starts_with('/') && word.contains("debian-archive-"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_comes_before_those_of_third_parties() {
        let text = "'http://other.example/linux/debian/dists/bookworm/InRelease' a 0 \n\
                    'http://mirror.example/debian/dists/bookworm/InRelease' b 0 \n\
                    'http://mirror.example/debian/dists/bookworm-updates/InRelease' c 0 \n\
                    'http://mirror.example/debian-security/dists/bookworm-security/InRelease' d 0 \n\
                    'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' e 0 \n";
        let expected = [
            "http://mirror.example/debian",
            "http://other.example/linux/debian",
        ];
        assert_eq!(mirrors_in(text, "bookworm"), expected);
        assert!(mirrors_in(text, "sid").is_empty());
    }

    #[test]
    fn the_keyring_is_found_in_both_source_formats() {
        let path = Some("/usr/share/keyrings/debian-archive-keyring.gpg".to_owned());
        let deb822 = "Types: deb\nURIs: x\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let line =
            "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] x bookworm main\n";
        assert_eq!(debian_keyring_in(deb822), path);
        assert_eq!(debian_keyring_in(line), path);
        assert_eq!(debian_keyring_in("deb x bookworm main\n"), None);
    }
}
