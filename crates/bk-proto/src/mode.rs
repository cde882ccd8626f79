//! File modes on the wire.
//!
//! `Stat.mode` has the bits of Go's `os.FileMode`. The nine permission bits are those of Unix; type, setuid,
//! setgid and sticky stand elsewhere. Passing an `st_mode` through unchanged gives modes that look plausible and
//! are wrong.

use std::fmt;

/// Format bits of an `st_mode` and their values. Unix never changes them, and Windows builds need them too.
mod st {
    pub(super) const FORMAT: u32 = 0o170_000;
    pub(super) const SOCKET: u32 = 0o140_000;
    pub(super) const SYMLINK: u32 = 0o120_000;
    pub(super) const REGULAR: u32 = 0o100_000;
    pub(super) const BLOCK_DEVICE: u32 = 0o060_000;
    pub(super) const DIR: u32 = 0o040_000;
    pub(super) const CHAR_DEVICE: u32 = 0o020_000;
    pub(super) const NAMED_PIPE: u32 = 0o010_000;
    pub(super) const SETUID: u32 = 0o4_000;
    pub(super) const SETGID: u32 = 0o2_000;
    pub(super) const STICKY: u32 = 0o1_000;
}

/// A file mode in the bits of Go's `os.FileMode`. Any bits can be in it: it may have come from a daemon.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Mode(u32);

/// What an entry is, as its mode tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A file with content.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    NamedPipe,
    /// A socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// Something else, or several of the above at once.
    Irregular,
}

impl Mode {
    /// Bit of a directory.
    pub const DIR: u32 = 1 << 31;
    /// Bit of a file that can only be appended to.
    pub const APPEND: u32 = 1 << 30;
    /// Bit of a file that can be opened once at a time.
    pub const EXCLUSIVE: u32 = 1 << 29;
    /// Bit of a temporary file.
    pub const TEMPORARY: u32 = 1 << 28;
    /// Bit of a symbolic link.
    pub const SYMLINK: u32 = 1 << 27;
    /// Bit of a device, of either kind.
    pub const DEVICE: u32 = 1 << 26;
    /// Bit of a FIFO.
    pub const NAMED_PIPE: u32 = 1 << 25;
    /// Bit of a socket.
    pub const SOCKET: u32 = 1 << 24;
    /// Bit of a file that runs as its owner.
    pub const SETUID: u32 = 1 << 23;
    /// Bit of a file that runs as its group.
    pub const SETGID: u32 = 1 << 22;
    /// Bit of a character device, set together with [`Mode::DEVICE`].
    pub const CHAR_DEVICE: u32 = 1 << 21;
    /// Sticky bit.
    pub const STICKY: u32 = 1 << 20;
    /// Bit of a file of which nothing else is known.
    pub const IRREGULAR: u32 = 1 << 19;
    /// All bits that tell a type. A regular file has none of them.
    pub const TYPE: u32 = Self::DIR
        | Self::SYMLINK
        | Self::NAMED_PIPE
        | Self::SOCKET
        | Self::DEVICE
        | Self::CHAR_DEVICE
        | Self::IRREGULAR;
    /// The permission bits.
    pub const PERM: u32 = 0o777;

    /// Takes the bits of a `Stat`.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits for a `Stat`.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Translates an `st_mode`. A format that is not known becomes irregular, so that nobody opens it.
    #[must_use]
    pub const fn from_st_mode(st_mode: u32) -> Self {
        let kind = match st_mode & st::FORMAT {
            st::REGULAR => 0,
            st::DIR => Self::DIR,
            st::SYMLINK => Self::SYMLINK,
            st::NAMED_PIPE => Self::NAMED_PIPE,
            st::SOCKET => Self::SOCKET,
            st::BLOCK_DEVICE => Self::DEVICE,
            st::CHAR_DEVICE => Self::DEVICE | Self::CHAR_DEVICE,
            _ => Self::IRREGULAR,
        };
        let mut bits = kind | st_mode & Self::PERM;
        if st_mode & st::SETUID != 0 {
            bits |= Self::SETUID;
        }
        if st_mode & st::SETGID != 0 {
            bits |= Self::SETGID;
        }
        if st_mode & st::STICKY != 0 {
            bits |= Self::STICKY;
        }
        Self(bits)
    }

    /// Translates into an `st_mode`, format bits included; [`None`] for an irregular file, which has no format.
    #[must_use]
    pub const fn st_mode(self) -> Option<u32> {
        let format = match self.file_type() {
            FileType::Regular => st::REGULAR,
            FileType::Directory => st::DIR,
            FileType::Symlink => st::SYMLINK,
            FileType::NamedPipe => st::NAMED_PIPE,
            FileType::Socket => st::SOCKET,
            FileType::BlockDevice => st::BLOCK_DEVICE,
            FileType::CharDevice => st::CHAR_DEVICE,
            FileType::Irregular => return None,
        };
        Some(format | self.unix_permissions())
    }

    /// The twelve bits that `chmod` takes: permissions, setuid, setgid and sticky.
    #[must_use]
    pub const fn unix_permissions(self) -> u32 {
        let mut bits = self.0 & Self::PERM;
        if self.0 & Self::SETUID != 0 {
            bits |= st::SETUID;
        }
        if self.0 & Self::SETGID != 0 {
            bits |= st::SETGID;
        }
        if self.0 & Self::STICKY != 0 {
            bits |= st::STICKY;
        }
        bits
    }

