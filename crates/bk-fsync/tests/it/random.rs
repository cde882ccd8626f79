//! Random trees through random filters: what arrives is what a slow and simple model says.

use std::collections::BTreeMap;

use bk_fsync::filter::Filter;
use bk_fsync::path::{RelPath, compare};
use bk_fsync::pattern::{ParentMatches, PatternList};
use bk_fsync::{FilterOptions, MemoryTree, SendOptions};
use bk_proto::Mode;

use crate::peer::transfer;

/// A small generator of numbers; the seed is part of every failure message.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"a-b",
    b"a.b",
    b"ab",
    b"src",
    b"\xff",
    b"x y",
    "é".as_bytes(),
];
const PARTS: &[&str] = &[
    "a", "b", "a-b", "*", "**", "a*", "?", "[ab]", "src", "*b", "é", "[^a]", "a|b", "x\\ y", "ab{0}",
];

#[derive(Clone, PartialEq, Debug)]
enum Node {
    Dir,
    File(Vec<u8>),
    Link(Vec<u8>),
}

fn tree(random: &mut Random) -> BTreeMap<Vec<u8>, Node> {
    let mut nodes = BTreeMap::new();
    let mut dirs: Vec<Vec<u8>> = vec![Vec::new()];
    for _ in 0..random.below(40) {
        let dir = dirs[random.below(dirs.len())].clone();
        let path = bk_fsync::path::join(RelPath::new(&dir).unwrap(), random.pick(NAMES));
        if nodes.contains_key(&path) {
            continue;
        }
        let node = match random.below(4) {
            0 | 1 => Node::Dir,
            2 => {
                let size = random.pick(&[0, 1, 100, 131_072, 131_073, 300_000]);
                Node::File(vec![u8::try_from(random.below(256)).unwrap(); size])
            }
            _ => Node::Link(random.pick(NAMES).to_vec()),
        };
        if node == Node::Dir {
            dirs.push(path.clone());
        }
        nodes.insert(path, node);
    }
    nodes
}

fn patterns(random: &mut Random) -> Vec<Vec<u8>> {
    let pattern = |random: &mut Random| {
        let parts: Vec<_> = (0..1 + random.below(3)).map(|_| random.pick(PARTS)).collect();
        let bang = if random.below(3) == 0 { "!" } else { "" };
        format!("{bang}{}", parts.join("/")).into_bytes()
    };
    (0..random.below(4)).map(|_| pattern(random)).collect()
}

fn in_memory(nodes: &BTreeMap<Vec<u8>, Node>) -> MemoryTree {
    let mut tree = MemoryTree::new();
    for (path, node) in nodes {
        match node {
            Node::Dir => tree.add_dir(path, 0o750).unwrap(),
            Node::File(content) => tree.add_file(path, 0o640, content.clone()).unwrap(),
            Node::Link(target) => tree.add_symlink(path, target.clone()).unwrap(),
        };
    }
    tree
}

/// Which paths are sent, without any pruning but upstream's: every entry is asked about from the top down.
fn model(nodes: &BTreeMap<Vec<u8>, Node>, include: &[Vec<u8>], exclude: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let include = (!include.is_empty()).then(|| PatternList::new(include).unwrap());
    let exclude = (!exclude.is_empty()).then(|| PatternList::new(exclude).unwrap());
    let wild = |text: &[u8]| text.iter().any(|b| b"*[]?^\\".contains(b));
    let stem = |text: &[u8]| {
        let text = text.strip_suffix(b"/**").unwrap_or(text);
        text.strip_suffix(b"/*").unwrap_or(text).to_vec()
    };
    // Whether upstream opens a hidden directory, going by the patterns that could show something in it.
    let opens = |list: &PatternList, dir: &[u8], exceptions: bool| {
        let stems: Vec<_> = list
            .patterns()
            .iter()
            .filter(|p| p.is_exception() == exceptions)
            .map(|p| stem(p.text()))
            .collect();
        let below = [dir, b"/"].concat();
        stems.iter().any(|s| wild(s)) || stems.iter().any(|s| [&s[..], b"/"].concat().starts_with(&below))
    };
    let mut sent = std::collections::BTreeSet::new();
    let mut states: BTreeMap<Vec<u8>, Option<(ParentMatches, ParentMatches)>> = BTreeMap::new();
    states.insert(Vec::new(), Some(Default::default()));
    for (path, node) in nodes {
        let dir = RelPath::new(path).unwrap().split().unwrap().0.as_bytes().to_vec();
        let Some(Some((above_in, above_out))) = states.get(&dir).cloned() else {
            states.insert(path.clone(), None);
            continue;
        };
        let (mut visible, mut pruned) = (true, false);
        let mut own = (ParentMatches::default(), ParentMatches::default());
        if let Some(list) = &include {
            let (verdict, state) = list.matches_below(path, &above_in).unwrap();
            own.0 = state;
            if !verdict.matched {
                visible = false;
                pruned |= !opens(list, path, false);
            }
        }
        if let Some(list) = &exclude {
            let (verdict, state) = list.matches_below(path, &above_out).unwrap();
            own.1 = state;
            if verdict.matched {
                visible = false;
                pruned |= !opens(list, path, true);
            }
        }
        states.insert(path.clone(), (*node == Node::Dir && !pruned).then_some(own));
        if visible {
            for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
                sent.insert(path[..at].to_vec());
            }
            sent.insert(path.clone());
        }
    }
    let mut sent: Vec<_> = sent.into_iter().collect();
    sent.sort_by(|a, b| compare(a, b));
    sent
}

#[tokio::test]
async fn what_arrives_is_what_the_model_says() {
    for seed in 1..=800u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let nodes = tree(&mut random);
        let (include, exclude) = (patterns(&mut random), patterns(&mut random));
        let options = FilterOptions::new(include.clone(), exclude.clone(), Vec::new());
        let context = || {
            let text = |list: &[Vec<u8>]| {
                list.iter()
                    .map(|p| String::from_utf8_lossy(p).into_owned())
                    .collect::<Vec<_>>()
            };
            format!(
                "seed {seed}, include {:?}, exclude {:?}",
                text(&include),
                text(&exclude)
            )
        };
        let memory = in_memory(&nodes);
        let filter = Filter::new(&memory, &options).unwrap();
        let (outcome, got) = transfer(memory, SendOptions::new().filter(options)).await;
        outcome.unwrap();
        let sent: Vec<_> = got.stats.iter().map(|s| s.path.clone()).collect();
        assert_eq!(sent, model(&nodes, &include, &exclude), "{}", context());
        for stat in &got.stats {
            let node = &nodes[&stat.path];
            match node {
                Node::Dir => assert_eq!((stat.mode, stat.size), (Mode::DIR | 0o750, 0)),
                Node::File(content) => assert!(got.files[&stat.path] == *content && stat.mode == 0o640),
                Node::Link(target) => {
                    assert_eq!((stat.mode, &stat.linkname), (Mode::SYMLINK | 0o777, target))
                }
            }
        }
        // The explanation of a single path agrees with the walk.
        for (path, node) in &nodes {
            let path = RelPath::new(path).unwrap();
            let decision = filter.explain(path, *node == Node::Dir).unwrap();
            let was_sent = sent.iter().any(|s| s == path.as_bytes());
            assert!(!decision.visible || was_sent, "{path:?}: {}", context());
            assert!(
                decision.visible || !was_sent || *node == Node::Dir,
                "{path:?}: {}",
                context()
            );
        }
    }
}
