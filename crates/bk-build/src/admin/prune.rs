//! What is removed of a cache, and what would be.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use super::{CacheQuery, CacheRecord, DiskUsage};

/// What to remove of a cache. The default removes everything that no build uses, except what the daemon itself, its
/// frontends and its images hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneOptions {
    /// Which records may go. Default: all.
    pub query: CacheQuery,
    /// Also records of the daemon itself, of frontends, and those that something else holds. Default: no.
    pub all: bool,
    /// Bytes that always stay. Default: none. Called `keep-storage` by older clients.
    pub reserved_space: Option<u64>,
    /// Bytes that the cache may take: no more is removed than is needed for that. Default: no limit, everything goes.
    /// BuildKit 0.17.
    pub max_used_space: Option<u64>,
    /// Bytes that must be free on the disk: no more is removed than is needed for that. Default: no limit. BuildKit 0.17.
    pub min_free_space: Option<u64>,
}

impl PruneOptions {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets which records may go; the default is all.
    #[must_use]
    pub fn query(mut self, query: CacheQuery) -> Self {
        self.query = query;
        self
    }

    /// Sets whether records of the daemon itself, of frontends and of others go too; the default is no.
    #[must_use]
    pub fn all(mut self, yes: bool) -> Self {
        self.all = yes;
        self
    }

    /// Keeps what was used within `time`; the default is nothing. The same as a query for what is unused for so long.
    #[must_use]
    pub fn keep_duration(mut self, time: Duration) -> Self {
        self.query = self.query.unused_for(time);
        self
    }

    /// Sets how many bytes always stay; the default is none.
    #[must_use]
    pub fn reserved_space(mut self, bytes: u64) -> Self {
        self.reserved_space = Some(bytes);
        self
    }

    /// Sets how many bytes the cache may take; the default is no limit. BuildKit 0.17.
    #[must_use]
    pub fn max_used_space(mut self, bytes: u64) -> Self {
        self.max_used_space = Some(bytes);
        self
    }

    /// Sets how many bytes must be free on the disk; the default is no limit. BuildKit 0.17.
    #[must_use]
    pub fn min_free_space(mut self, bytes: u64) -> Self {
        self.min_free_space = Some(bytes);
        self
    }

    /// What would be removed of the records in `all`, of which the daemon says that `selected` are those of the query.
    ///
    /// A daemon removes a record only when nothing stands on it, so what stands on something that stays keeps its parents.
    pub fn plan(&self, all: &DiskUsage, selected: DiskUsage) -> PrunePlan {
        let cutoff = self
            .query
            .unused_for
            .and_then(|t| SystemTime::now().checked_sub(t));
        let may_go = |r: &CacheRecord| {
            let own = matches!(&*r.record_type, "internal" | "frontend") || r.shared;
            let fresh = cutoff.is_some_and(|cutoff| r.last_used_at.is_some_and(|used| used > cutoff));
            !r.in_use && (self.all || !own) && !fresh
        };
        let mut records: Vec<CacheRecord> = selected.records;
        records.retain(may_go);
        let mut going: HashSet<String> = records.iter().map(|r| r.id.clone()).collect();
        let parents: HashMap<&str, &[String]> = all
            .records
            .iter()
            .map(|r| (r.id.as_str(), r.parents.as_slice()))
            .collect();
        // From what stays down to what it stands on; each record at most once.
        let mut staying: Vec<&str> = parents
            .keys()
            .copied()
            .filter(|id| !going.contains(*id))
            .collect();
        while let Some(id) = staying.pop() {
            for parent in parents.get(id).copied().unwrap_or_default() {
                if going.remove(parent) {
                    staying.push(parent);
                }
            }
        }
        records.retain(|r| going.contains(&r.id));
        let plan = DiskUsage::new(records);
        let most = plan.total();
        let keep = self.reserved_space.into_iter().chain(self.max_used_space).max();
        let (bytes, why) = match (keep, self.min_free_space) {
            (None, None) => (most, None),
            (_, Some(_)) => (most, Some("at most; how much disk is free is not known here")),
            (Some(keep), None) => {
                let surplus = all.private().saturating_sub(keep);
                (
                    surplus.min(most),
                    Some("about; the daemon removes the least useful of these until enough is gone"),
                )
            }
        };
        PrunePlan {
            records: plan.records,
            bytes,
            estimate: why.map(str::to_owned),
        }
    }
}

