//! Turns what is known of a build into lines, at most as many as there is room for.

use std::time::{Duration, Instant, SystemTime};

use bk_build::{StatusUpdate, TransferReport};

use super::{
    model::{End, Model},
    row::{Row, State},
    screen::{Line, Size},
};
use crate::{
    limits::STATUS_WINDOW_LINES,
    text::neutralise_line,
    theme::{Ink, Theme},
    units,
    width::{fit, width},
};

/// What a frame is drawn with, besides the build.
pub(super) struct Look<'a> {
    pub(super) size: Size,
    pub(super) theme: &'a Theme,
    /// Lines of output shown of a running step.
    pub(super) log_lines: usize,
    pub(super) now: Option<Instant>,
    /// How long the build has been going on.
    pub(super) elapsed: Duration,
}

/// Room for a name below which no time is drawn beside it.
const MIN_NAME: usize = 16;
/// Widths of the whole below which no bar, and no builder, is drawn.
const MIN_FOR_BAR: usize = 70;
/// Cells inside a bar.
const BAR: usize = 20;

/// A row with what it gets below it.
struct Shown<'a> {
    row: &'a Row,
    statuses: Vec<&'a StatusUpdate>,
    transfer: Option<TransferReport>,
    logs: usize,
}

impl<'a> Shown<'a> {
    fn bare(row: &'a Row) -> Self {
        Self {
            row,
            statuses: Vec::new(),
            transfer: None,
            logs: 0,
        }
    }
}

impl Look<'_> {
    /// The build as it is, on no more lines than the terminal has but one.
    pub(super) fn frame(&self, model: &Model) -> Vec<Line> {
        // One line is left to the cursor, one is the header's.
        let room = usize::from(self.size.rows).saturating_sub(2);
        let mut lines = vec![self.header(model, None)];
        if room == 0 {
            return lines;
        }
        let begun = model.begun.len();
        let hides = begun > room;
        let mut left = room - usize::from(hides);
        let mut shown: Vec<Shown<'_>> = Vec::with_capacity(room.min(begun));
        let mut seen = vec![];

        // What runs comes first, the newest before all; then what goes on inside; then what ended last.
        for (_, &index) in model.running.iter().rev() {
            if left == 0 {
                break;
            }
            if let Some(row) = visible(model, index) {
                shown.push(Shown::bare(row));
                seen.push(index);
                left -= 1;
            }
        }
        for s in &mut shown {
            s.transfer = s.row.transfer.filter(|_| left > 0);
            left -= usize::from(s.transfer.is_some());
            let open = s.row.statuses.iter().filter(|s| s.completed.is_none());
            s.statuses = open.take(left.min(STATUS_WINDOW_LINES)).collect();
            left -= s.statuses.len();
            s.logs = s.row.tail.len().min(self.log_lines).min(left);
            left -= s.logs;
        }
        for &index in model.ended.iter().rev() {
            if left == 0 {
                break;
            }
            // A row that ran again stands there once for each end, and may be running.
            if let Some(row) = visible(model, index)
                && !seen.contains(&index)
            {
                shown.push(Shown::bare(row));
                seen.push(index);
                left -= 1;
            }
        }
        // What is still left shows the statuses that ended.
        for s in &mut shown {
            let all = &s.row.statuses;
            if left > 0 && all.len() <= STATUS_WINDOW_LINES && all.len() - s.statuses.len() <= left {
                left -= all.len() - s.statuses.len();
                s.statuses = all.iter().collect();
            }
        }
        shown.sort_by_key(|s| s.row.order);
        if hides {
            lines.push(self.summed_up(model, &shown));
        }
        let now = model.daemon_time(self.now);
        for s in &shown {
            self.row(s, now, &mut lines);
        }
        lines
    }

    /// The build at its end: everything that began, once.
    pub(super) fn last(&self, model: &Model) -> Vec<Line> {
        let end = match model.end {
            Some(End::Finished) => " FINISHED",
            Some(End::Failed) => " FAILED",
            None => " CANCELED",
        };
        let mut lines = vec![self.header(model, Some(end))];
        let now = model.daemon_time(self.now);
        for row in model.begun.iter().filter_map(|i| visible(model, *i)) {
            let mut shown = Shown::bare(row);
            shown.statuses = row.statuses.iter().collect();
            self.row(&shown, now, &mut lines);
            if row.more_statuses > 0 {
                let text = format!(" => => and {} more", row.more_statuses);
                lines.push(self.line(&text, "", self.ink(row.state())));
            }
        }
        lines
    }

    fn header(&self, model: &Model, end: Option<&str>) -> Line {
        let mut text = format!(
            "[+] Building {} ({}/{}){}",
            seconds(self.elapsed),
            model.counts.ended(),
            model.rows.len(),
            end.unwrap_or_default()
        );
        match model.warned {
            0 => {}
            1 => text.push_str(" 1 warning"),
            n => text.push_str(&format!(" {n} warnings")),
        }
        let room = self.room().saturating_sub(width(&text) + 2);
        let builder = Some(&*model.builder).filter(|b| self.room() >= MIN_FOR_BAR && width(b) <= room);
        self.line(&text, builder.unwrap_or_default(), Ink::Normal)
    }

    fn summed_up(&self, model: &Model, shown: &[Shown<'_>]) -> Line {
        let hidden = model.begun.len().saturating_sub(shown.len());
        let running = |s: &&Shown<'_>| s.row.state() == State::Running;
        let running = model
            .running
            .len()
            .saturating_sub(shown.iter().filter(running).count());
        let text = match running {
            0 => format!(" => … {hidden} more that ended"),
            n => format!(" => … {hidden} more, {n} of them running"),
        };
        self.line(&text, "", Ink::Log)
    }

    fn row(&self, shown: &Shown<'_>, now: Option<SystemTime>, lines: &mut Vec<Line>) {
        let row = shown.row;
        let state = row.state();
        let mark = match state {
            State::Cached => "CACHED ",
            State::Failed => "ERROR ",
            State::Cancelled => "CANCELED ",
            State::Waiting | State::Running | State::Done => "",
        };
        let took = seconds(row.took(now));
        let ink = self.ink(state);
        lines.push(self.line(&format!(" => {mark}{}", short_digests(&row.name)), &took, ink));
        if let Some(report) = shown.transfer {
            lines.push(self.transfer(&report, row.took(now)));
        }
        for status in &shown.statuses {
            let status_ink = match status.completed {
                Some(_) => Ink::Done,
                None => ink,
            };
            lines.push(self.status(status, now, status_ink));
        }
        if shown.logs > 0 {
            for text in row.tail.last(shown.logs) {
                lines.push(self.line(&format!(" => => # {text}"), "", Ink::Log));
            }
        }
    }

    fn status(&self, status: &StatusUpdate, now: Option<SystemTime>, ink: Ink) -> Line {
        let mut text = format!(" => => {}", short_digests(&neutralise_line(&status.id)));
        if status.total > 0 && status.completed.is_none() && self.room() >= MIN_FOR_BAR {
            text.push_str(&bar(status.current, status.total));
        }
        if status.total != 0 {
            text.push_str(&format!(
                " {} / {}",
                units::bytes(status.current),
                units::bytes(status.total)
            ));
        } else if status.current != 0 {
            text.push_str(&format!(" {}", units::bytes(status.current)));
        }
        let end = status.completed.or(now).or(status.timestamp);
        let took = match (status.started, end) {
            (Some(start), Some(end)) => seconds(units::between(start, end)),
            _ => String::new(),
        };
        self.line(&text, &took, ink)
    }

    fn transfer(&self, report: &TransferReport, took: Duration) -> Line {
        let bytes = |count: u64| units::bytes(i64::try_from(count).unwrap_or(i64::MAX));
        let mut text = format!(
            " => => listed {} entries, sent {} of {} files, {}",
            report.entries,
            report.sent_files,
            report.requested_files,
            bytes(report.sent_bytes)
        );
        let rate = report.sent_bytes as f64 / took.as_secs_f64().max(0.1);
        if report.sent_bytes > 0 {
            // A float that is too large becomes the largest number.
            text.push_str(&format!(", {}/s", bytes(rate as u64)));
        }
        self.line(&text, "", Ink::Normal)
    }

    /// A line whose right part stands at the right edge, if there is room for it.
    fn line(&self, left: &str, right: &str, ink: Ink) -> Line {
        let room = self.room();
        let right_width = width(right);
        let beside = room.saturating_sub(right_width + 1);
        if right.is_empty() || beside < MIN_NAME {
            let (text, width) = fit(left, room);
            return Line {
                text: self.theme.paint(ink, text),
                width,
            };
        }
        let (mut text, taken) = fit(left, beside);
        text.extend(std::iter::repeat_n(' ', beside - taken + 1));
        text.push_str(right);
        Line {
            text: self.theme.paint(ink, text),
            width: room,
        }
    }

    /// Cells of a line that are used: the last column behaves differently on each terminal.
    fn room(&self) -> usize {
        usize::from(self.size.columns).saturating_sub(1).max(1)
    }

    fn ink(&self, state: State) -> Ink {
        match state {
            State::Waiting | State::Running => Ink::Normal,
            State::Cached | State::Done => Ink::Done,
            State::Failed => Ink::Failed,
            State::Cancelled => Ink::Cancelled,
        }
    }
}

