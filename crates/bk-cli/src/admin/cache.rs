//! `bk du` and `bk prune`.

use bk_client::{
    Administration, BuildError, CacheQuery, CacheRecord, DiskUsage, InputError, PruneOptions, format_time,
    parse_bytes, parse_duration,
};
use serde::Serialize;

use super::{Kind, confirmed, table, units};
use crate::{
    args::{CacheFilterArgs, DuArgs, PruneArgs},
    exit, report,
};

const HEADING: [&str; 4] = ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"];

/// Lists the cache.
pub(super) async fn du(admin: &dyn Administration, args: &DuArgs, verbose: bool) -> Result<u8, BuildError> {
    let usage = admin.disk_usage(&query(&args.select)?).await?;
    if args.json.json {
        let mut text = String::new();
        for record in &usage.records {
            text.push_str(&Kind::line("record", record)?);
        }
        text.push_str(&Kind::line("total", Sums::of(&usage))?);
        return Ok(report::to_stdout(&text));
    }
    let mut text = match verbose {
        true => usage.records.iter().map(everything).collect(),
        false => table::table(&HEADING, usage.records.iter().map(row).collect()),
    };
    let sums = Sums::of(&usage);
    let mut lines = Vec::new();
    if sums.shared > 0 {
        lines.push(("Shared", units::size(sums.shared)));
        lines.push(("Private", units::size(sums.private)));
    }
    lines.push(("Reclaimable", units::size(sums.reclaimable)));
    lines.push(("Total", units::size(sums.total)));
    text.push_str(&table::facts(&lines));
    Ok(report::to_stdout(&text))
}

/// Bytes.
#[derive(Serialize)]
struct Sums {
    shared: u64,
    private: u64,
    reclaimable: u64,
    total: u64,
}

impl Sums {
    fn of(usage: &DiskUsage) -> Self {
        Self {
            shared: usage.shared(),
            private: usage.private(),
            reclaimable: usage.reclaimable(),
            total: usage.total(),
        }
    }
}

fn row(record: &CacheRecord) -> Vec<String> {
    let mark = |yes: bool| if yes { "*" } else { "" };
    vec![
        format!("{}{}", record.id, mark(record.mutable)),
        (!record.in_use).to_string(),
        format!("{}{}", units::size(record.size), mark(record.shared)),
        units::ago(record.last_used_at),
    ]
}

/// Everything about a record, and an empty line.
fn everything(record: &CacheRecord) -> String {
    let time = |at| format_time_or_nothing(at);
    let facts = [
        ("ID", record.id.clone()),
        ("Type", record.record_type.clone()),
        ("Description", record.description.clone()),
        ("Size", units::size(record.size)),
        ("Parents", record.parents.join(", ")),
        ("Created at", time(record.created_at)),
        ("Last used", time(record.last_used_at)),
        ("Usage count", record.usage_count.to_string()),
        ("Reclaimable", (!record.in_use).to_string()),
        ("Mutable", record.mutable.to_string()),
        ("Shared", record.shared.to_string()),
    ];
    format!("{}\n", table::facts(&facts))
}

/// A time for people and programs.
pub(super) fn format_time_or_nothing(at: Option<std::time::SystemTime>) -> String {
    at.and_then(format_time).unwrap_or_default()
}

fn query(args: &CacheFilterArgs) -> Result<CacheQuery, InputError> {
    let mut all = args.filters.iter();
    all.try_fold(CacheQuery::new(), |query, filter| query.filter(filter))
}

fn options(args: &PruneArgs) -> Result<PruneOptions, InputError> {
    let mut options = PruneOptions::new().query(query(&args.select)?).all(args.all);
    if let Some(time) = &args.keep_duration {
        if options.query.unused_for.is_some() {
            let why = "it and --filter until= say the same";
            return Err(InputError::new("--keep-duration", why, "one of them"));
        }
        options = options.keep_duration(parse_duration("--keep-duration", time)?);
    }
    let bytes = |flag, text: &Option<String>| text.as_ref().map(|t| parse_bytes(flag, t)).transpose();
    options.reserved_space = bytes("--reserved-space", &args.reserved_space)?;
    options.max_used_space = bytes("--max-used-space", &args.max_used_space)?;
    options.min_free_space = bytes("--min-free-space", &args.min_free_space)?;
    Ok(options)
}

