//! The choices that an export to a directory is started with.
//!
//! The rule: every default is the one that does no harm, and is stated where it is set.

use std::fmt;
use std::sync::Arc;

use super::report::{NobodyReceives, ReceiveObserver};

/// What becomes of files in the destination that were not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReceiveMode {
    /// They stay as they are.
    #[default]
    Copy,
    /// They are removed, once everything that was sent is there. For a destination that takes only one stream.
    Delete,
}

/// Who owns the files that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReceivedOwner {
    /// Whoever runs this process. The group is the one that the system gives to new files. Modes are kept whole, as
    /// upstream's client does: a setuid program that is exported by root is one of root.
    #[default]
    CurrentUser,
    /// The owner and group that were sent. Needs the privilege to give files away.
    AsSent,
}

/// When a file that is in the destination counts as the one that was announced, so that it is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unchanged {
    /// If size, mode, owner and modification time agree and that time has a fraction of a second. Times of whole
    /// seconds are no evidence: reproducible builds give the same one to every file, whatever is in it.
    #[default]
    SameFineTime,
    /// If size, mode, owner and modification time agree. Keeps a stale file when a build sets fixed times.
    SameTime,
    /// Never: every file is asked for.
    Never,
}

/// What is done about devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DevicePolicy {
    /// A device is an error that names it.
    #[default]
    Refuse,
    /// Devices are left out, each with a warning.
    Skip,
    /// Devices are made, with whatever numbers were sent. Needs privileges, and trust in the build.
    Create,
}

/// How an export is received.
#[derive(Clone)]
#[non_exhaustive]
pub struct ReceiveOptions {
    /// What becomes of other files. Default: they stay.
    pub mode: ReceiveMode,
    /// Nothing is written or asked for, only reported. Default: false.
    pub dry_run: bool,
    /// Who owns what is written. Default: the current user.
    pub owner: ReceivedOwner,
    /// Which files are not asked for. Default: those that agree in everything, with times finer than a second.
    pub unchanged: Unchanged,
    /// What is done about devices. Default: they are errors.
    pub devices: DevicePolicy,
    /// Whether attributes in the namespaces `security` and `trusted` are set, which can give rights to a program.
    /// Default: false, they are left out. All others are set if the file system takes them.
    pub privileged_xattrs: bool,
    /// Who watches. Default: nobody.
    pub observer: Arc<dyn ReceiveObserver>,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        ReceiveOptions {
            mode: ReceiveMode::default(),
            dry_run: false,
            owner: ReceivedOwner::default(),
            unchanged: Unchanged::default(),
            devices: DevicePolicy::default(),
            privileged_xattrs: false,
            observer: Arc::new(NobodyReceives),
        }
    }
}

impl fmt::Debug for ReceiveOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveOptions")
            .field("mode", &self.mode)
            .field("dry_run", &self.dry_run)
            .field("owner", &self.owner)
            .field("unchanged", &self.unchanged)
            .field("devices", &self.devices)
            .field("privileged_xattrs", &self.privileged_xattrs)
            .finish_non_exhaustive()
    }
}

impl ReceiveOptions {
    /// The defaults of every field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what becomes of files that were not sent. Default: [`ReceiveMode::Copy`].
    #[must_use]
    pub fn mode(mut self, mode: ReceiveMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets whether the transfer only reports what it would do. Default: false.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets who owns what is written. Default: [`ReceivedOwner::CurrentUser`].
    #[must_use]
    pub fn owner(mut self, owner: ReceivedOwner) -> Self {
        self.owner = owner;
        self
    }

    /// Sets which files are not asked for. Default: [`Unchanged::SameFineTime`].
    #[must_use]
    pub fn unchanged(mut self, unchanged: Unchanged) -> Self {
        self.unchanged = unchanged;
        self
    }

    /// Sets what is done about devices. Default: [`DevicePolicy::Refuse`].
    #[must_use]
    pub fn devices(mut self, devices: DevicePolicy) -> Self {
        self.devices = devices;
        self
    }

    /// Sets whether attributes that can give rights are set. Default: false.
    #[must_use]
    pub fn privileged_xattrs(mut self, set: bool) -> Self {
        self.privileged_xattrs = set;
        self
    }

    /// Sets who watches. Default: nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn ReceiveObserver>) -> Self {
        self.observer = observer;
        self
    }
}
