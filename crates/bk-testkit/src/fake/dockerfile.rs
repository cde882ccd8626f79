//! A reader for the Dockerfiles of the conformance suite: no more of the language than they use.

use std::collections::BTreeMap;

/// A Dockerfile that cannot be read, as the real frontend says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) line: i32,
    pub(crate) message: String,
}

/// One instruction: its line (counted from 1), its name in upper case, and the rest of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) line: i32,
    pub(crate) name: String,
    pub(crate) rest: String,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) line: i32,
    /// What it starts from, with arguments filled in.
    pub(crate) base: String,
    pub(crate) alias: Option<String>,
    pub(crate) steps: Vec<Instruction>,
}

const KNOWN: [&str; 12] = [
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "LABEL",
    "RUN",
    "STOPSIGNAL",
    "USER",
    "WORKDIR",
];

/// Reads a Dockerfile into stages; `args` are the build arguments given from outside.
pub(crate) fn parse(text: &str, args: &BTreeMap<String, String>) -> Result<Vec<Stage>, Mistake> {
    let mut globals = BTreeMap::new();
    let mut stages: Vec<Stage> = Vec::new();
    for instruction in instructions(text)? {
        let line = instruction.line;
        let mistake = |message: String| Mistake { line, message };
        match (instruction.name.as_str(), stages.last_mut()) {
            ("FROM", _) => {
                let rest = expand(&instruction.rest, &globals);
                let words: Vec<&str> = rest.split_whitespace().filter(|w| !w.starts_with("--")).collect();
                let (base, alias) = match words[..] {
                    [base] => (base, None),
                    [base, as_, alias] if as_.eq_ignore_ascii_case("as") => {
                        (base, Some(alias.to_lowercase()))
                    }
                    _ => return Err(mistake("FROM requires either one or three arguments".to_owned())),
                };
                stages.push(Stage {
                    line,
                    base: base.to_owned(),
                    alias,
                    steps: Vec::new(),
                });
            }
            ("ARG", None) => argument(&instruction.rest, args, &mut globals, &BTreeMap::new()),
            (_, None) => return Err(mistake("no build stage in current context".to_owned())),
            (_, Some(stage)) => stage.steps.push(instruction),
        }
    }
    if stages.is_empty() {
        return Err(Mistake {
            line: 0,
            message: "file with no instructions".to_owned(),
        });
    }
    Ok(stages)
}

/// Declares an argument: from outside, else from the scope before the first stage, else its default.
pub(crate) fn argument(
    rest: &str,
    given: &BTreeMap<String, String>,
    scope: &mut BTreeMap<String, String>,
    globals: &BTreeMap<String, String>,
) {
    for word in rest.split_whitespace() {
        let (key, default) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
        let default = default
            .map(|v| expand(v, scope))
            .or_else(|| globals.get(key).cloned());
        if let Some(value) = given.get(key).cloned().or(default) {
            scope.insert(key.to_owned(), value);
        }
    }
}

/// Fills in `$NAME` and `${NAME}`; an unknown name becomes nothing.
pub(crate) fn expand(text: &str, scope: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        let (name, tail) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(found) => found,
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        out.push_str(scope.get(name).map_or("", String::as_str));
        rest = tail;
    }
    out + rest
}

fn instructions(text: &str) -> Result<Vec<Instruction>, Mistake> {
    let mut found: Vec<Instruction> = Vec::new();
    let mut continued: Option<Instruction> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (body, more) = trimmed
            .strip_suffix('\\')
            .map_or((trimmed, false), |b| (b.trim_end(), true));
        let instruction = match continued.take() {
            Some(mut before) => {
                before.rest.push(' ');
                before.rest.push_str(body);
                before
            }
            None => {
                let (name, rest) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
                let known = name.to_ascii_uppercase();
                if !KNOWN.contains(&known.as_str()) {
                    let message =
                        format!("dockerfile parse error on line {number}: unknown instruction: {name}");
                    return Err(Mistake {
                        line: number,
                        message,
                    });
                }
                Instruction {
                    line: number,
                    name: known,
                    rest: rest.trim().to_owned(),
                }
            }
        };
        if more {
            continued = Some(instruction)
        } else {
            found.push(instruction)
        }
    }
    found.extend(continued);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_choose_the_base() {
        let text = "ARG R\nARG NAME=box\n# note\nFROM ${R}/base/$NAME:1 AS One\nRUN echo a \\\n  && echo b\nFROM one\n";
        let given = BTreeMap::from([("R".to_owned(), "host:5".to_owned())]);
        let stages = parse(text, &given).expect("stages");
        assert_eq!(stages[0].base, "host:5/base/box:1");
        assert_eq!(stages[0].alias.as_deref(), Some("one"));
        assert_eq!(
            (stages[0].steps[0].line, &stages[0].steps[0].rest[..]),
            (5, "echo a && echo b")
        );
        assert_eq!((stages[1].line, &stages[1].base[..]), (7, "one"));
    }

    #[test]
    fn mistakes_name_their_line() {
        let e = parse("FROM scratch\n\nCOPPY a b\n", &BTreeMap::new()).expect_err("unknown");
        assert_eq!(
            (e.line, &e.message[..]),
            (3, "dockerfile parse error on line 3: unknown instruction: COPPY")
        );
        assert_eq!(
            parse("# none\n", &BTreeMap::new()).expect_err("empty").message,
            "file with no instructions"
        );
    }
}
