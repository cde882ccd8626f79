//! Errors that name an option say where it was given, when that was not the command line.

use std::sync::OnceLock;

use bk_client::{BuildError, ConnectError};

use super::resolve::{Settings, Source};

/// Options that came from elsewhere, and what to call them.
static NAMES: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Remembers for the rest of the program where options came from.
pub(super) fn remember(settings: &Settings) {
    let names = settings
        .put_in()
        .map(|(setting, said)| {
            let name = match &said.source {
                Source::File { key, .. } => format!("{}: {key}", said.source),
                other => other.to_string(),
            };
            (setting.key.flag(), name)
        })
        .collect();
    // A program has one command line.
    drop(NAMES.set(names));
}

/// The same error with the true name of the option that it is about; `None` when it has that already.
pub(crate) fn renamed(error: &BuildError) -> Option<BuildError> {
    renamed_by(error, NAMES.get().map(Vec::as_slice).unwrap_or_default())
}

fn renamed_by(error: &BuildError, names: &[(String, String)]) -> Option<BuildError> {
    let name = |what: &str| {
        names
            .iter()
            .find(|(flag, _)| flag == what)
            .map(|(_, name)| name.clone())
    };
    match error {
        BuildError::Input(e) => {
            let mut e = e.clone();
            e.what = name(&e.what)?;
            Some(e.into())
        }
        BuildError::TooOld(e) => {
            let mut e = e.clone();
            e.option = name(&e.option)?;
            Some(BuildError::TooOld(e))
        }
        // An address that was given says nothing of its origin: on the command line one sees it.
        BuildError::Connect(e) => {
            let addr = name("--addr")?;
            let attempts = e.attempts.iter().map(|a| {
                let origin = if a.origin.is_empty() { &addr } else { &a.origin };
                a.clone().origin(origin)
            });
            Some(ConnectError::several(attempts.collect()).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bk_client::InputError;

    use super::*;

    #[test]
    fn an_option_has_the_name_of_its_source() {
        let names = [("--tag".to_owned(), "BK_TAG".to_owned())];
        let error = BuildError::from(InputError::new("--tag", "`!` is no name", "NAME[:TAG]"));
        let renamed = renamed_by(&error, &names).expect("another name");
        assert_eq!(renamed.to_string(), "BK_TAG: `!` is no name");
        assert_eq!(renamed.hint().as_deref(), Some("BK_TAG takes NAME[:TAG]"));
        let names = [("--addr".to_owned(), "BK_ADDR".to_owned())];
        let error = BuildError::from(ConnectError::single("tcp://h:1", "gone"));
        assert_eq!(
            renamed_by(&error, &names).map(|e| e.to_string()).as_deref(),
            Some("cannot reach a daemon at tcp://h:1 (BK_ADDR): gone")
        );
        assert!(renamed_by(&BuildError::from(InputError::new("--label", "x", "")), &names).is_none());
        assert!(renamed_by(&BuildError::Cancelled, &names).is_none());
    }
}
