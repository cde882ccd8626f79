//! Every number of this crate.

use std::time::Duration;

/// The end of what a program wrote to its standard error, which is kept for the error.
pub const STDERR_TAIL: usize = 4 << 10;

/// How long a program that has closed its output may take to end and say why.
pub const FAREWELL: Duration = Duration::from_secs(3);

/// How long the standard error of a program that has ended is still read: something that it started may hold it open.
pub const STDERR_GRACE: Duration = Duration::from_millis(200);

/// Files of certificates and keys that are larger are refused; the certificates of all authorities that people trust are a
/// few hundred KiB.
pub const MAX_PEM: u64 = 4 << 20;
