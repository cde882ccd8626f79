//! Why an instruction found nothing: what the context itself has to say to a path that a daemon did not find.
//!
//! The rule: only what was looked at is claimed. Looking is bounded: a few directories, and for files of the same name
//! elsewhere a limited number of entries.

use std::{fmt, io, path::PathBuf, sync::atomic::AtomicBool};

use bk_build::BuildError;
use bk_fsync::{
    SendObserver, Utf8Policy, Warning,
    entry::Kind,
    path::{RelPath, clean, show},
    walk::Walk,
};

use super::{
    view::{ContextView, kind_of},
    why::{Deciding, WhyNot},
};
use crate::limits::{ABSENCE_ENTRIES, ABSENCE_NAMES};

/// Why there is nothing under a path of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Absence {
    /// It is there, and the ignore file leaves it out.
    Ignored {
        /// The path from the root of the context.
        path: Vec<u8>,
        /// By which pattern.
        by: Option<Deciding>,
    },
    /// It is a directory that is there, and all that is in it is left out.
    Empty {
        /// The path from the root of the context.
        path: Vec<u8>,
    },
    /// The directory that it should be in is there, and holds nothing at all.
    Hollow {
        /// As it was asked for.
        asked: Vec<u8>,
        /// The directory, from the root of the context.
        directory: Vec<u8>,
    },
    /// There is nothing, and nothing like it.
    Nothing {
        /// As it was asked for.
        asked: Vec<u8>,
        /// The directory that is the context.
        root: Option<PathBuf>,
    },
    /// The instruction takes it from another stage or an image, which does not have it.
    NotInStage {
        /// As it was asked for.
        asked: String,
        /// The name of the stage or image in the instruction.
        stage: String,
    },
    /// It is there with other capitals.
    OtherCase {
        /// As it was asked for.
        asked: Vec<u8>,
        /// As it is there.
        there: Vec<u8>,
    },
    /// The instruction asks for something outside of the context.
    Outside {
        /// As it stands in the instruction.
        asked: String,
        /// The directory that is the context.
        root: Option<PathBuf>,
    },
    /// A symbolic link on the way leads to something that the context does not have.
    Link {
        /// The link.
        link: Vec<u8>,
        /// Where it leads.
        target: Vec<u8>,
    },
    /// It is there, and is a socket.
    Socket {
        /// The path from the root of the context.
        path: Vec<u8>,
    },
    /// There is nothing, but there are names like it.
    Similar {
        /// As it was asked for.
        asked: Vec<u8>,
        /// The nearest, best first.
        there: Vec<Vec<u8>>,
    },
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored { path, by: Some(by) } => {
                write!(
                    f,
                    "`{}` is there, but {}:{} (`{}`) leaves it out",
                    show(path),
                    by.file.display(),
                    by.line,
                    show(&by.pattern)
                )?;
                match by.at == *path {
                    true => Ok(()),
                    false => write!(f, " with all of `{}`", show(&by.at)),
                }
            }
            Self::Ignored { path, by: None } => {
                write!(f, "`{}` is there, but the ignore file leaves it out", show(path))
            }
            Self::Empty { path } => {
                write!(f, "`{}` is there, but nothing in it is sent", show(path))
            }
            Self::Hollow { asked, directory } => write!(
                f,
                "there is no `{}`: the directory `{}` is empty",
                show(asked),
                show(directory)
            ),
            Self::Nothing { asked, root } => {
                write!(f, "there is no `{}` in ", show(asked))?;
                match root {
                    Some(root) => write!(f, "{}, nor a name like it", root.display()),
                    None => write!(f, "the context, nor a name like it"),
                }
            }
            Self::NotInStage { asked, stage } => {
                write!(
                    f,
                    "`{stage}`, which the instruction copies from, has no `{asked}`"
                )
            }
            Self::OtherCase { asked, there } => {
                write!(
                    f,
                    "there is `{}`, and no `{}`: capitals count",
                    show(there),
                    show(asked)
                )
            }
            Self::Outside { asked, root } => {
                write!(f, "`{asked}` leads out of the context")?;
                match root {
                    Some(root) => write!(f, "; only what is below {} can be copied", root.display()),
                    None => Ok(()),
                }
            }
            Self::Link { link, target } => write!(
                f,
                "`{}` is a symbolic link to `{}`, which the context does not have",
                show(link),
                show(target)
            ),
            Self::Socket { path } => write!(f, "`{}` is a socket, and sockets are never sent", show(path)),
            Self::Similar { asked, there } => {
                write!(f, "there is no `{}`; did you mean ", show(asked))?;
                for (at, name) in there.iter().enumerate() {
                    let before = if at == 0 { "" } else { " or " };
                    write!(f, "{before}`{}`", show(name))?;
                }
                f.write_str("?")
            }
        }
    }
}

