//! The ledger of a test run: which live tests passed where, and what each target can do.
//!
//! It is the file that `BK_LIVE_LEDGER` names, one line a note; without the variable nothing is noted. What targets can
//! do becomes the table `docs/support.md`.

use std::{borrow::Cow, env, fs::OpenOptions, io::Write};

use super::Target;

/// What became of a feature on a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// It works as documented.
    Yes,
    /// It works, apart from this.
    But(String),
    /// It is refused, with this message.
    Refused(String),
    /// It means nothing here, for this reason.
    NotApplicable(String),
    /// It should work and does not, for this reason. Only [`record_named`] takes it: elsewhere the test fails.
    Fails(String),
}

impl Support {
    fn fields(&self) -> (&'static str, &str) {
        match self {
            Self::Yes => ("yes", ""),
            Self::But(text) => ("but", text),
            Self::Refused(text) => ("refused", text),
            Self::NotApplicable(text) => ("none", text),
            Self::Fails(text) => ("fails", text),
        }
    }
}

/// Notes what became of `feature` on an endpoint that a person named.
///
/// # Panics
/// As [`Target::passed`].
pub fn record_named(name: &str, feature: &str, support: &Support) {
    let (verdict, text) = support.fields();
    note(&[name, "support", verdict, feature, text]);
}

impl Target {
    /// Notes that `test` ran here and passed.
    ///
    /// # Panics
    /// When the ledger cannot be written: an unwritten ledger would look like a test that was skipped.
    pub fn passed(&self, test: &str) {
        note(&[
            self.daemon.name(),
            &format!("{}::{test}", self.route.name()),
            "ok",
        ]);
    }

    /// Notes what became of `feature` here. Its name is the row in the table of `docs/support.md`: the same words in
    /// every test, as a person would say them.
    ///
    /// # Panics
    /// As [`passed`](Self::passed).
    pub fn record(&self, feature: &str, support: &Support) {
        record_named(&self.name(), feature, support);
    }

    /// Notes that `feature` works here.
    ///
    /// # Panics
    /// As [`passed`](Self::passed).
    pub fn supports(&self, feature: &str) {
        self.record(feature, &Support::Yes);
    }

    /// Notes that `feature` is refused here with `message`.
    ///
    /// # Panics
    /// As [`passed`](Self::passed).
    pub fn refuses(&self, feature: &str, message: &str) {
        self.record(feature, &Support::Refused(message.to_owned()));
    }
}

fn note(fields: &[&str]) {
    let Ok(path) = env::var("BK_LIVE_LEDGER") else {
        return;
    };
    if path.is_empty() {
        return;
    }
    let fields: Vec<_> = fields.iter().map(|field| one_line(field)).collect();
    let line = format!("{}\n", fields.join("\t"));
    // One write to a file opened for appending: tests of several processes do not mix their lines.
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(e) = written {
        panic!("ledger {path}: {e}");
    }
}

fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(text.split(char::is_control).collect::<Vec<_>>().join(" "))
    } else {
        Cow::Borrowed(text)
    }
}
