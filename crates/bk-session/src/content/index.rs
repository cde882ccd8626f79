//! `index.json` of a layout: which manifests it holds, and by which names they are found.
//!
//! The rule: what other tools wrote there stays as it is. It is changed under the lock that other clients take, and is
//! replaced whole.

use std::{io, os::fd::OwnedFd, time::Instant};

use bk_build::Descriptor;
use rustix::fs::FlockOperation;
use serde_json::{Map, Value, json};

use super::{
    digest::Digest,
    layout::{INDEX, Layout},
};
use crate::limits::{INDEX_LOCK_PAUSE, INDEX_LOCK_WAIT};

/// The full name of an image.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The part behind the colon, or a tag that stands alone.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// What clients lock while they read or write the index.
const LOCK: &str = "index.json.lock";

/// A name for a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// A tag that stands alone.
    Tag(String),
    /// The full name of an image, with or without a tag.
    Image(String),
}

impl Name {
    /// The two annotations that say it.
    fn annotations(&self) -> (Option<&str>, &str) {
        match self {
            Self::Tag(tag) => (None, tag),
            Self::Image(name) => (Some(name), tag_of(name)),
        }
    }
}

/// The tag of an image's name.
fn tag_of(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map_or("latest", |(_, tag)| tag)
}

/// A manifest that the index names.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) digest: Digest,
    /// How it is named, for messages.
    pub(crate) name: Option<String>,
}

/// The index of a layout.
#[derive(Clone, Debug)]
pub(crate) struct Index(Map<String, Value>);

impl Index {
    fn new() -> Self {
        let mut map = Map::new();
        map.insert("schemaVersion".to_owned(), json!(2));
        map.insert("mediaType".to_owned(), json!(MEDIA_TYPE));
        Self(map)
    }

    fn read(text: &[u8]) -> io::Result<Self> {
        let bad = |e: String| io::Error::new(io::ErrorKind::InvalidData, format!("{INDEX}: {e}"));
        match serde_json::from_slice(text).map_err(|e| bad(e.to_string()))? {
            Value::Object(map) => match map.get("manifests") {
                None | Some(Value::Null | Value::Array(_)) => Ok(Self(map)),
                Some(_) => Err(bad("`manifests` is no list".to_owned())),
            },
            _ => Err(bad("it is no object".to_owned())),
        }
    }

    /// The index that is there; none when there is no file. Another client may be writing it in place: then its lock is
    /// waited for.
    pub(crate) fn load(layout: &Layout) -> io::Result<Option<Self>> {
        let read = || layout.top(INDEX)?.map(|text| Self::read(&text)).transpose();
        match read() {
            Err(e) if e.kind() == io::ErrorKind::InvalidData && layout.top(LOCK)?.is_some() => {
                let _lock = Lock::take(layout)?;
                read()
            }
            other => other,
        }
    }

    fn list(&self) -> &[Value] {
        match self.0.get("manifests") {
            Some(Value::Array(list)) => list,
            _ => &[],
        }
    }

