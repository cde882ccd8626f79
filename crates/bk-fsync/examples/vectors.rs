//! Checks a directory of golden vectors and prints how many lines agree and disagree, a file a line, followed
//! by the first disagreements. Exits with 1 if there is any.
//!
//! Usage: `vectors [DIR]`; the default is the crate's own copy.

#[path = "../tests/support/vectors.rs"]
mod vectors;

use std::path::PathBuf;
use std::process::ExitCode;

/// Disagreements shown for each file.
const SHOWN: usize = 10;

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this program is for"
)]
fn main() -> ExitCode {
    let dir = std::env::args_os().nth(1).map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors")),
        PathBuf::from,
    );
    let outcomes = match vectors::check_dir(&dir) {
        Ok(outcomes) => outcomes,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::FAILURE;
        }
    };
    let mut all_agree = true;
    for outcome in outcomes {
        let name = outcome
            .file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        println!(
            "{name}: {} agree, {} disagree",
            outcome.agreeing,
            outcome.disagreeing.len()
        );
        all_agree &= outcome.disagreeing.is_empty();
        for (line, what) in outcome.disagreeing.iter().take(SHOWN) {
            println!("  line {line}: {what}");
        }
    }
    if all_agree {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
