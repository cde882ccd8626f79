//! What is done about a daemon that falls silent or is lost.

use std::time::Duration;

use clap::Args;

/// What is done about a daemon that falls silent or is lost.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Faults")]
pub(crate) struct PatienceArgs {
    /// Give up when nothing at all comes from the daemon for that long, for instance 90s or 5m; 0 waits for ever. A step
    /// that is silent does not count
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub(crate) stall_timeout: Duration,
    /// How many times the build begins again when the daemon was lost and nothing was exported yet
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) retries: u32,
}

/// A number with `ms`, `s`, `m` or `h` behind it; without one, seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a number is needed with ms, s, m or h behind it".to_owned()),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|n| Duration::try_from_secs_f64(n * seconds).ok())
        .filter(|d| *d <= LONGEST)
        .ok_or_else(|| "a number is needed with ms, s, m or h behind it, at most 24h".to_owned())
}

/// Nobody waits longer for a sign of life; 0 is for those who do.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("0", 0),
            ("90", 90_000),
            ("90s", 90_000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("5m", 300_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "1 s", "1e9h", "1.2.3s", "25h", "5µs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