fn visible(model: &Model, index: usize) -> Option<&Row> {
    model.rows.get(index).filter(|row| row.is_shown())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

fn bar(current: i64, total: i64) -> String {
    let part = (current as f64 / total as f64).clamp(0.0, 1.0);
    // Between 0 and BAR.
    let full = (part * BAR as f64) as usize;
    let head = if full < BAR { ">" } else { "" };
    format!(" [{}{head:<rest$}]", "=".repeat(full), rest = BAR - full)
}

/// Digests cut to what tells them apart.
fn short_digests(text: &str) -> String {
    const ALGORITHM: &str = "sha256:";
    const KEPT: usize = 12;
    const HEX: usize = 64;
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(ALGORITHM) {
        short.push_str(before);
        short.push_str(ALGORITHM);
        let hex = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        let keep = if hex == HEX { KEPT } else { hex };
        short.push_str(after.get(..keep).unwrap_or_default());
        rest = after.get(hex..).unwrap_or_default();
    }
    short.push_str(rest);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_cut() {
        let digest = format!("extracting sha256:{} now", "ab".repeat(32));
        assert_eq!(short_digests(&digest), "extracting sha256:abababababab now");
        assert_eq!(short_digests("sha256:ab sha256:"), "sha256:ab sha256:");
    }

    #[test]
    fn bars_fill() {
        assert_eq!(bar(0, 10), " [>                   ]");
        assert_eq!(bar(5, 10), " [==========>         ]");
        assert_eq!(bar(10, 10), " [====================]");
        assert_eq!(bar(99, 10), " [====================]");
        assert_eq!(bar(-1, 10), " [>                   ]");
    }
}