    /// What the entry is.
    #[must_use]
    pub const fn file_type(self) -> FileType {
        const CHAR: u32 = Mode::DEVICE | Mode::CHAR_DEVICE;
        match self.0 & Self::TYPE {
            0 => FileType::Regular,
            Self::DIR => FileType::Directory,
            Self::SYMLINK => FileType::Symlink,
            Self::NAMED_PIPE => FileType::NamedPipe,
            Self::SOCKET => FileType::Socket,
            Self::DEVICE => FileType::BlockDevice,
            CHAR => FileType::CharDevice,
            _ => FileType::Irregular,
        }
    }

    /// Whether it is a directory, by the one bit that peers look at.
    #[must_use]
    pub const fn is_dir(self) -> bool {
        self.0 & Self::DIR != 0
    }

    /// Whether it is a symbolic link, by the one bit that peers look at.
    #[must_use]
    pub const fn is_symlink(self) -> bool {
        self.0 & Self::SYMLINK != 0
    }

    /// Whether it has no type bit. Only such entries can be requested, and of them not those that are hard links.
    #[must_use]
    pub const fn is_regular(self) -> bool {
        self.0 & Self::TYPE == 0
    }

    /// The same mode without the socket bit, as senders of the diff-copy protocol send it: a socket then passes
    /// for an empty regular file.
    #[must_use]
    pub const fn without_socket(self) -> Self {
        Self(self.0 & !Self::SOCKET)
    }

    /// The same mode with other permission bits. Bits of `perm` outside of [`Mode::PERM`] are ignored.
    #[must_use]
    pub const fn with_perm(self, perm: u32) -> Self {
        Self(self.0 & !Self::PERM | perm & Self::PERM)
    }

    /// The nine permission bits.
    #[must_use]
    pub const fn perm(self) -> u32 {
        self.0 & Self::PERM
    }
}

impl From<u32> for Mode {
    fn from(bits: u32) -> Self {
        Self(bits)
    }
}

impl From<Mode> for u32 {
    fn from(mode: Mode) -> Self {
        mode.0
    }
}

/// Writes type and octal permissions, such as `Directory 0755`.
impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:04o}", self.file_type(), self.unix_permissions())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `st_mode`, what it is on the wire, and its type.
    const KNOWN: &[(u32, u32, FileType)] = &[
        (0o100_644, 0o644, FileType::Regular),
        (0o100_000, 0, FileType::Regular),
        (0o040_755, 0x8000_01ed, FileType::Directory),
        (0o041_777, 0x8010_01ff, FileType::Directory),
        (0o042_775, 0x8040_01fd, FileType::Directory),
        (0o104_755, 0x0080_01ed, FileType::Regular),
        (0o106_711, 0x00c0_01c9, FileType::Regular),
        (0o120_777, 0x0800_01ff, FileType::Symlink),
        (0o060_660, 0x0400_01b0, FileType::BlockDevice),
        (0o020_666, 0x0420_01b6, FileType::CharDevice),
        (0o010_644, 0x0200_01a4, FileType::NamedPipe),
        (0o140_755, 0x0100_01ed, FileType::Socket),
    ];

    #[test]
    fn known_modes_translate_both_ways() {
        for &(st_mode, bits, kind) in KNOWN {
            let mode = Mode::from_st_mode(st_mode);
            assert_eq!(mode.bits(), bits, "{st_mode:o}");
            assert_eq!(mode.file_type(), kind, "{st_mode:o}");
            assert_eq!(Mode::from_bits(bits).st_mode(), Some(st_mode), "{st_mode:o}");
            assert_eq!(mode.unix_permissions(), st_mode & 0o7777);
            assert_eq!(mode.is_dir(), kind == FileType::Directory);
            assert_eq!(mode.is_symlink(), kind == FileType::Symlink);
            assert_eq!(mode.is_regular(), kind == FileType::Regular);
        }
    }

    #[test]
    fn every_permission_survives_for_every_type() {
        for &(st_mode, _, _) in KNOWN {
            for permissions in 0..=0o7777 {
                let st_mode = st_mode & 0o170_000 | permissions;
                assert_eq!(Mode::from_st_mode(st_mode).st_mode(), Some(st_mode));
            }
        }
    }

    #[test]
    fn odd_types_are_irregular() {
        assert_eq!(Mode::from_st_mode(0o644).bits(), Mode::IRREGULAR | 0o644);
        for bits in [
            Mode::IRREGULAR,
            Mode::DIR | Mode::SYMLINK,
            Mode::CHAR_DEVICE,
            Mode::SOCKET | Mode::DIR,
        ] {
            assert_eq!(Mode::from_bits(bits).file_type(), FileType::Irregular);
            assert_eq!(Mode::from_bits(bits).st_mode(), None);
            assert!(!Mode::from_bits(bits).is_regular());
        }
        // Bits that tell no type do not make a file irregular.
        assert!(Mode::from_bits(Mode::APPEND | Mode::EXCLUSIVE | Mode::TEMPORARY | 0o600).is_regular());
    }

    #[test]
    fn a_socket_passes_for_a_regular_file() {
        let mode = Mode::from_st_mode(0o140_755).without_socket();
        assert_eq!(mode.bits(), 0o755);
        assert!(mode.is_regular());
    }

    #[test]
    fn permissions_can_be_replaced() {
        let mode = Mode::from_st_mode(0o044_700).with_perm(0o177_755);
        assert_eq!(mode.bits(), Mode::DIR | Mode::SETUID | 0o755);
        assert_eq!(mode.perm(), 0o755);
        assert_eq!(format!("{mode:?}"), "Directory 4755");
    }
}
