//! Which of several daemons a build goes to: rendezvous hashing.
//!
//! The rule: the order depends on the key and the addresses alone, not on how they were listed, when, by which version of
//! this library or on which machine. A daemon that goes away moves only the keys that were its own.

use std::path::Path;

use bk_session::{host_name, shared_key};
use sha2::{Digest as _, Sha256};

/// What is hashed first, so that these numbers are no others.
const PREFIX: &[u8] = b"bk rendezvous 1\0";

/// The addresses in the order in which a build with that key tries them; an address that stands there twice counts once.
///
/// Each address has a weight: the SHA-256 of `bk rendezvous 1`, a zero byte, the length of the key as eight bytes (the
/// most significant first), the key and the address. The greatest weight comes first.
pub fn rendezvous(key: &str, addresses: &[String]) -> Vec<String> {
    let weight = |address: &String| -> [u8; 32] {
        Sha256::new()
            .chain_update(PREFIX)
            .chain_update((key.len() as u64).to_be_bytes())
            .chain_update(key)
            .chain_update(address)
            .finalize()
            .into()
    };
    let mut list: Vec<_> = addresses.iter().map(|a| (weight(a), a.clone())).collect();
    list.sort_unstable_by(|a, b| b.cmp(a));
    list.dedup();
    list.into_iter().map(|(_, address)| address).collect()
}

/// The key of a context directory on this machine: the one under which daemons keep what was sent of it. A directory that
/// cannot be resolved has that of the path as it is. Blocks.
pub fn affinity_of(dir: &Path) -> String {
    let resolved = dir.canonicalize();
    shared_key(resolved.as_deref().unwrap_or(dir), &host_name())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn daemons(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("tcp://build-{n}:1234")).collect()
    }

    fn keys() -> impl Iterator<Item = String> {
        (0..10_000).map(|n| format!("key {n}"))
    }

    #[test]
    fn the_order_is_the_same_for_ever() {
        let addresses = ["tcp://a:1", "tcp://b:1", "tcp://c:1"].map(str::to_owned);
        let known = [
            ("web", ["tcp://c:1", "tcp://a:1", "tcp://b:1"]),
            ("api", ["tcp://a:1", "tcp://c:1", "tcp://b:1"]),
        ];
        for (key, order) in known {
            assert_eq!(rendezvous(key, &addresses), order, "{key}");
            let mut turned = addresses.to_vec();
            turned.reverse();
            turned.extend(addresses.clone());
            assert_eq!(rendezvous(key, &turned), order, "{key}");
        }
        assert!(rendezvous("x", &[]).is_empty());
    }

    #[test]
    fn each_daemon_gets_its_share() {
        let mut share: BTreeMap<String, usize> = BTreeMap::new();
        let daemons = daemons(5);
        for key in keys() {
            *share.entry(rendezvous(&key, &daemons)[0].clone()).or_default() += 1;
        }
        assert_eq!(share.len(), 5);
        // 2000 each; six standard deviations are 240.
        assert!(share.values().all(|n| (1760..=2240).contains(n)), "{share:?}");
    }

    #[test]
    fn only_the_keys_of_a_daemon_that_goes_away_move() {
        let all = daemons(5);
        let (gone, rest) = all.split_first().expect("five");
        let mut moved: BTreeMap<String, usize> = BTreeMap::new();
        for key in keys() {
            let (before, after) = (rendezvous(&key, &all), rendezvous(&key, rest));
            if before[0] == *gone {
                // It goes where failover went before.
                assert_eq!(after[0], before[1]);
                *moved.entry(after[0].clone()).or_default() += 1;
            } else {
                assert_eq!(after[0], before[0]);
            }
        }
        assert_eq!(moved.len(), 4, "the others share what was its own: {moved:?}");
        assert!(moved.values().all(|n| (370..=630).contains(n)), "{moved:?}");
    }
}
