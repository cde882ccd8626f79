//! Which layouts a request names, and what the daemon is told of each.
//!
//! The rule: a name leads to a digest here and nowhere else, and before anything is sent.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bk_build::{
    BuildError, BuildRequest, Cache, Frontend, InputError, LocalFailure, NamedContext, OciReference,
    parse_bytes,
};

use super::{
    concerns::is_local,
    digest::Digest,
    layout::Layout,
    open_index,
    store::{Purpose, Store},
};

/// The id of the layout that is a result.
pub(super) const EXPORT: &str = "export";
/// The tag of a cache that is given none.
const DEFAULT_TAG: &str = "latest";
/// Names in messages about what a layout holds.
const NAMES_SHOWN: usize = 10;

/// The index of a cache, to be written in the end.
#[derive(Clone, Debug)]
pub(super) struct CacheUpdate {
    pub(super) store: String,
    pub(super) tag: String,
    /// Whether the build fails when it cannot be written.
    pub(super) vital: bool,
    /// Whether it is cleaned up, and to which size.
    pub(super) sweep: bool,
    pub(super) max_size: Option<u64>,
}

/// The index of a result.
#[derive(Clone, Debug)]
pub(super) struct ExportUpdate {
    pub(super) output: usize,
}

/// All layouts of a request.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) stores: BTreeMap<String, Store>,
    pub(super) attrs: BTreeMap<String, String>,
    pub(super) caches: Vec<CacheUpdate>,
    pub(super) export: Option<ExportUpdate>,
    pub(super) cache_from: Vec<Cache>,
    pub(super) cache_to: Vec<Cache>,
    pub(super) warnings: Vec<String>,
}

impl Plan {
    /// Looks at everything that `request` names. Blocks.
    pub(super) fn of(request: &BuildRequest) -> Result<Self, BuildError> {
        let mut plan = Self::default();
        let plain = matches!(request.frontend, Frontend::Definition(_));
        let mut number = 0;
        for (name, context) in &request.named_contexts {
            let NamedContext::OciLayout(reference) = context else {
                continue;
            };
            let (layout, digest) = resolve(name, reference)?;
            // Steps that were made elsewhere name it; otherwise the name must be one that a repository could have.
            let id = match plain {
                true => name.clone(),
                false => format!("bk-layout-{number}"),
            };
            number += 1;
            if !plain {
                let value = format!("oci-layout://{id}@{digest}");
                plan.attrs.insert(format!("context:{name}"), value);
            }
            let store = Store::new(&reference.dir, Purpose::Image, Some(layout));
            plan.stores.insert(format!("oci:{id}"), store);
        }
        for cache in &request.cache_to {
            let cache = match is_local(cache) {
                true => plan.write_cache(cache)?,
                false => cache.clone(),
            };
            plan.cache_to.push(cache);
        }
        for cache in &request.cache_from {
            if !is_local(cache) {
                plan.cache_from.push(cache.clone());
                continue;
            }
            match plan.read_cache(cache) {
                Ok(cache) => plan.cache_from.push(cache),
                Err(why) => plan.warnings.push(format!("--cache-from: {why}")),
            }
        }
        for (output, asked) in request.effective_outputs() {
            if let Some(dir) = asked.layout_dir() {
                check_place("--output", dir)?;
                plan.stores
                    .insert(EXPORT.to_owned(), Store::new(dir, Purpose::Result, None));
                plan.export = Some(ExportUpdate { output });
            }
        }
        Ok(plan)
    }

    fn write_cache(&mut self, cache: &Cache) -> Result<Cache, BuildError> {
        const FLAG: &str = "--cache-to";
        let mut cache = cache.clone();
        let dest = directory(&mut cache, "dest");
        check_place(FLAG, Path::new(&dest))?;
        let tag = cache.attrs.remove("tag").filter(|tag| !tag.is_empty());
        let max_size = cache.attrs.remove("max-size");
        let max_size = max_size.map(|text| parse_bytes(FLAG, &text)).transpose()?;
        let on = |text: &str| matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True");
        let reset = cache.attrs.remove("reset").is_some_and(|text| on(&text));
        let vital = cache
            .attrs
            .get("ignore-error")
            .is_some_and(|text| matches!(&**text, "0" | "f" | "F" | "false" | "FALSE" | "False"));
        let store = format!("local:{dest}");
        self.stores
            .entry(store.clone())
            .or_insert_with(|| Store::new(&dest, Purpose::Cache, None));
        self.caches.push(CacheUpdate {
            store,
            tag: tag.unwrap_or_else(|| DEFAULT_TAG.to_owned()),
            vital,
            sweep: reset || max_size.is_some(),
            max_size,
        });
        Ok(cache)
    }

