//! `--call`: what is asked of the frontend, and its answer as text or JSON.
//!
//! What a frontend says is untrusted: on the way to a terminal it loses everything that a terminal would obey.

use bk_client::{BuildError, Call, CallAnswer, Check, DockerfileFailure, InputError, ProtocolFailure};
use bk_progress::{neutralise, neutralise_line};

use crate::{args::CallArgs, exit, report};

/// A question, and how its answer is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) call: Call,
    pub(crate) json: bool,
    ignore_status: bool,
}

/// What `--call` and `--check` ask; `None` is a build.
///
/// # Errors
/// A field without a meaning, or both flags saying different things.
pub(crate) fn question(args: &CallArgs) -> Result<Option<Question>, InputError> {
    const ALLOWED: &str =
        "build, check, outline or targets, with ,format=text|json and ,ignorestatus=true|false";
    let bad = |text: String| InputError::new("--call", text, ALLOWED);
    let mut fields = args.call.split(',');
    let name = fields.next().unwrap_or_default();
    let (mut json, mut ignore_status) = (false, false);
    for field in fields {
        match field.split_once('=') {
            Some(("format", "json")) => json = true,
            Some(("format", "text")) => json = false,
            Some(("format", other)) => return Err(bad(format!("`{other}` is no format"))),
            None if field == "ignorestatus" => ignore_status = true,
            Some(("ignorestatus", value)) => {
                ignore_status = value
                    .parse()
                    .map_err(|_| bad(format!("`{value}` is neither true nor false")))?;
            }
            _ => return Err(bad(format!("`{field}` is no field of it"))),
        }
    }
    let call = match name {
        "build" => None,
        "" => return Err(bad("it names no question".to_owned())),
        name => Some(name.parse()?),
    };
    let call = match (call, args.check) {
        (call, false) => call,
        (None | Some(Call::Check), true) => Some(Call::Check),
        (Some(other), true) => {
            return Err(InputError::new(
                "--check",
                format!("cannot be used together with --call {other}"),
                "",
            ));
        }
    };
    Ok(call.map(|call| Question {
        call,
        json,
        ignore_status,
    }))
}

/// Prints an answer and returns the exit code.
///
/// # Errors
/// [`BuildError::Protocol`] when the answer lacks what is to be shown.
pub(crate) fn show(question: &Question, answer: &CallAnswer) -> Result<u8, BuildError> {
    let check = match question.call {
        Call::Check => Some(answer.check()?),
        _ => None,
    };
    let text = match (&check, question.json) {
        (_, true) => json(answer)?,
        (Some(check), false) => checked(check),
        (None, false) => match &answer.text {
            Some(text) => neutralise(text),
            // BuildKit 0.8 answers in JSON alone.
            None => json(answer)?,
        },
    };
    let printed = report::to_stdout(&text);
    if let Some(error) = check.as_ref().and_then(|c| c.error.as_ref().map(|e| (c, e))) {
        let (check, error) = error;
        let snippet = error.location.as_ref().and_then(|place| check.snippet(place));
        let failure = DockerfileFailure::new(&error.message, snippet.into_iter().collect());
        report::to_stderr(&report::render(&failure.into(), false));
    }
    let found = answer.status != 0 || check.is_some_and(|c| !c.is_clean());
    Ok(match printed {
        exit::SUCCESS if found && !question.ignore_status => exit::FAILURE,
        code => code,
    })
}

/// An answer as a JSON value, and the exit code that it means.
///
/// # Errors
/// [`BuildError::Protocol`] when the answer is no JSON, or lacks what it should hold.
pub(crate) fn value(question: &Question, answer: &CallAnswer) -> Result<(serde_json::Value, u8), BuildError> {
    let value = serde_json::from_str(&json(answer)?)
        .map_err(|e| ProtocolFailure::new("the frontend's answer is not JSON").caused_by(e))?;
    let clean = match question.call {
        Call::Check => answer.check()?.is_clean(),
        _ => true,
    };
    let found = answer.status != 0 || !clean;
    let code = match found && !question.ignore_status {
        true => exit::FAILURE,
        false => exit::SUCCESS,
    };
    Ok((value, code))
}

fn json(answer: &CallAnswer) -> Result<String, BuildError> {
    let bytes = answer
        .json
        .as_ref()
        .ok_or_else(|| ProtocolFailure::new("the frontend's answer holds no JSON"))?;
    let text = std::str::from_utf8(bytes)
        .map_err(|e| ProtocolFailure::new("the frontend's JSON is not UTF-8").caused_by(e))?;
    Ok(format!("{}\n", neutralise(text.trim_end())))
}

/// A check as other clients print it: a count, then the warnings in the order of their lines.
fn checked(check: &Check) -> String {
    let mut text = match check.warnings.len() {
        // What stopped it is said elsewhere.
        0 if check.error.is_some() => return String::new(),
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        n => format!("Check complete, {n} warnings have been found!\n"),
    };
    let mut warnings: Vec<_> = check.warnings.iter().collect();
    let place = |w: &bk_client::CheckWarning| {
        let place = w.location.as_ref()?;
        Some((place.source, place.ranges.first()?.start.line))
    };
    warnings.sort_by_key(|w| place(w));
    for warning in warnings {
        text.push_str(&format!("\nWARNING: {}", neutralise_line(&warning.rule_name)));
        if !warning.url.is_empty() {
            text.push_str(&format!(" - {}", neutralise_line(&warning.url)));
        }
        text.push_str(&format!("\n{}\n", neutralise(&warning.detail)));
        if let Some(snippet) = warning.location.as_ref().and_then(|p| check.snippet(p)) {
            text.push_str(&neutralise(&snippet.to_string()));
        }
    }
    if check.error.is_some() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(call: &str, check: bool) -> CallArgs {
        CallArgs {
            call: call.to_owned(),
            check,
        }
    }

    #[test]
    fn questions_and_their_fields() {
        let meant = |call, check| question(&args(call, check)).expect("a question");
        assert_eq!(meant("build", false), None);
        for (call, check) in [
            ("check", false),
            ("build", true),
            ("lint", false),
            ("check", true),
        ] {
            let question = meant(call, check).expect("not a build");
            assert_eq!(
                (&question.call, question.json, question.ignore_status),
                (&Call::Check, false, false)
            );
        }
        let json = meant("targets,format=json,ignorestatus", false).expect("not a build");
        assert_eq!(
            (json.call, json.json, json.ignore_status),
            (Call::Targets, true, true)
        );
        for (call, check, flag) in [
            ("", false, "--call"),
            ("check,format=xml", false, "--call"),
            ("check,nothing", false, "--call"),
            ("check,ignorestatus=1", false, "--call"),
            ("a b", false, "--call"),
            ("outline", true, "--check"),
        ] {
            assert_eq!(question(&args(call, check)).expect_err(call).what, flag);
        }
    }

    #[test]
    fn what_a_frontend_says_cannot_drive_the_terminal() {
        let mut check = Check::default();
        assert_eq!(checked(&check), "Check complete, no warnings found.\n");
        check.warnings = vec![
            bk_client::CheckWarning::default(),
            bk_client::CheckWarning::default(),
        ];
        check.warnings[0].rule_name = "R\u{1b}[2J\n".to_owned();
        check.warnings[0].detail = "d\u{8}".to_owned();
        assert_eq!(
            checked(&check),
            "Check complete, 2 warnings have been found!\n\nWARNING: R \nd^H\n\nWARNING: \n\n"
        );
    }
}
