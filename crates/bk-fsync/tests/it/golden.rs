//! The recorded answers of the upstream implementation, all of them.

use std::path::Path;

use crate::vectors;

#[test]
fn every_golden_vector_agrees() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let outcomes = vectors::check_dir(&dir).unwrap();
    let counts: Vec<_> = outcomes
        .iter()
        .map(|o| {
            (
                o.file.file_name().unwrap().to_str().unwrap(),
                o.agreeing,
                o.disagreeing.len(),
            )
        })
        .collect();
    for outcome in &outcomes {
        assert!(
            outcome.disagreeing.is_empty(),
            "{}: {:?}",
            outcome.file.display(),
            &outcome.disagreeing[..1]
        );
    }
    assert_eq!(
        counts,
        [
            ("ignorefile.jsonl", 77, 0),
            ("match.jsonl", 4009, 0),
            ("walk.jsonl", 1500, 0)
        ]
    );
}

#[test]
fn disagreements_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let lines = concat!(
        "{\"patterns\":[\"a\"],\"path\":\"a\",\"match\":false}\n",
        "{\"patterns\":[\"a\"],\"path\":\"a/b\",\"match\":true}\n",
        "{\"text\":\"a\\n\",\"patterns\":[]}\n",
        "{\"tree\":[{\"path\":\"a\",\"kind\":\"file\"}]}\n",
        "{}\n",
    );
    std::fs::write(dir.path().join("x.jsonl"), lines).unwrap();
    let outcome = vectors::check_dir(dir.path()).unwrap().remove(0);
    let numbers: Vec<_> = outcome.disagreeing.iter().map(|(line, _)| *line).collect();
    assert_eq!((outcome.agreeing, numbers), (1, vec![1, 3, 4, 5]));
    assert!(vectors::check_dir(&dir.path().join("none")).is_err());
}
