//! `--list`: the targets and variables of the files, as a table or as JSON.

use bk_bake::Definition;
use bk_client::InputError;
use bk_progress::neutralise_line;

use crate::csv;

const FLAG: &str = "--list";

/// What was asked for, as text.
///
/// # Errors
/// A word that has no meaning.
pub(super) fn list(what: &str, definition: &Definition) -> Result<String, InputError> {
    let bad = |why: String| InputError::new(FLAG, why, "targets or variables, with ,format=table|json");
    let (mut kind, mut json) = (None, false);
    for field in csv::keyed(FLAG, what)? {
        match (&*field.key, field.value.as_deref()) {
            ("type", Some(value)) => kind = Some(value.to_owned()),
            (word, None) if kind.is_none() => kind = Some(word.to_owned()),
            ("format", Some("json")) => json = true,
            ("format", Some("table")) => json = false,
            _ => return Err(bad(format!("`{}` has no meaning here", field.text))),
        }
    }
    let pretty =
        |text: serde_json::Result<String>| text.map(|text| text + "\n").map_err(|e| bad(e.to_string()));
    match (kind.as_deref(), json) {
        (Some("targets"), true) => pretty(serde_json::to_string_pretty(&definition.listed())),
        (Some("variables"), true) => pretty(serde_json::to_string_pretty(definition.variables())),
        (Some("targets"), false) => {
            let rows = definition
                .listed()
                .into_iter()
                .map(|l| vec![l.name, l.description]);
            Ok(table(&["TARGET", "DESCRIPTION"], rows.collect()))
        }
        (Some("variables"), false) => {
            let rows = definition.variables().iter().map(|v| {
                let value = v.value.clone().unwrap_or_else(|| "<null>".to_owned());
                let kind = v.kind.clone().unwrap_or_default();
                vec![v.name.clone(), kind, value, v.description.clone()]
            });
            Ok(table(
                &["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"],
                rows.collect(),
            ))
        }
        (other, _) => Err(bad(format!("`{}` cannot be listed", other.unwrap_or_default()))),
    }
}

/// Columns as wide as their widest cell, two blanks between them, none at the end of a line.
fn table(head: &[&str], mut rows: Vec<Vec<String>>) -> String {
    rows.insert(0, head.iter().map(|h| (*h).to_owned()).collect());
    for cell in rows.iter_mut().flatten() {
        *cell = neutralise_line(cell);
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}  "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}