/// What would be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrunePlan {
    /// What would go, largest first; with limits on space, what may go.
    pub records: Vec<CacheRecord>,
    /// Bytes that would be removed.
    pub bytes: u64,
    /// Why the number of bytes is not exact; `None` when it is.
    pub estimate: Option<String>,
}

impl PrunePlan {
    /// Whether exactly these records would be removed.
    pub fn exact(&self) -> bool {
        self.estimate.is_none()
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Pruned {
    /// How many records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Pruned {
    /// So many records of so many bytes.
    pub fn new(records: u64, bytes: u64) -> Self {
        Self { records, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, parents: &[&str], size: u64) -> CacheRecord {
        CacheRecord {
            size,
            record_type: "regular".to_owned(),
            parents: parents.iter().map(|p| (*p).to_owned()).collect(),
            ..CacheRecord::new(id)
        }
    }

    fn ids(plan: &PrunePlan) -> Vec<&str> {
        plan.records.iter().map(|r| &*r.id).collect()
    }

    /// `base` carries `a` and `b`; on `a` stands `a2`. `own` is the daemon's.
    fn cache() -> DiskUsage {
        let mut own = record("own", &[], 1000);
        own.record_type = "internal".to_owned();
        DiskUsage::new(vec![
            record("base", &[], 100),
            record("a", &["base"], 30),
            record("a2", &["a"], 20),
            record("b", &["base"], 10),
            own,
        ])
    }

    #[test]
    fn what_something_stands_on_stays() {
        let all = cache();
        let plan = PruneOptions::new().plan(&all, all.clone());
        assert_eq!(
            (ids(&plan), plan.bytes, plan.exact()),
            (vec!["base", "a", "a2", "b"], 160, true)
        );
        let plan = PruneOptions::new().all(true).plan(&all, all.clone());
        assert_eq!((plan.records.len(), plan.bytes), (5, 1160));
        let only = |wanted: &[&str]| {
            let mut selected = all.clone();
            selected.records.retain(|r| wanted.contains(&&*r.id));
            PruneOptions::new().plan(&all, selected)
        };
        assert_eq!(ids(&only(&["base", "a"])), Vec::<&str>::new());
        assert_eq!(ids(&only(&["a", "a2"])), ["a", "a2"]);
        assert_eq!(ids(&only(&["base", "a2", "b"])), ["a2", "b"]);
    }

    #[test]
    fn what_is_used_or_fresh_stays_and_keeps_what_it_stands_on() {
        let mut all = cache();
        all.records
            .iter_mut()
            .filter(|r| r.id == "b")
            .for_each(|r| r.in_use = true);
        assert_eq!(ids(&PruneOptions::new().plan(&all, all.clone())), ["a", "a2"]);
        let mut all = cache();
        let fresh = all.records.iter_mut().filter(|r| r.id == "a2");
        fresh.for_each(|r| r.last_used_at = Some(SystemTime::now()));
        let options = PruneOptions::new().keep_duration(Duration::from_secs(3600));
        assert_eq!(ids(&options.plan(&all, all.clone())), ["b"]);
    }

    #[test]
    fn limits_make_an_estimate() {
        let all = cache();
        let plan = PruneOptions::new().reserved_space(1100).plan(&all, all.clone());
        assert_eq!((plan.bytes, plan.exact()), (60, false));
        let plan = PruneOptions::new().max_used_space(5000).plan(&all, all.clone());
        assert_eq!(plan.bytes, 0);
        let plan = PruneOptions::new().min_free_space(1).plan(&all, all.clone());
        assert_eq!(plan.bytes, 160);
        assert!(plan.estimate.is_some_and(|why| why.starts_with("at most")));
    }

    #[test]
    fn circles_and_strangers_end() {
        let all = DiskUsage::new(vec![record("x", &["y", "gone"], 1), record("y", &["x", "x"], 1)]);
        assert_eq!(PruneOptions::new().plan(&all, all.clone()).records.len(), 2);
        let mut selected = all.clone();
        selected.records.retain(|r| r.id == "x");
        assert!(PruneOptions::new().plan(&all, selected).records.is_empty());
    }
}
