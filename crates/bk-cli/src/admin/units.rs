//! Sizes and times as `docker` writes them.

use std::time::{Duration, SystemTime};

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// A size in decimal units with four digits: `1.234kB`, `56.2MB`.
pub(super) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"B");
    while value >= 1000.0 {
        let Some(next) = units.next() else { break };
        value /= 1000.0;
        unit = next;
    }
    let decimals = match value {
        v if v < 10.0 => 3,
        v if v < 100.0 => 2,
        _ => 1,
    };
    let text = format!("{value:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{unit}", if text.is_empty() { "0" } else { text })
}

/// How long ago something was, in one unit; empty when it is not known.
pub(super) fn ago(at: Option<SystemTime>) -> String {
    match at.and_then(|at| SystemTime::now().duration_since(at).ok()) {
        Some(time) => format!("{} ago", about(time)),
        None if at.is_some() => "just now".to_owned(),
        None => String::new(),
    }
}

fn about(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// How long something took: `0.4s`, `12.3s`, `2m 05s`, `1h 02m`.
pub(super) fn took(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", time.as_secs_f64().min(59.9)),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A short time in milliseconds.
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (1, "1B"),
            (100, "100B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (12_340, "12.34kB"),
            (8_192, "8.192kB"),
            (53_687_091, "53.69MB"),
            (999_960, "1000kB"),
            (u64::MAX, "18.45EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_have_one_unit() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (119, "About a minute"),
            (3_599, "59 minutes"),
            (3_600, "About an hour"),
            (36_000, "10 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 20, "2 weeks"),
            (86_400 * 100, "3 months"),
            (86_400 * 1000, "2 years"),
        ] {
            assert_eq!(about(Duration::from_secs(seconds)), text);
        }
        assert_eq!(
            (ago(None), took(Duration::from_millis(59_990))),
            (String::new(), "59.9s".to_owned())
        );
        assert_eq!(took(Duration::from_secs(125)), "2m 05s");
        assert_eq!(took(Duration::from_secs(3_720)), "1h 02m");
        assert_eq!(millis(Duration::from_micros(1_260)), "1.3 ms");
    }
}
