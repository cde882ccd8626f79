//! A place for data roots where overlay mounts work.
//!
//! Engines stack image layers with overlay mounts, which cannot lie on another overlay: so in a container whose own
//! root is one, the data roots lie in memory instead.

use super::layout::Layout;
use super::process;
use crate::run::{Result, output};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes the directory of data roots and sees to it that it can hold overlay mounts.
pub(crate) fn prepare(layout: &Layout) -> Result<()> {
    let dir = layout.data_dir();
    fs::create_dir_all(&dir)?;
    if overlay_works(&dir)? {
        return Ok(());
    }
    eprintln!(
        "note: {} cannot hold overlay mounts, so the daemons keep their data in memory",
        dir.display()
    );
    output(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=80%", "bk-daemons"])
            .arg(&dir),
    )?;
    if overlay_works(&dir)? {
        Ok(())
    } else {
        Err("overlay mounts do not work here: the daemons cannot run".into())
    }
}

/// Removes the directory of data roots, in which no daemon runs any more.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    super::remove_dir(&layout.data_dir())
}

fn overlay_works(dir: &Path) -> Result<bool> {
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    for sub in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(probe.join(sub))?;
    }
    let at = |sub: &str| probe.join(sub).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower"),
        at("upper"),
        at("work")
    );
    let mounted =
        output(Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay", &at("merged")]));
    process::unmount_below(std::slice::from_ref(&probe))?;
    fs::remove_dir_all(&probe)?;
    Ok(mounted.is_ok())
}
