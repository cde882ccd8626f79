//! The choice of a renderer by its name.

use std::{fmt, io::Write, str::FromStr};

use crate::{Fold, Json, Plain, Quiet, RawJson, Renderer, Tty, TtyOptions};

/// How progress is drawn. Names that `docker buildx` has too mean the same there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// [`Mode::Tty`] on a terminal, else [`Mode::Plain`].
    #[default]
    Auto,
    /// A drawing that is repainted in place, for terminals.
    Tty,
    /// Lines of text, in the order of the build.
    Plain,
    /// Lines of text, whole steps one after the other.
    Ordered,
    /// The same, with the marks of a service that folds steps.
    Grouped,
    /// One JSON object a line, in our own schema.
    Json,
    /// One JSON object a line, in the schema of `docker buildx`.
    RawJson,
    /// Nothing until a step fails, then its output.
    Quiet,
}

const MODES: [(&str, Mode); 8] = [
    ("auto", Mode::Auto),
    ("tty", Mode::Tty),
    ("plain", Mode::Plain),
    ("ordered", Mode::Ordered),
    ("grouped", Mode::Grouped),
    ("json", Mode::Json),
    ("rawjson", Mode::RawJson),
    ("quiet", Mode::Quiet),
];

/// What there is to draw on.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Output {
    /// The terminal, when the output is one.
    pub terminal: Option<TtyOptions>,
    /// The service that reads the output, for [`Mode::Grouped`].
    pub fold: Fold,
}

impl Mode {
    /// Every name that [`FromStr`] takes, in the order in which they should be told.
    pub const NAMES: [&str; MODES.len()] = {
        let mut names = [""; MODES.len()];
        let mut i = 0;
        while i < MODES.len() {
            names[i] = MODES[i].0;
            i += 1;
        }
        names
    };

    /// What [`Mode::Auto`] is on such an output; every other mode is itself.
    #[must_use]
    pub fn on(self, output: &Output) -> Self {
        match self {
            Self::Auto if output.terminal.is_some() => Self::Tty,
            Self::Auto => Self::Plain,
            other => other,
        }
    }

    /// The renderer of this mode, drawing to `out`, which is such an output.
    pub fn renderer<W: Write + Send + 'static>(self, out: W, output: &Output) -> Box<dyn Renderer + Send> {
        match self.on(output) {
            Self::Tty => Box::new(Tty::new(out, output.terminal.clone().unwrap_or_default())),
            Self::Auto | Self::Plain => Box::new(Plain::new(out)),
            Self::Ordered => Box::new(Plain::ordered(out, Fold::None)),
            Self::Grouped => Box::new(Plain::ordered(out, output.fold)),
            Self::Json => Box::new(Json::new(out)),
            Self::RawJson => Box::new(RawJson::new(out)),
            Self::Quiet => Box::new(Quiet::new(out)),
        }
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        MODES
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, mode)| *mode)
            .ok_or_else(|| UnknownMode(name.to_owned()))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = MODES.iter().find(|(_, mode)| mode == self);
        f.write_str(name.map_or("auto", |(name, _)| name))
    }
}

/// A name that is no [`Mode`]; the user's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMode(String);

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a progress mode; there are {}",
            self.0,
            Mode::NAMES.join(", ")
        )
    }
}

impl std::error::Error for UnknownMode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in Mode::NAMES {
            assert_eq!(name.parse::<Mode>().map(|m| m.to_string()), Ok(name.to_owned()));
        }
        assert_eq!(
            "fancy".parse::<Mode>().map_err(|e| e.to_string()),
            Err(
                "`fancy` is not a progress mode; there are auto, tty, plain, ordered, grouped, json, rawjson, quiet"
                    .to_owned()
            )
        );
    }
}
