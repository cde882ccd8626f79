//! Archives made by hand, honest and hostile.

use std::io::Write;
use std::process::{Command, Stdio};

use bk_fsync::entry::Kind;
use bk_fsync::path::RelPath;
use bk_fsync::tar::TarFault;
use bk_fsync::{SendOptions, Tree};

use super::{BLOCK, content, fault, paths, read};
use crate::peer::transfer;

/// A header of ustar with the given type.
fn header(name: &[u8], kind: u8, size: u64, link: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000001");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(block)
}

fn seal(mut block: Vec<u8>) -> Vec<u8> {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn member(name: &[u8], kind: u8, link: &[u8], body: &[u8]) -> Vec<u8> {
    let mut all = header(name, kind, body.len() as u64, link);
    all.extend_from_slice(body);
    all.resize(all.len().next_multiple_of(BLOCK), 0);
    all
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 2 * BLOCK]].concat()
}

fn file(name: &str, body: &str) -> Vec<u8> {
    member(name.as_bytes(), b'0', b"", body.as_bytes())
}

#[test]
fn the_last_of_several_entries_counts() {
    let tree = read(&archive(&[
        file("./a", "first"),
        file("d/x", "x"),
        member(b"d/", b'5', b"", b""),
        member(b"h", b'1', b"a", b""),
        file("a", "second"),
        file("was/dir", "gone"),
        file("was", "a file"),
        file("e", "was a file"),
        member(b"e", b'5', b"", b""),
        file("e/y", "y"),
        member(b"./", b'5', b"", b""),
        member(b"old/", 0, b"", b""),
    ]))
    .unwrap();
    assert_eq!(paths(&tree), ["a", "d", "d/x", "e", "e/y", "h", "old", "was"]);
    assert_eq!(content(&tree, b"a"), b"second");
    assert_eq!(content(&tree, b"h"), b"first");
    assert_eq!(content(&tree, b"was"), b"a file");
    let root = tree.open_dir(RelPath::ROOT).unwrap();
    assert_eq!(
        (root.stat(b"h").unwrap().nlink, root.stat(b"a").unwrap().nlink),
        (1, 1)
    );
    assert_eq!(
        (root.stat(b"d").unwrap().mode, root.is_implied(b"d")),
        (0o644, false)
    );
    assert_eq!(
        (root.stat(b"was").unwrap().kind, root.is_implied(b"old")),
        (Kind::File, false)
    );
}

#[test]
fn hostile_members_are_refused_by_name() {
    let refused = |members: &[Vec<u8>]| {
        let (member, fault) = fault(&archive(members));
        (member.unwrap_or_default(), fault.to_string())
    };
    let cases: &[(&[Vec<u8>], &str, &str)] = &[
        (&[file("../x", "")], "../x", "the path leaves the tree"),
        (&[file("a/../../x", "")], "a/../../x", "leaves"),
        (&[file("/etc/x", "")], "/etc/x", "is absolute"),
        (&[file("f", ""), file("f/x", "")], "f/x", "below \"f\""),
        (
            &[member(b"l", b'2', b"/etc", b""), file("l/x", "")],
            "l/x",
            "below \"l\"",
        ),
        (
            &[member(b"h", b'1', b"../../etc/passwd", b"")],
            "h",
            "leaves the tree",
        ),
        (&[member(b"h", b'1', b"/etc/passwd", b"")], "h", "is absolute"),
        (
            &[member(b"h", b'1', b"later", b""), file("later", "")],
            "h",
            "does not have before it",
        ),
        (
            &[file("d/x", ""), member(b"h", b'1', b"d", b"")],
            "h",
            "is a directory",
        ),
        (
            &[
                member(b"l", b'2', b"d", b""),
                file("d/f", ""),
                member(b"h", b'1', b"l/f", b""),
            ],
            "h",
            "does not have",
        ),
        (&[member(b"s", b'2', b"", b"")], "s", "link target"),
        (&[member(b"v", b'M', b"", b"")], "v", "type 'M'"),
        (&[file(".", "")], ".", "not clean"),
        (&[member(b"x", b'g', b"", b"9 path=x\n")], "", "global record"),
        (
            &[member(b"x", b'x', b"", b"99 path=x\n"), file("f", "")],
            "",
            "PAX record",
        ),
        (
            &[member(b"x", b'x', b"", b"13 path=../p\n"), file("f", "")],
            "../p",
            "leaves",
        ),
        (
            &[
                member(b"x", b'x', b"", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"),
                file("f", ""),
            ],
            "f",
            "size is missing",
        ),
        (
            &[member(b"x", b'x', b"", b"22 GNU.sparse.major=9\n"), file("f", "")],
            "f",
            "version",
        ),
        (
            &[
                member(
                    b"x",
                    b'x',
                    b"",
                    b"22 GNU.sparse.size=10\n26 GNU.sparse.map=4,2,3,2\n",
                ),
                file("f", "1234"),
            ],
            "",
            "out of order",
        ),
        (
            &[
                member(b"x", b'x', b"", b"21 GNU.sparse.size=5\n22 GNU.sparse.map=4,2\n"),
                file("f", "12"),
            ],
            "f",
            "beyond the file",
        ),
        (
            &[
                member(b"x", b'x', b"", b"22 GNU.sparse.size=50\n22 GNU.sparse.map=4,2\n"),
                file("f", "123"),
            ],
            "f",
            "not as long",
        ),
    ];
    for (members, name, text) in cases {
        let (member, fault) = refused(members);
        assert!(
            member == *name && fault.contains(text),
            "{name}: {member:?} {fault}"
        );
    }
    // Sizes that would take all memory are not believed.
    for kind in [b'x', b'g', b'L', b'K'] {
        let bomb = header(b"bomb", kind, 0o77_777_777_777, b"");
        assert!(matches!(fault(&bomb).1, TarFault::TooLong { .. }));
    }
    let mut huge = header(b"f", b'0', 0, b"");
    huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(fault(&seal(huge.clone())).1, TarFault::Header("size")));
    huge[124..136].fill(0xff);
    assert!(matches!(fault(&seal(huge)).1, TarFault::Header("size")));
}