struct Quiet;

impl SendObserver for Quiet {
    fn warning(&self, _: &Warning<'_>) {}
}

impl ContextView {
    /// Why a daemon finds nothing under `asked`, a path from the root of the context; `None` when the context has nothing to
    /// say to it. Blocks.
    ///
    /// # Errors
    /// What cannot be read is named.
    pub fn absence(&self, asked: &[u8]) -> Result<Option<Absence>, BuildError> {
        let asked = clean(asked);
        let asked = asked.strip_prefix(b"/").unwrap_or(&asked).to_vec();
        let Ok(rel) = RelPath::new(&asked) else {
            return Ok(None);
        };
        let tree = &*self.source.tree;
        let kind = |path: &[u8]| {
            RelPath::new(path)
                .ok()
                .and_then(|rel| kind_of(tree, rel).ok().flatten())
        };
        match kind(&asked) {
            Some(found) => {
                let why = self.why(rel.as_bytes())?;
                return Ok(match (why.not, found) {
                    (Some(WhyNot::Ignored), _) => Some(Absence::Ignored {
                        path: asked,
                        by: why.by,
                    }),
                    (_, Kind::Socket) => Some(Absence::Socket { path: asked }),
                    (None, Kind::Symlink) => self.link(&asked)?,
                    (None, Kind::Dir) => Some(Absence::Empty { path: asked }),
                    _ => None,
                });
            }
            None => {
                if let Some(link) = self.links(&asked)? {
                    return Ok(Some(link));
                }
            }
        }
        if let Some(there) = self.other_case(&asked) {
            return Ok(Some(Absence::OtherCase { asked, there }));
        }
        if let Some(directory) = self.hollow(&asked) {
            return Ok(Some(Absence::Hollow { asked, directory }));
        }
        let there = self.similar(&asked)?;
        Ok(Some(match there.is_empty() {
            // A pattern may match what is not looked for here.
            true if asked.iter().any(|b| b"*?[\\".contains(b)) => return Ok(None),
            true => Absence::Nothing {
                asked,
                root: self.root().map(PathBuf::from),
            },
            false => Absence::Similar { asked, there },
        }))
    }

    /// The deepest directory on the way, if it is empty.
    fn hollow(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let (mut dir, _) = parent(asked);
        while !dir.is_empty() {
            if let Ok(mut open) = self.dir(dir) {
                return open
                    .list()
                    .is_ok_and(|list| list.is_empty())
                    .then(|| dir.to_vec());
            }
            (dir, _) = parent(dir);
        }
        None
    }

    /// The first symbolic link on the way, if it leads nowhere.
    fn links(&self, asked: &[u8]) -> Result<Option<Absence>, BuildError> {
        let ends = asked
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(at, _)| at);
        for end in ends {
            let part = asked.get(..end).unwrap_or_default();
            let rel = RelPath::new(part).unwrap_or(RelPath::ROOT);
            if let Ok(Some(Kind::Symlink)) = kind_of(&*self.source.tree, rel) {
                return self.link(part);
            }
        }
        Ok(None)
    }

