//! A regular file of the host, open for reading.
//!
//! The rule: its holes are found, not read.

use std::fs::File;
use std::io::{self, Read};

use super::OpenFile;
#[cfg(target_os = "linux")]
use super::Run;
use super::dir::meta_of;
use crate::entry::Meta;

pub(super) struct HostFile {
    file: File,
    /// Whether it takes less room than it has bytes, so that looking for holes pays.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "holes are looked for on Linux only")
    )]
    sparse: bool,
}

impl HostFile {
    /// `stat` is what the system says of `file`.
    #[expect(
        clippy::unnecessary_cast,
        reason = "the fields have different widths on different systems"
    )]
    pub(super) fn new(file: File, stat: &rustix::fs::Stat) -> Self {
        HostFile {
            sparse: (stat.st_blocks as i64).saturating_mul(512) < stat.st_size as i64,
            file,
        }
    }
}

impl Read for HostFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl OpenFile for HostFile {
    fn stat(&self) -> io::Result<Meta> {
        meta_of(&rustix::fs::fstat(&self.file)?)
    }

    #[cfg(target_os = "linux")]
    fn next_run(&mut self) -> io::Result<Run> {
        use rustix::fs::{SeekFrom, seek};
        use rustix::io::Errno;
        if !self.sparse {
            return Ok(Run::Data(u64::MAX));
        }
        let file = &self.file;
        let at = rustix::fs::tell(file)?;
        match seek(file, SeekFrom::Data(at)) {
            Ok(data) if data > at => Ok(Run::Hole(data - at)),
            Ok(_) => {
                let end = seek(file, SeekFrom::Hole(at))?;
                seek(file, SeekFrom::Start(at))?;
                Ok(Run::Data(end.saturating_sub(at)))
            }
            // Nothing but a hole up to the end, or the end.
            Err(Errno::NXIO) => {
                let end = seek(file, SeekFrom::End(0))?;
                if end > at {
                    return Ok(Run::Hole(end - at));
                }
                seek(file, SeekFrom::Start(at))?;
                Ok(Run::Data(u64::MAX))
            }
            // A file system that does not tell.
            Err(_) => {
                self.sparse = false;
                Ok(Run::Data(u64::MAX))
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn data_runs(&mut self, limit: usize) -> io::Result<Option<Vec<(u64, u64)>>> {
        use rustix::fs::{SeekFrom, seek, tell};
        if !self.sparse {
            return Ok(None);
        }
        let at = tell(&self.file)?;
        let end = seek(&self.file, SeekFrom::End(0))?;
        let runs = data_runs(&self.file, 0, end, limit);
        seek(&self.file, SeekFrom::Start(at))?;
        runs
    }
}

/// The runs of data between two places of a file. Leaves the file's position anywhere. `None`: the file system does not
/// tell, there are no holes, or there are more than `limit` runs.
#[cfg(target_os = "linux")]
pub(crate) fn data_runs(
    file: &File,
    start: u64,
    end: u64,
    limit: usize,
) -> io::Result<Option<Vec<(u64, u64)>>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    let mut runs = Vec::new();
    let mut at = start;
    while at < end {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(end),
            Err(Errno::NXIO) => end,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(err) => return Err(err.into()),
        };
        if data == end {
            break;
        }
        at = match seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.clamp(data, end),
            // Cut off meanwhile: whoever reads it will notice.
            Err(Errno::NXIO) => end,
            Err(err) => return Err(err.into()),
        };
        if at == data {
            // It changes at this moment: whoever reads it will notice.
            return Ok(None);
        }
        if runs.len() == limit {
            return Ok(None);
        }
        runs.push((data, at - data));
    }
    Ok((runs != [(start, end.saturating_sub(start))]).then_some(runs))
}
