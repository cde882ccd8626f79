//! Clean-ups of caches made by hand: what must go, what must stay, and what stops one.

use std::path::Path;

use bk_build::Descriptor;
use serde_json::json;

use super::*;
use crate::content::{
    digest::{Algorithm, Hasher},
    index::Name,
    record,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Cache {
    dir: tempfile::TempDir,
    layout: Layout,
}

impl Cache {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::open(dir.path()).expect("a layout");
        Self { dir, layout }
    }

    fn blobs(&self) -> std::path::PathBuf {
        self.dir.path().join("blobs/sha256")
    }

    /// A blob whose time is `age` seconds ago.
    fn blob(&self, bytes: &[u8], age: u64) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        let digest = hasher.digest();
        std::fs::create_dir_all(self.blobs()).expect("a directory");
        let path = self.blobs().join(digest.hex());
        std::fs::write(&path, bytes).expect("writable");
        let file = std::fs::File::options().write(true).open(&path).expect("a file");
        file.set_modified(SystemTime::now() - Duration::from_secs(age))
            .expect("a time");
        digest
    }

    /// A manifest with these layers, under a tag.
    fn tagged(&self, tag: &str, layers: &[&Digest], age: u64) -> Digest {
        let layers: Vec<_> = layers.iter().map(|d| json!({"digest": d.to_string()})).collect();
        let config = self.blob(format!("config of {tag}").as_bytes(), age);
        let text = json!({"config": {"digest": config.to_string()}, "layers": layers}).to_string();
        let digest = self.blob(text.as_bytes(), age);
        let descriptor = Descriptor::new(MANIFEST, digest.to_string(), text.len() as u64);
        record(&self.layout, &descriptor, &[Name::Tag(tag.to_owned())]).expect("an index");
        digest
    }

    fn has(&self, digest: &Digest) -> bool {
        self.blobs().join(digest.hex()).exists()
    }

    fn tags(&self) -> Vec<String> {
        let index = Index::load(&self.layout).expect("readable").expect("an index");
        let mut tags: Vec<_> = index.entries().into_iter().filter_map(|e| e.name).collect();
        tags.sort();
        tags
    }

    fn clean(&self, fresh: &Digest, max: Option<u64>) -> Cleaned {
        clean(&self.layout, fresh, max, SystemTime::now())
            .expect("clean")
            .expect("alone")
    }
}

const KB: [u8; 1000] = [7; 1000];

fn kb(n: u8) -> Vec<u8> {
    let mut bytes = KB.to_vec();
    bytes[0] = n;
    bytes
}

#[test]
fn what_nothing_names_goes_and_the_rest_stays() {
    let cache = Cache::new();
    let (used, shared, orphan) = (
        cache.blob(&kb(1), 99),
        cache.blob(&kb(2), 99),
        cache.blob(&kb(3), 99),
    );
    let old = cache.tagged("old", &[&shared], 99);
    let fresh = cache.tagged("latest", &[&used, &shared], 99);
    let young = cache.blob(b"another client writes this", 0);
    std::fs::write(cache.blobs().join("README"), "mine").expect("writable");
    std::fs::write(cache.dir.path().join("notes"), "mine").expect("writable");
    let cleaned = cache.clean(&fresh, None);
    assert_eq!((cleaned.blobs, cleaned.bytes, cleaned.manifests), (1, 1000, 0));
    for (digest, there) in [
        (&used, true),
        (&shared, true),
        (&orphan, false),
        (&old, true),
        (&fresh, true),
        (&young, true),
    ] {
        assert_eq!(cache.has(digest), there);
    }
    assert!(cache.blobs().join("README").exists() && cache.dir.path().join("notes").exists());
    assert_eq!(cache.tags(), ["latest", "old"]);
}

