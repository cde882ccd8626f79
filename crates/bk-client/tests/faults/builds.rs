//! What is built in a run: a context that no cache knows, and what has to come out.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bk_client::{BuildRequest, Network, Output};
use bk_testkit::{
    compare::{Rules, compare},
    live::Engine,
    snapshot::Snapshot,
};
use tempfile::TempDir;

/// Random numbers from a seed (SplitMix64): the same for everybody.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8))
            .flat_map(|_| self.next().to_le_bytes())
            .take(count)
            .collect()
    }
}

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Image,
    Directory,
    Archive,
}

/// A context, and where its result goes.
pub(crate) struct Job {
    context: TempDir,
    /// The only entry of the place is the result.
    place: TempDir,
    pub(crate) out: Out,
    pub(crate) tag: String,
}

impl Job {
    /// `small` is for slow links. Its files are below `outside`, which is not where the temporary files of the client are
    /// counted.
    pub(crate) fn make(random: &mut Random, out: Out, small: bool, outside: &Path) -> std::io::Result<Self> {
        let context = tempfile::Builder::new().prefix("context-").tempdir_in(outside)?;
        let busybox = std::env::var_os("BK_LIVE_BUSYBOX");
        let (files, large) = if small { (5, 40_000) } else { (150, 3 << 20) };
        for n in 0..files {
            let size = random.below(4000) as usize;
            let dir = context.path().join("tree").join(format!("d{}", n % 7));
            fs::create_dir_all(&dir)?;
            fs::write(dir.join(format!("f{n}")), random.bytes(size))?;
        }
        fs::write(context.path().join("tree/large"), random.bytes(large))?;
        let run = match busybox.filter(|_| !small) {
            Some(busybox) => {
                fs::copy(busybox, context.path().join("sh"))?;
                "COPY sh /bin/sh\nRUN echo begun; for i in 1 2 3 4 5; do sleep 0.1; echo $i; done\n"
            }
            None => "",
        };
        let text = format!("FROM scratch AS base\n{run}FROM base\nCOPY tree /tree\n");
        fs::write(context.path().join("Dockerfile"), text)?;
        Ok(Self {
            context,
            place: tempfile::Builder::new().prefix("place-").tempdir_in(outside)?,
            out,
            tag: format!("faults-{:016x}:1", random.next()),
        })
    }

    /// Where the result goes, if it comes here.
    pub(crate) fn destination(&self) -> PathBuf {
        self.place.path().join("result")
    }

    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn request(&self, retries: u32, stall: Duration) -> BuildRequest {
        let mut request = BuildRequest::new(self.context.path())
            .retries(retries)
            .stall_timeout(Some(stall));
        request.steps.network = Network::None;
        match self.out {
            Out::Image => request.tag(&self.tag),
            Out::Directory => request.output(Output::local(self.destination())),
            Out::Archive => request.output(Output::tar(self.destination())),
        }
    }

    /// Whether what came out is what was sent.
    pub(crate) async fn check(&self, engine: &Engine) -> Result<(), String> {
        let said = |e: std::io::Error| format!("the result: {e}");
        let wanted = Snapshot::of_dir(&self.context.path().join("tree")).map_err(said)?;
        let got = match self.out {
            Out::Image => engine.tree(&self.tag, "/tree").await.map_err(|e| e.to_string())?,
            Out::Directory => Snapshot::of_dir(&self.destination().join("tree")).map_err(said)?,
            Out::Archive => {
                let file = fs::File::open(self.destination()).map_err(said)?;
                Snapshot::of_tar(file).map_err(said)?.below("tree")
            }
        };
        let rules = Rules::image().without_times();
        compare(&wanted, &got, rules)
            .map_err(|d| d.lines().iter().take(5).cloned().collect::<Vec<_>>().join("; "))
    }

    /// Whether nothing that is not whole can be seen after a failure: no archive, and no part of a file in a directory.
    pub(crate) fn check_failed(&self) -> Result<(), String> {
        match self.out {
            Out::Archive if self.destination().exists() => Err("a failed build left an archive".to_owned()),
            Out::Image | Out::Archive => Ok(()),
            Out::Directory => whole(
                &self.context.path().join("tree"),
                &self.destination().join("tree"),
            ),
        }
    }

    /// Names beside the result, where there must be none.
    pub(crate) fn beside(&self) -> Vec<String> {
        let names = names(self.place()).unwrap_or_default();
        let names = names.into_iter().map(|n| n.to_string_lossy().into_owned());
        names.filter(|n| n != "result").collect()
    }
}

/// Whether each file in `part` has the bytes that it has in `all`.
fn whole(all: &Path, part: &Path) -> Result<(), String> {
    if !part.exists() {
        return Ok(());
    }
    for name in names(part)? {
        let (left, right) = (all.join(&name), part.join(&name));
        if right.is_dir() {
            whole(&left, &right)?;
        } else if fs::read(&left).ok() != fs::read(&right).ok() {
            return Err(format!("{} has other bytes", right.display()));
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>, String> {
    let list = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut names: Vec<_> = list.flatten().map(|e| e.file_name()).collect();
    names.sort();
    Ok(names)
}
