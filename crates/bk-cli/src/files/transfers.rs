//! The transfers of a build as JSON, for people who ask why a context is slow and for scripts.
//!
//! The rule: names are stable, sizes are bytes, and nothing is left out without a number that says how much.

use bk_client::{BuildOutcome, SentShare, TransferDetails, TransferReport};
use serde_json::{Map, Value, json};

/// An object with the counts of all transfers and a list of them, with a line end at the end.
pub(super) fn report(outcome: &BuildOutcome) -> String {
    let mut object = counts(&outcome.transfer);
    let transfers: Vec<Value> = outcome.transfers.iter().map(transfer).collect();
    object.insert("transfers".to_owned(), transfers.into());
    format!("{:#}\n", Value::Object(object))
}

fn counts(report: &TransferReport) -> Map<String, Value> {
    let counts = [
        ("entries", report.entries),
        ("offeredBytes", report.offered_bytes),
        ("requestedFiles", report.requested_files),
        ("sentFiles", report.sent_files),
        ("sentBytes", report.sent_bytes),
        ("skipped", report.skipped),
        ("changed", report.changed),
    ];
    let entry = |(name, count): (&str, u64)| (name.to_owned(), Value::from(count));
    counts.into_iter().map(entry).collect()
}

fn transfer(details: &TransferDetails) -> Value {
    let mut object = counts(&details.report);
    let asked = json!({
        "include": details.asked.include,
        "exclude": details.asked.exclude,
        "follow": details.asked.follow,
        "omitted": details.asked.omitted,
    });
    for (name, value) in [
        ("source", Value::from(&*details.source)),
        ("asked", asked),
        ("largestFiles", shares(&details.largest_files)),
        ("largestDirectories", shares(&details.largest_directories)),
    ] {
        object.insert(name.to_owned(), value);
    }
    Value::Object(object)
}

fn shares(of: &[SentShare]) -> Value {
    of.iter()
        .map(|share| json!({"path": share.path, "bytes": share.bytes}))
        .collect()
}

#[cfg(test)]
mod tests {
    use bk_client::AskedFor;

    use super::*;

    #[test]
    fn a_transfer_is_told_in_full() {
        let mut outcome = BuildOutcome::default();
        let mut details = TransferDetails::new("context", 0);
        details.report.sent_files = 1;
        details.report.sent_bytes = 5;
        details.asked = AskedFor::new(&[], &["*.o"], &["d"]);
        details.largest_files = vec![SentShare::new("d/f", 5)];
        details.largest_directories = vec![SentShare::new("d", 5)];
        outcome.transfer = details.report;
        outcome.transfers.push(details);
        let text = report(&outcome);
        assert!(text.ends_with("}\n"), "{text}");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let counts = json!({
            "entries": 0, "offeredBytes": 0, "requestedFiles": 0, "sentFiles": 1, "sentBytes": 5, "skipped": 0,
            "changed": 0,
        });
        for (name, count) in counts.as_object().expect("an object") {
            assert_eq!(value[name], *count, "{name}");
            assert_eq!(value["transfers"][0][name], *count, "{name}");
        }
        let one = &value["transfers"][0];
        assert_eq!(one["source"], "context");
        let asked = json!({"include": [], "exclude": ["*.o"], "follow": ["d"], "omitted": 0});
        assert_eq!(one["asked"], asked);
        assert_eq!(one["largestFiles"], json!([{"path": "d/f", "bytes": 5}]));
        assert_eq!(one["largestDirectories"], json!([{"path": "d", "bytes": 5}]));
    }
}