#[test]
fn binary_numbers_and_prefixes_are_read() {
    let mut block = header(b"name", b'0', 0, b"");
    block[345..351].copy_from_slice(b"prefix");
    block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
    block[136..148].fill(0xff);
    let tree = read(&archive(&[seal(block)])).unwrap();
    let meta = tree
        .open_dir(RelPath::new(b"prefix").unwrap())
        .unwrap()
        .stat(b"name")
        .unwrap();
    assert_eq!((meta.uid, meta.mtime_ns), (u32::MAX - 1, -1_000_000_000));
}

#[test]
fn an_archive_that_was_cut_off_is_an_error_wherever_it_was() {
    let whole = archive(&[
        member(b"x", b'x', b"", b"14 mtime=1.25\n"),
        file("a", "hello"),
        file("b", &"x".repeat(700)),
    ]);
    assert!(read(&whole).is_ok());
    assert!(
        read(&whole[..whole.len() - BLOCK]).is_ok(),
        "half an end mark will do"
    );
    for len in 0..whole.len() - 2 * BLOCK + 1 {
        let (_, fault) = fault(&whole[..len]);
        assert!(
            matches!(fault, TarFault::Truncated | TarFault::NoEnd | TarFault::NotTar),
            "{len}: {fault:?}"
        );
    }
    let (name, found) = fault(&whole[..whole.len() - 3 * BLOCK]);
    assert_eq!(
        (name.as_deref(), found.to_string().as_str()),
        (Some("b"), "the archive ends in the middle of it")
    );
    let mut gzip = flate2_bytes(&whole);
    assert_eq!(paths(&read(&gzip).unwrap()), ["a", "b"]);
    let last = gzip.len() - 6;
    gzip[last] ^= 1;
    assert!(
        matches!(fault(&gzip).1, TarFault::Read(_)),
        "the checksum of the compression counts"
    );
    assert!(matches!(
        fault(&gzip[..gzip.len() - 9]).1,
        TarFault::Read(_) | TarFault::NoEnd
    ));
    assert!(matches!(
        fault(b"FROM scratch\n").1,
        TarFault::Truncated | TarFault::NotTar
    ));
    assert!(matches!(fault(&[b'F'; 2000]).1, TarFault::NotTar));
    let mut wrong = whole.clone();
    wrong[2 * BLOCK] ^= 1;
    assert!(read(&wrong).is_err());
    let bytes = [&whole[..], &vec![0; (16 << 20) + BLOCK]].concat();
    assert!(matches!(fault(&bytes).1, TarFault::Trailing(_)));
}

fn flate2_bytes(data: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(data).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap().stdout
}

#[tokio::test]
async fn equal_archives_are_announced_alike_and_a_changed_file_is_not() {
    let pack = |body: &str| {
        archive(&[
            file("f", body),
            member(b"l", b'2', body.as_bytes(), b""),
            file("g", "same"),
        ])
    };
    let mut times = Vec::new();
    for body in ["one", "one", "two"] {
        let (outcome, got) = transfer(read(&pack(body)).unwrap(), SendOptions::new()).await;
        outcome.unwrap();
        assert_eq!(got.files[&b"f"[..]], body.as_bytes());
        times.push(["f", "l", "g"].map(|path| got.stat(path).mod_time));
    }
    assert_eq!(times[0], times[1]);
    assert!(times[0][0] != times[2][0] && times[0][1] != times[2][1]);
    assert_eq!(times[0][2], times[2][2]);
}
