//! A place for data roots where overlay mounts work and files are cheap.
//!
//! The data roots lie on a file system of their own inside one sparse file: the live tests make and remove a million
//! small files, which some disks of build machines do a hundred times slower (each removal a discard on a virtual
//! disk). Where no such file can be mounted, they lie on the disk itself. What is removed inside the file is given back
//! to the disk now and then ([`Trimming`]), all at once, which is cheap; without that the file only grows, and fills the
//! disk.
//!
//! Engines stack image layers with overlay mounts, which cannot lie on another overlay: so in a container whose own
//! root is one, and that cannot mount a file, the data roots lie in memory instead.

use super::layout::Layout;
use super::process;
use crate::run::{Result, output};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// The size of the file system of data roots; it takes only what is used of it. A whole run of the live tests uses about
/// 30 GiB.
const IMAGE_BYTES: u64 = 64 << 30;

/// Not more of the free disk than one in so many may become that file: compilers need some too, and what fails in a
/// daemon for want of space says so, where a full disk looks like many faults.
const FREE_PARTS: u64 = 2;

/// How often what was removed is given back to the disk. The tests write and remove some GiB in that time.
const TRIM_EVERY: Duration = Duration::from_secs(45);

/// Makes the directory of data roots and sees to it that it can hold overlay mounts.
pub(crate) fn prepare(layout: &Layout) -> Result<()> {
    let dir = layout.data_dir();
    fs::create_dir_all(&dir)?;
    mount_image(layout, &dir)?;
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
    super::remove_dir(&layout.data_dir())?;
    let image = image(layout);
    if image.exists() {
        Ok(fs::remove_file(image)?)
    } else {
        Ok(())
    }
}

/// Gives what the daemons removed back to the disk, until it is dropped.
pub(crate) struct Trimming {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Trimming {
    /// Begins; does nothing where the data roots lie on the disk itself.
    pub(crate) fn begin(layout: &Layout) -> Trimming {
        let (dir, is_file) = (layout.data_dir(), image(layout).exists());
        let (end, ended) = mpsc::channel();
        let thread = is_file.then(|| {
            std::thread::spawn(move || {
                while ended.recv_timeout(TRIM_EVERY) == Err(RecvTimeoutError::Timeout) {
                    if let Err(error) = output(Command::new("fstrim").arg(&dir)) {
                        eprintln!("note: what daemons remove is not given back to the disk: {error}");
                        return;
                    }
                }
            })
        });
        Trimming {
            end: Some(end),
            thread,
        }
    }
}

impl Drop for Trimming {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("note: the thread that gives space back to the disk panicked");
        }
    }
}

/// How large the file may become on this disk.
fn image_bytes(layout: &Layout) -> Result<u64> {
    let mut df = Command::new("df");
    df.args(["--output=avail", "--block-size=1"]).arg(layout.base());
    let said = output(&mut df)?;
    let free = said
        .lines()
        .nth(1)
        .and_then(|line| line.trim().parse::<u64>().ok());
    let free = free.ok_or_else(|| format!("df does not say how much is free: {said:?}"))?;
    Ok(IMAGE_BYTES.min(free / FREE_PARTS))
}

/// The file that holds the data roots.
fn image(layout: &Layout) -> PathBuf {
    layout.base().join("data.img")
}

/// Mounts a new file system inside a sparse file over the empty directory of data roots. Data that is there already
/// stays where it is; a machine that cannot do this goes on without.
fn mount_image(layout: &Layout, dir: &Path) -> Result<()> {
    if fs::read_dir(dir)?.next().is_some() {
        return Ok(());
    }
    let image = image(layout);
    fs::File::create(&image)?.set_len(image_bytes(layout)?)?;
    let made = output(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-i", "8192", "-m", "0", "-E", "nodiscard"])
            .arg(&image),
    );
    let mounted = made.and_then(|_| {
        output(
            Command::new("mount")
                .args(["-o", "loop,nodiscard"])
                .arg(&image)
                .arg(dir),
        )
    });
    if let Err(error) = mounted {
        eprintln!("note: the daemons keep their data on the disk itself: {error}");
        fs::remove_file(&image)?;
    }
    Ok(())
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