    fn link(&self, path: &[u8]) -> Result<Option<Absence>, BuildError> {
        let (dir, name) = parent(path);
        let target = self.dir(dir).and_then(|dir| dir.read_link(name));
        let Ok(target) = target else {
            return Ok(None);
        };
        // Where it leads, seen from the root of the context, which nothing leads above.
        let joined = match target.first() {
            Some(b'/') => target.clone(),
            _ => [dir, b"/", &target].concat(),
        };
        let cleaned = clean(&joined);
        let inside = cleaned.strip_prefix(b"/").unwrap_or(&cleaned);
        let there = RelPath::new(inside)
            .ok()
            .and_then(|rel| kind_of(&*self.source.tree, rel).ok().flatten());
        Ok(match there {
            Some(_) => None,
            None => Some(Absence::Link {
                link: path.to_vec(),
                target,
            }),
        })
    }

    fn dir(&self, path: &[u8]) -> io::Result<Box<dyn bk_fsync::tree::Directory>> {
        let rel = RelPath::new(path).map_err(io::Error::other)?;
        self.source.tree.open_dir(rel)
    }

    /// The names in a directory; none when it cannot be listed.
    fn names(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let listed = self.dir(path).and_then(|mut dir| dir.list());
        let mut names: Vec<_> = listed.unwrap_or_default().into_iter().map(|l| l.name).collect();
        names.sort();
        names.truncate(ABSENCE_ENTRIES);
        names
    }

    /// The same path with other capitals.
    fn other_case(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let lower = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase();
        let mut path: Vec<u8> = Vec::new();
        for part in asked.split(|b| *b == b'/') {
            let names = self.names(&path);
            let found = names
                .iter()
                .find(|name| *name == part)
                .or_else(|| names.iter().find(|name| lower(name) == lower(part)))?;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(found);
        }
        (path != asked).then_some(path)
    }

    /// Names like the first one that is not there, in its directory; else files of the same name elsewhere.
    fn similar(&self, asked: &[u8]) -> Result<Vec<Vec<u8>>, BuildError> {
        let mut dir: Vec<u8> = Vec::new();
        let mut parts = asked.split(|b| *b == b'/');
        let missing = loop {
            let Some(part) = parts.next() else {
                return Ok(Vec::new());
            };
            let next = join(&dir, part);
            let rel = RelPath::new(&next).unwrap_or(RelPath::ROOT);
            match kind_of(&*self.source.tree, rel) {
                Ok(Some(_)) => dir = next,
                _ => break part,
            }
        };
        let rest: Vec<&[u8]> = parts.collect();
        let wanted = String::from_utf8_lossy(missing).into_owned();
        let allowed = wanted.chars().count() / 3 + 1;
        let mut near: Vec<(usize, Vec<u8>)> = self
            .names(&dir)
            .into_iter()
            .map(|name| {
                (
                    strsim::damerau_levenshtein(&wanted, &String::from_utf8_lossy(&name)),
                    name,
                )
            })
            .filter(|(distance, _)| *distance <= allowed)
            .map(|(distance, name)| {
                let path = rest
                    .iter()
                    .fold(join(&dir, &name), |path, part| join(&path, part));
                (distance, path)
            })
            .filter(|(_, path)| {
                let rel = RelPath::new(path).unwrap_or(RelPath::ROOT);
                kind_of(&*self.source.tree, rel).is_ok_and(|kind| kind.is_some())
            })
            .collect();
        near.sort();
        near.truncate(ABSENCE_NAMES);
        if !near.is_empty() {
            return Ok(near.into_iter().map(|(_, path)| path).collect());
        }
        let (_, name) = parent(asked);
        let stop = AtomicBool::new(false);
        let walk = Walk::new(&*self.source.tree, &self.rules, Utf8Policy::Any, &Quiet, &stop);
        let mut there = Vec::new();
        for entry in walk.take(ABSENCE_ENTRIES) {
            let entry = entry.map_err(|e| self.explain(e))?;
            if parent(&entry.path).1 == name {
                there.push(entry.path);
                if there.len() == ABSENCE_NAMES {
                    break;
                }
            }
        }
        Ok(there)
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        [] => name.to_vec(),
        dir => [dir, b"/", name].concat(),
    }
}

/// The directory that holds a path, and the name in it.
fn parent(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (&[], path),
    }
}

#[cfg(test)]
#[path = "absence_tests.rs"]
mod tests;
