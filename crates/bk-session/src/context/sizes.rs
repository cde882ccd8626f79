//! How much of a context would be sent, by directory.
//!
//! The rule: one walk, and memory for what is shown only.

use std::sync::atomic::AtomicBool;

use bk_build::BuildError;
use bk_fsync::entry::{Entry, Kind};

use super::view::ContextView;

/// A file or directory of what would be sent, with all below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextSize {
    /// Its name; empty for the root.
    pub name: Vec<u8>,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes of file content.
    pub bytes: u64,
    /// Entries that are no directories.
    pub files: u64,
    /// What is in it, largest first and then by name; empty below the depth that was asked for.
    pub children: Vec<ContextSize>,
}

impl ContextView {
    /// Adds up what would be sent, with details for `depth` levels below the root, or all. What is odd is told to `warn`.
    /// Blocks.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn sizes(
        &self,
        depth: Option<usize>,
        stop: &AtomicBool,
        warn: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<ContextSize, BuildError> {
        let mut sum = Sum {
            open: vec![ContextSize {
                is_dir: true,
                ..ContextSize::default()
            }],
            depth: depth.unwrap_or(usize::MAX),
        };
        self.list(stop, warn, |entry| -> Result<(), BuildError> {
            sum.add(entry);
            Ok(())
        })?;
        Ok(sum.finish())
    }
}

struct Sum {
    /// From the root to the directory that was seen last.
    open: Vec<ContextSize>,
    depth: usize,
}

impl Sum {
    fn add(&mut self, entry: &Entry) {
        let level = entry.path.split(|b| *b == b'/').count();
        // What lies deeper than is shown counts for the directory above that is.
        while self.open.len() > level.min(self.depth.saturating_add(1)) {
            self.close();
        }
        let size = match entry.meta.kind {
            Kind::File => entry.meta.size,
            _ => 0,
        };
        let is_dir = entry.meta.kind == Kind::Dir;
        if level > self.depth {
            if let Some(above) = self.open.last_mut() {
                above.bytes += size;
                above.files += u64::from(!is_dir);
            }
            return;
        }
        self.open.push(ContextSize {
            name: entry
                .path
                .rsplit(|b| *b == b'/')
                .next()
                .unwrap_or_default()
                .to_vec(),
            is_dir,
            bytes: size,
            files: u64::from(!is_dir),
            children: Vec::new(),
        });
    }

    /// Takes the innermost one into the one above it.
    fn close(&mut self) {
        if let Some(mut done) = self.open.pop() {
            done.children
                .sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
            if let Some(above) = self.open.last_mut() {
                above.bytes += done.bytes;
                above.files += done.files;
                above.children.push(done);
            } else {
                self.open.push(done);
            }
        }
    }

    fn finish(mut self) -> ContextSize {
        while self.open.len() > 1 {
            self.close();
        }
        self.close();
        self.open.pop().unwrap_or_default()
    }
}
