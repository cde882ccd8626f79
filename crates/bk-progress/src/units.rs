//! Sizes and durations as `docker buildx` writes them.

use std::time::{Duration, SystemTime};

const NAMES: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// A size in decimal units: whole bytes below 1000, else two decimals (`1.23kB`).
pub(crate) fn bytes(count: i64) -> String {
    if count.unsigned_abs() < 1000 {
        return format!("{count}B");
    }
    let mut value = count as f64;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < NAMES.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", NAMES.get(unit).unwrap_or(&"EB"))
}

/// The time that a log line carries: fewer decimals the later it is.
pub(crate) fn log_stamp(since_start: Duration) -> String {
    let seconds = since_start.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.3}")
    } else if seconds < 100.0 {
        format!("{seconds:.2}")
    } else {
        format!("{seconds:.1}")
    }
}

/// The time from `start` to `end`; nothing when a clock ran backwards.
pub(crate) fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (count, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (1234, "1.23kB"),
            (4_560_000, "4.56MB"),
            (2_097_152, "2.10MB"),
            (536_870_912, "536.87MB"),
            (-5, "-5B"),
            (-1500, "-1.50kB"),
            (i64::MAX, "9.22EB"),
            (i64::MIN, "-9.22EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn stamps() {
        for (millis, text) in [
            (123, "0.123"),
            (9_999, "9.999"),
            (12_345, "12.35"),
            (123_456, "123.5"),
        ] {
            assert_eq!(log_stamp(Duration::from_millis(millis)), text);
        }
    }
}