/// Whether `bk prune` goes on. What is wrong with its arguments is said before anybody is asked.
pub(super) fn ask(args: &PruneArgs) -> Result<bool, BuildError> {
    options(args)?;
    if args.dry_run {
        return Ok(true);
    }
    confirmed(
        &args.force,
        match args.all {
            true => {
                "WARNING! This removes all of the build cache that no build uses, also what the daemon itself keeps."
            }
            false => "WARNING! This removes the build cache that no build uses.",
        },
    )
}

/// Removes from the cache, or says what would be removed.
pub(super) async fn prune(admin: &dyn Administration, args: &PruneArgs) -> Result<u8, BuildError> {
    let options = options(args)?;
    if args.dry_run {
        return plan(admin, &options, args.json.json).await;
    }
    // Told as they go: a removal may be cut short, and what has gone has gone.
    let mut failed = None;
    let mut first = true;
    let json = args.json.json;
    let mut each = |record: CacheRecord| {
        let text = match json {
            true => Kind::line("record", &record),
            false => Ok(removed(&record, std::mem::take(&mut first))),
        };
        match text {
            Ok(text) => {
                let code = report::to_stdout(&text);
                failed = failed.or((code != exit::SUCCESS).then_some(code));
            }
            Err(_) => failed = failed.or(Some(exit::INTERNAL)),
        }
    };
    let sum = admin.prune(&options, &mut each).await?;
    let text = match json {
        true => Kind::line("total", sum)?,
        false => format!("Total:  {}\n", units::size(sum.bytes)),
    };
    let code = report::to_stdout(&text);
    Ok(failed.unwrap_or(code))
}

/// A line of what is removed, under a heading before the first. Ids of BuildKit have 25 characters.
fn removed(record: &CacheRecord, first: bool) -> String {
    let line = |cells: [&str; 4]| {
        let [id, reclaimable, size, used] = cells.map(bk_progress::neutralise_line);
        let text = format!("{id:26}   {reclaimable:11}   {size:10}   {used}");
        format!("{}\n", text.trim_end())
    };
    let cells = row(record);
    let cell = |i: usize| cells.get(i).map_or("", String::as_str);
    let row = line([cell(0), cell(1), cell(2), cell(3)]);
    match first {
        true => line(HEADING) + &row,
        false => row,
    }
}

/// What is told at the end of a plan.
#[derive(Serialize)]
struct Planned<'a> {
    records: usize,
    bytes: u64,
    exact: bool,
    estimate: Option<&'a str>,
}

async fn plan(admin: &dyn Administration, options: &PruneOptions, json: bool) -> Result<u8, BuildError> {
    let plan = admin.prune_plan(options).await?;
    let mut text = String::new();
    if json {
        for record in &plan.records {
            text.push_str(&Kind::line("record", record)?);
        }
        let planned = Planned {
            records: plan.records.len(),
            bytes: plan.bytes,
            exact: plan.exact(),
            estimate: plan.estimate.as_deref(),
        };
        text.push_str(&Kind::line("plan", planned)?);
        return Ok(report::to_stdout(&text));
    }
    if !plan.records.is_empty() {
        text.push_str(&table::table(&HEADING, plan.records.iter().map(row).collect()));
    }
    let size = units::size(plan.bytes);
    let sum = match &plan.estimate {
        None => size,
        Some(why) => format!("{size} ({why})"),
    };
    text.push_str(&table::facts(&[("Would be removed", sum)]));
    Ok(report::to_stdout(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_told_in_columns() {
        let mut record = CacheRecord::new("sq3e1g0x04abcdefghijklmno");
        record.size = 12_345;
        record.mutable = true;
        let text = removed(&record, true) + &removed(&CacheRecord::new("x\u{1b}[1m"), false);
        assert_eq!(
            text,
            "ID                           RECLAIMABLE   SIZE         LAST ACCESSED\n\
             sq3e1g0x04abcdefghijklmno*   true          12.35kB\n\
             x                            true          0B\n"
        );
    }
}