    /// Its manifests. Those whose digest is none are left out.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let entry = |value: &Value| {
            Some(Entry {
                digest: Digest::parse(value.get("digest")?.as_str()?)?,
                name: annotation(value, IMAGE_NAME)
                    .or_else(|| annotation(value, REF_NAME))
                    .map(str::to_owned),
            })
        };
        self.list().iter().filter_map(entry).collect()
    }

    /// The manifest of a tag: that of the image of this name, else that of the tag, else the only one there is if
    /// `or_only` says so.
    pub(crate) fn find(&self, tag: &str, or_only: bool) -> Option<Digest> {
        let by = |key: &str| self.list().iter().find(|v| annotation(v, key) == Some(tag));
        let only = || match self.list() {
            [only] if or_only => Some(only),
            _ => None,
        };
        let found = by(IMAGE_NAME).or_else(|| by(REF_NAME)).or_else(only)?;
        Digest::parse(found.get("digest")?.as_str()?)
    }

    /// Names a manifest. What had one of the names before has it no longer.
    pub(crate) fn put(&mut self, descriptor: &Descriptor, names: &[Name]) {
        let mut list = self.list().to_vec();
        for name in names {
            let (image, reference) = name.annotations();
            let same =
                |v: &Value| annotation(v, IMAGE_NAME) == image && annotation(v, REF_NAME) == Some(reference);
            list.retain(|v| !same(v));
            list.push(entry_of(descriptor, image, reference));
        }
        self.0.insert("manifests".to_owned(), Value::Array(list));
    }

    /// Takes out the manifests that `keep` does not want.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Digest) -> bool) {
        if let Some(Value::Array(list)) = self.0.get_mut("manifests") {
            list.retain(|v| {
                let digest = v.get("digest").and_then(Value::as_str).and_then(Digest::parse);
                digest.is_none_or(|d| keep(&d))
            });
        }
    }

    /// Writes it. The lock must be held.
    pub(crate) fn store(&self, layout: &Layout, _lock: &Lock<'_>) -> io::Result<()> {
        let text = serde_json::to_vec(&self.0).map_err(io::Error::other)?;
        layout.set_top(INDEX, &text)
    }

    /// The index to be changed under the lock; a new one when there is none.
    pub(crate) fn load_or_new(layout: &Layout, _lock: &Lock<'_>) -> io::Result<Self> {
        let text = layout.top(INDEX)?.filter(|text| !text.is_empty());
        text.map_or_else(|| Ok(Self::new()), |text| Self::read(&text))
    }
}

fn annotation<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    entry.get("annotations")?.get(key)?.as_str()
}

fn entry_of(descriptor: &Descriptor, image: Option<&str>, reference: &str) -> Value {
    let mut annotations: Map<String, Value> = descriptor
        .annotations
        .iter()
        .map(|(k, v)| (k.clone(), json!(v)))
        .collect();
    if let Some(image) = image {
        annotations.insert(IMAGE_NAME.to_owned(), json!(image));
    }
    annotations.insert(REF_NAME.to_owned(), json!(reference));
    let mut entry = json!({
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
        "annotations": annotations,
    });
    let platform = descriptor
        .platform
        .as_deref()
        .map(|p| p.split('/').collect::<Vec<_>>());
    if let (Some([os, architecture, variant @ ..]), Some(entry)) =
        (platform.as_deref(), entry.as_object_mut())
    {
        let mut platform = json!({"os": os, "architecture": architecture});
        if let ([variant], Some(platform)) = (variant, platform.as_object_mut()) {
            platform.insert("variant".to_owned(), json!(variant));
        }
        entry.insert("platform".to_owned(), platform);
    }
    entry
}

/// The lock of an index. Dropping it removes the file, as other clients do.
pub(crate) struct Lock<'a> {
    layout: &'a Layout,
    file: OwnedFd,
}

