//! Matrices: one block, a target for each combination of values.

use bk_build::InputError;

use crate::{decode::wrong, limits, node::Node};

/// The values of one combination, by their names.
pub(crate) type Cell = Vec<(String, Node)>;

/// Every combination; the first name changes fastest. Without a matrix there is one, which is empty.
///
/// # Errors
/// It is no object of lists, or there are too many.
pub(crate) fn cells(place: &str, matrix: Option<Node>) -> Result<Vec<Cell>, InputError> {
    let mut cells = vec![Cell::new()];
    let axes = match matrix {
        None => return Ok(cells),
        Some(Node::Map(axes)) => axes,
        Some(other) => return Err(wrong(place, &other, "an object of lists")),
    };
    for (name, values) in axes {
        let Node::List(values) = values else {
            return Err(wrong(&format!("{place}.{name}"), &values, "a list"));
        };
        if cells.len().saturating_mul(values.len()) > limits::TARGETS {
            let why = format!("it makes more than {} targets", limits::TARGETS);
            return Err(InputError::new(place, why, ""));
        }
        let mut next = Vec::with_capacity(cells.len() * values.len());
        for value in &values {
            for cell in &cells {
                let mut cell = cell.clone();
                cell.push((name.clone(), value.clone()));
                next.push(cell);
            }
        }
        cells = next;
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_there_once() {
        let matrix = |text: &str| serde_json::from_str::<Node>(text).expect("JSON");
        let said = |text: &str| -> Vec<String> {
            cells("m", Some(matrix(text)))
                .expect("a matrix")
                .into_iter()
                .map(|cell| {
                    cell.into_iter()
                        .map(|(k, v)| format!("{k}{}", v.to_json()))
                        .collect()
                })
                .collect()
        };
        assert_eq!(said(r#"{"a":[1,2],"b":[3,4]}"#), ["a1b3", "a2b3", "a1b4", "a2b4"]);
        assert!(said(r#"{"a":[],"b":[3]}"#).is_empty());
        assert_eq!(cells("m", None).expect("none").len(), 1);
        for (text, why) in [
            ("[1]", "m: it is a list, not an object of lists"),
            (r#"{"a":1}"#, "m.a: it is a number, not a list"),
        ] {
            assert_eq!(cells("m", Some(matrix(text))).expect_err(why).to_string(), why);
        }
        let axis: Vec<_> = (0..101).map(|i| i.to_string()).collect();
        let axis = format!("[{}]", axis.join(","));
        let e = cells("m", Some(matrix(&format!(r#"{{"a":{axis},"b":{axis}}}"#)))).expect_err("too many");
        assert!(e.to_string().contains("more than 10000 targets"), "{e}");
    }
}
