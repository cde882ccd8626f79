//! Records of a daemon's cache.

use std::time::SystemTime;

use crate::serial;

/// One record of a daemon's cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct CacheRecord {
    /// Its id.
    pub id: String,
    /// Its kind: `regular`, `internal`, `frontend`, `source.local`, `source.git.checkout`, `exec.cachemount`, or a word of
    /// a newer daemon.
    pub record_type: String,
    /// What it is, for people; empty when the daemon does not say.
    pub description: String,
    /// Bytes that it takes alone, without its parents. 0 as well when it may still change.
    pub size: u64,
    /// A build uses it now, or something that a build uses needs it.
    pub in_use: bool,
    /// It may still change.
    pub mutable: bool,
    /// Something outside of the cache holds it too, for instance an image; removing the record frees nothing then.
    pub shared: bool,
    /// What it stands on.
    #[serde(default)]
    pub parents: Vec<String>,
    /// When it came to be, if the daemon says so.
    #[serde(default, with = "serial::maybe_time")]
    pub created_at: Option<SystemTime>,
    /// When a build last used it; `None` when none did.
    #[serde(default, with = "serial::maybe_time")]
    pub last_used_at: Option<SystemTime>,
    /// How often builds used it.
    pub usage_count: u64,
}

impl CacheRecord {
    /// A record of that id; everything else is empty.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            ..Self::default()
        }
    }
}

/// Records of a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUsage {
    /// The records, largest first.
    pub records: Vec<CacheRecord>,
}

impl DiskUsage {
    /// Puts records in order: largest first, then by id.
    pub fn new(mut records: Vec<CacheRecord>) -> Self {
        records.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
        Self { records }
    }

    /// Bytes of all records.
    pub fn total(&self) -> u64 {
        self.sum(|_| true)
    }

    /// Bytes of records that no build uses now.
    pub fn reclaimable(&self) -> u64 {
        self.sum(|r| !r.in_use)
    }

    /// Bytes of records that something outside of the cache holds too.
    pub fn shared(&self) -> u64 {
        self.sum(|r| r.shared)
    }

    /// Bytes of records that the cache alone holds.
    pub fn private(&self) -> u64 {
        self.sum(|r| !r.shared)
    }

    fn sum(&self, counts: impl Fn(&CacheRecord) -> bool) -> u64 {
        // What a daemon says may be nonsense.
        let sizes = self.records.iter().filter(|r| counts(r)).map(|r| r.size);
        sizes.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_leave_nothing_out_and_never_overflow() {
        let record = |id: &str, size, in_use, shared| CacheRecord {
            size,
            in_use,
            shared,
            ..CacheRecord::new(id)
        };
        let usage = DiskUsage::new(vec![
            record("b", 5, true, false),
            record("a", 5, false, true),
            record("c", 70, false, false),
        ]);
        let ids: Vec<_> = usage.records.iter().map(|r| &*r.id).collect();
        assert_eq!(ids, ["c", "a", "b"]);
        assert_eq!(
            (
                usage.total(),
                usage.reclaimable(),
                usage.shared(),
                usage.private()
            ),
            (80, 75, 5, 75)
        );
        let odd = DiskUsage::new(vec![
            record("x", u64::MAX, false, false),
            record("y", 9, false, false),
        ]);
        assert_eq!(odd.total(), u64::MAX);
    }

    #[test]
    fn records_are_json_objects_with_times_as_text() {
        let mut record = CacheRecord::new("i");
        record.last_used_at = Some(SystemTime::UNIX_EPOCH);
        let text = serde_json::to_string(&record).expect("JSON");
        assert_eq!(
            text,
            r#"{"id":"i","record_type":"","description":"","size":0,"in_use":false,"mutable":false,"shared":false,"parents":[],"created_at":null,"last_used_at":"1970-01-01T00:00:00Z","usage_count":0}"#
        );
        assert_eq!(
            serde_json::from_str::<CacheRecord>(&text).expect("a record"),
            record
        );
    }
}