#[test]
fn the_oldest_goes_first_and_the_fresh_one_never() {
    let cache = Cache::new();
    let layers: Vec<_> = (0..4).map(|n| cache.blob(&kb(n), 500)).collect();
    cache.tagged("b", &[&layers[1]], 200);
    cache.tagged("a", &[&layers[0], &layers[3]], 300);
    let fresh = cache.tagged("latest", &[&layers[2], &layers[3]], 400);
    // Room for the fresh one and the one before it.
    let cleaned = cache.clean(&fresh, Some(4000));
    assert_eq!(cache.tags(), ["b", "latest"]);
    assert_eq!(cleaned.manifests, 1);
    assert!(!cache.has(&layers[0]), "only the oldest needed it");
    assert!(cache.has(&layers[1]) && cache.has(&layers[2]) && cache.has(&layers[3]));
    assert!(cleaned.left <= 4000 && cleaned.left > 3000, "{cleaned:?}");
    // No room at all.
    let cleaned = cache.clean(&fresh, Some(10));
    assert_eq!(cache.tags(), ["latest"]);
    assert!(cache.has(&layers[2]) && cache.has(&layers[3]) && !cache.has(&layers[1]));
    assert!(cleaned.left > 2000, "{cleaned:?}");
    assert_eq!(cache.clean(&fresh, Some(10)).blobs, 0);
}

#[test]
fn indexes_lead_to_manifests_and_layers_are_leaves() {
    let cache = Cache::new();
    // A layer whose text looks like a manifest.
    let hidden = cache.blob(&kb(9), 99);
    let layer = cache.blob(
        json!({"layers": [{"digest": hidden.to_string()}]})
            .to_string()
            .as_bytes(),
        99,
    );
    let config = cache.blob(b"config", 99);
    let inner = json!({"config": {"digest": config.to_string()}, "layers": [{"digest": layer.to_string(), "mediaType": "x"}]});
    let inner = cache.blob(inner.to_string().as_bytes(), 99);
    // Caches of older daemons list layers as manifests.
    let odd = cache.blob(&kb(8), 99);
    let text = json!({"manifests": [
        {"digest": inner.to_string(), "mediaType": MANIFEST},
        {"digest": odd.to_string(), "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"},
        {"digest": format!("sha256:{}", "0".repeat(64)), "mediaType": MANIFEST},
        {"digest": "sha256:../../etc/passwd", "mediaType": MANIFEST},
    ]})
    .to_string();
    let top = cache.blob(text.as_bytes(), 99);
    let descriptor = Descriptor::new(INDEX, top.to_string(), text.len() as u64);
    record(&cache.layout, &descriptor, &[Name::Tag("latest".to_owned())]).expect("an index");
    cache.clean(&top, None);
    for kept in [&top, &inner, &config, &layer, &odd] {
        assert!(cache.has(kept), "{kept}");
    }
    assert!(!cache.has(&hidden));
}

#[test]
fn nothing_is_removed_when_that_could_be_wrong() {
    let cache = Cache::new();
    let (layer, orphan) = (cache.blob(&kb(1), 99), cache.blob(&kb(2), 99));
    let fresh = cache.tagged("latest", &[&layer], 99);
    let clean = || clean(&cache.layout, &fresh, Some(1), SystemTime::now());
    // Somebody uses it.
    let other = Layout::open(cache.dir.path()).expect("a layout");
    assert_eq!(clean().expect("no error"), None);
    drop(other);
    // A manifest that cannot be understood may need anything.
    let broken = cache.blob(b"{", 99);
    let descriptor = Descriptor::new(MANIFEST, broken.to_string(), 1);
    record(&cache.layout, &descriptor, &[Name::Tag("broken".to_owned())]).expect("an index");
    assert!(clean().is_err());
    // A directory that does not say that it is a layout is none.
    let mark = cache.dir.path().join("oci-layout");
    let text = std::fs::read(&mark).expect("a mark");
    for odd in [&b"{}"[..], b"", br#"{"imageLayoutVersion":"2.0.0"}"#] {
        std::fs::write(&mark, odd).expect("writable");
        assert!(clean().is_err());
    }
    std::fs::remove_file(&mark).expect("a mark");
    assert!(clean().is_err());
    assert!(cache.has(&orphan) && cache.has(&layer) && cache.has(&broken));
    std::fs::write(&mark, text).expect("writable");
    std::fs::write(cache.dir.path().join("index.json"), "[]").expect("writable");
    assert!(clean().is_err() && cache.has(&orphan));
    assert!(Path::new(&mark).exists());
}
