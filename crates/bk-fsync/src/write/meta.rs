//! Gives files the metadata that was sent.
//!
//! The rule: owner first, since changing it takes setuid away; attributes while the file may still be written;
//! then the mode, then the times. Nothing is done through a link.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Timespec, Timestamps, Uid, XattrFlags};

use super::place::bits;
use crate::receive::{Incoming, ReceiveOptions, ReceiveWarning, ReceivedOwner};

/// The metadata of one entry, without its path.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) mode: u32,
    pub(super) mtime_ns: i64,
    owner: Option<(u32, u32)>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

impl Wanted {
    pub(super) fn of(entry: &mut Incoming, options: &ReceiveOptions) -> Self {
        let mut xattrs = std::mem::take(&mut entry.xattrs);
        let privileged = options.privileged_xattrs;
        xattrs
            .retain(|name, _| privileged || !(name.starts_with("security.") || name.starts_with("trusted.")));
        Wanted {
            mode: entry.mode,
            mtime_ns: entry.mtime_ns,
            owner: (options.owner == ReceivedOwner::AsSent).then_some((entry.uid, entry.gid)),
            xattrs,
        }
    }

    /// Applies everything to an open file or directory.
    pub(super) fn apply(&self, fd: impl AsFd, path: &[u8], options: &ReceiveOptions) -> io::Result<()> {
        let fd = fd.as_fd();
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        self.set_xattrs(path, options, |name, value| {
            rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
        });
        rustix::fs::fchmod(fd, bits(self.mode))?;
        Ok(rustix::fs::futimens(fd, &times(self.mtime_ns))?)
    }

    /// Applies everything to a name that cannot be opened: a link, a pipe or a device.
    pub(super) fn apply_at(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        is_link: bool,
        path: &[u8],
        options: &ReceiveOptions,
    ) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let mut at = std::path::PathBuf::from(super::place::fd_path(dir));
            at.push(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(
                name,
            ));
            self.set_xattrs(path, options, |name, value| {
                rustix::fs::lsetxattr(&at, name, value, XattrFlags::empty())
            });
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        self.set_xattrs(path, options, |_, _| Err(rustix::io::Errno::NOTSUP));
        if !is_link {
            super::place::chmod(dir, name, self.mode)?;
        }
        let times = times(self.mtime_ns);
        Ok(rustix::fs::utimensat(
            dir,
            name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// What the file system does not take is left out with a warning.
    fn set_xattrs(
        &self,
        path: &[u8],
        options: &ReceiveOptions,
        set: impl Fn(&str, &[u8]) -> Result<(), rustix::io::Errno>,
    ) {
        for (name, value) in &self.xattrs {
            if let Err(err) = set(name, value) {
                let cause = &err.into();
                let warning = ReceiveWarning::XattrSkipped { path, name, cause };
                options.observer.warning(&warning);
            }
        }
    }
}

/// Access time stays, modification time is set.
fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
        },
    }
}