    /// The cache as the daemon takes it, or why it cannot be read.
    fn read_cache(&mut self, cache: &Cache) -> Result<Cache, String> {
        let mut cache = cache.clone();
        let src = directory(&mut cache, "src");
        let path = Path::new(&src);
        let tag = cache.attrs.remove("tag").filter(|tag| !tag.is_empty());
        let cause = |e: &LocalFailure| {
            let source = e.source.as_ref().map_or_else(String::new, |e| format!(": {e}"));
            format!(
                "the cache in {} is left out: {}{source}",
                e.path.display(),
                e.message
            )
        };
        let given = cache.attrs.get("digest").filter(|digest| !digest.is_empty());
        let (layout, digest) = match given {
            Some(text) => {
                let digest = Digest::parse(text)
                    .ok_or_else(|| format!("the cache in {src} is left out: `{text}` is no digest"))?;
                let layout = Layout::open(path)
                    .map_err(|e| cause(&LocalFailure::new(path, "cannot be opened").caused_by(e)))?;
                (layout, digest)
            }
            None => {
                let (layout, index) = open_index(path).map_err(|e| cause(&e))?;
                let tag = tag.as_deref().unwrap_or(DEFAULT_TAG);
                let digest = index.find(tag, false).ok_or_else(|| {
                    format!("the cache in {src} is left out: it has nothing with the tag `{tag}`")
                })?;
                (layout, digest)
            }
        };
        let there = layout.has(&digest, 0);
        there
            .and_then(|there| {
                there
                    .then_some(())
                    .ok_or_else(|| std::io::ErrorKind::NotFound.into())
            })
            .map_err(|e| {
                let what = format!("its manifest {digest} cannot be read");
                cause(&LocalFailure::new(path, what).caused_by(e))
            })?;
        cache.attrs.insert("digest".to_owned(), digest.to_string());
        // One that is written as well has its store already.
        self.stores
            .entry(format!("local:{src}"))
            .or_insert_with(|| Store::new(&src, Purpose::Import, Some(layout)));
        Ok(cache)
    }
}

/// The directory of a local cache, under the one name that the daemon knows in this direction.
fn directory(cache: &mut Cache, key: &str) -> String {
    let dir = cache.attrs.remove("dir");
    let dir = cache.attrs.get(key).cloned().or(dir).unwrap_or_default();
    cache.attrs.insert(key.to_owned(), dir.clone());
    dir
}

/// Whether a layout can be written to a place, as far as that can be seen beforehand.
fn check_place(flag: &str, path: &Path) -> Result<(), BuildError> {
    let layout = match Layout::open(path) {
        Ok(layout) => layout,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            let why = format!("`{}` is no directory", path.display());
            return Err(InputError::new(flag, why, "a directory for the layout").into());
        }
        Err(e) => return Err(LocalFailure::new(path, "cannot be opened").caused_by(e).into()),
    };
    let may = layout
        .may_be_written()
        .map_err(|e| LocalFailure::new(path, "cannot be listed").caused_by(e))?;
    if may {
        return Ok(());
    }
    let why = format!("`{}` holds other files and no OCI layout", path.display());
    Err(InputError::new(flag, why, "a new or empty directory, or one with a layout").into())
}

/// What a named context stands for.
fn resolve(name: &str, reference: &OciReference) -> Result<(Layout, Digest), BuildError> {
    const FLAG: &str = "--build-context";
    let dir: &PathBuf = &reference.dir;
    let (layout, index) = open_index(dir)?;
    let digest = match &reference.digest {
        Some(text) => Digest::parse(text).ok_or_else(|| {
            InputError::new(
                FLAG,
                format!("`{name}`: `{text}` is no digest"),
                "sha256: and 64 hexadecimal digits",
            )
        })?,
        None => {
            let tag = reference.tag.as_deref();
            let found = index.find(tag.unwrap_or(DEFAULT_TAG), tag.is_none());
            found.ok_or_else(|| {
                let mut there: Vec<_> = index
                    .entries()
                    .into_iter()
                    .map(|e| e.name.unwrap_or_else(|| e.digest.to_string()))
                    .collect();
                there.dedup();
                let more = there.len() > NAMES_SHOWN;
                there.truncate(NAMES_SHOWN);
                let list = match &there[..] {
                    [] => "it is empty".to_owned(),
                    names => format!("there are {}{}", names.join(", "), if more { ", …" } else { "" }),
                };
                let why = format!(
                    "`{name}`: the layout {} has no image with the tag `{}`; {list}",
                    dir.display(),
                    tag.unwrap_or(DEFAULT_TAG)
                );
                InputError::new(FLAG, why, "oci-layout://DIR:TAG or oci-layout://DIR@DIGEST")
            })?
        }
    };
    match layout.has(&digest, 0) {
        Ok(true) => Ok((layout, digest)),
        Ok(false) => {
            let what = format!("the layout has no blob {digest}, which is the image of the context `{name}`");
            Err(LocalFailure::new(dir, what).into())
        }
        Err(e) => {
            let what = format!("cannot read {digest}, which is the image of the context `{name}`");
            Err(LocalFailure::new(dir, what).caused_by(e).into())
        }
    }
}