impl<'a> Lock<'a> {
    /// Waits for the lock, for a bounded time.
    pub(crate) fn take(layout: &'a Layout) -> io::Result<Self> {
        let begun = Instant::now();
        loop {
            let file = layout.lock_file(LOCK)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever held it may have removed the file meanwhile.
                Ok(()) if layout.is_at_top(LOCK, &file)? => return Ok(Self { layout, file }),
                Ok(()) => continue,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(e) => return Err(e.into()),
            }
            if begun.elapsed() >= INDEX_LOCK_WAIT {
                let text = format!("another program holds {LOCK}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            std::thread::sleep(INDEX_LOCK_PAUSE); // sleep: a lock of this kind cannot be waited for with a deadline
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // While it is still held: nobody else can hold a lock on this file then.
        if self.layout.is_at_top(LOCK, &self.file).unwrap_or(false) {
            drop(self.layout.remove_top(LOCK));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn digest(n: char) -> String {
        format!("sha256:{}", n.to_string().repeat(64))
    }

    fn descriptor(n: char) -> Descriptor {
        Descriptor::new("application/vnd.oci.image.manifest.v1+json", digest(n), 7)
    }

    fn said(index: &Index) -> Vec<(String, String, String)> {
        let text = |v: &Value, key| annotation(v, key).unwrap_or("-").to_owned();
        let row = |v: &Value| {
            (
                v["digest"].as_str().unwrap_or("-")[7..8].to_owned(),
                text(v, IMAGE_NAME),
                text(v, REF_NAME),
            )
        };
        index.list().iter().map(row).collect()
    }

    fn row(a: &str, b: &str, c: &str) -> (String, String, String) {
        (a.to_owned(), b.to_owned(), c.to_owned())
    }

    #[test]
    fn names_are_put_and_found() {
        let mut index = Index::new();
        index.put(&descriptor('a'), &[Name::Tag("latest".to_owned())]);
        let names = ["docker.io/library/app:1", "h:5000/x"].map(|n| Name::Image(n.to_owned()));
        index.put(&descriptor('b'), &names);
        assert_eq!(
            said(&index),
            [
                row("a", "-", "latest"),
                row("b", "docker.io/library/app:1", "1"),
                row("b", "h:5000/x", "latest")
            ]
        );
        let find = |tag: &str| index.find(tag, true).map(|d| d.to_string());
        assert_eq!(find("latest"), Some(digest('a')));
        assert_eq!(find("1"), Some(digest('b')));
        assert_eq!(find("h:5000/x"), Some(digest('b')));
        assert_eq!(find("2"), None);
        index.put(&descriptor('c'), &[Name::Tag("latest".to_owned())]);
        index.put(&descriptor('d'), &names[..1]);
        assert_eq!(
            said(&index),
            [
                row("b", "h:5000/x", "latest"),
                row("c", "-", "latest"),
                row("d", "docker.io/library/app:1", "1")
            ]
        );
    }

    #[test]
    fn a_single_manifest_needs_no_name() {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}"}}]}}"#,
            digest('a')
        );
        let index = Index::read(text.as_bytes()).expect("an index");
        assert!(index.find("latest", true).is_some());
        assert!(index.find("latest", false).is_none());
    }

    #[test]
    fn what_others_wrote_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::open(dir.path()).expect("a layout");
        let theirs = format!(
            r#"{{"schemaVersion":2,"own":{{"x":1}},"manifests":[{{"digest":"{}","extra":[1]}}]}}"#,
            digest('a')
        );
        std::fs::write(dir.path().join(INDEX), theirs).expect("writable");
        let lock = Lock::take(&layout).expect("a lock");
        assert!(dir.path().join(LOCK).exists());
        let mut index = Index::load_or_new(&layout, &lock).expect("an index");
        let mut named = descriptor('b');
        named.platform = Some("linux/arm/v7".to_owned());
        named.annotations.insert("k".to_owned(), "v".to_owned());
        index.put(&named, &[Name::Tag("t".to_owned())]);
        index.store(&layout, &lock).expect("written");
        drop(lock);
        assert!(!dir.path().join(LOCK).exists());
        let text = std::fs::read(dir.path().join(INDEX)).expect("readable");
        let value: Value = serde_json::from_slice(&text).expect("json");
        assert_eq!(value["own"]["x"], 1);
        assert_eq!(value["manifests"][0]["extra"], json!([1]));
        assert_eq!(
            value["manifests"][1],
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest('b'), "size": 7,
                "annotations": {"k": "v", REF_NAME: "t"},
                "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
            })
        );
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_lock_is_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::open(dir.path()).expect("a layout");
        let held = Lock::take(&layout).expect("a lock");
        let second = Layout::open(dir.path()).expect("a layout");
        let (sender, taken) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let lock = Lock::take(&second).is_ok();
                sender.send(lock).expect("a listener");
            });
            assert!(taken.recv_timeout(Duration::from_millis(50)).is_err());
            drop(held);
            assert_eq!(taken.recv_timeout(INDEX_LOCK_WAIT), Ok(true));
        });
    }

    #[test]
    fn odd_indexes_are_errors() {
        for bad in ["", "[]", "{", r#"{"manifests":{}}"#] {
            assert!(Index::read(bad.as_bytes()).is_err(), "{bad}");
        }
        let odd = r#"{"manifests":[1,{"digest":"sha256:..","annotations":{"org.opencontainers.image.ref.name":"t"}}]}"#;
        let index = Index::read(odd.as_bytes()).expect("an index");
        assert!(index.entries().is_empty() && index.find("t", true).is_none());
    }
}
