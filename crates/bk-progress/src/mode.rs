//! The choice of a renderer by its name.

use std::{fmt, io::Write, str::FromStr};

use crate::{Plain, Quiet, RawJson, Renderer};

/// How progress is drawn. Names are those of `docker buildx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The best that the output allows. At present always [`Mode::Plain`].
    #[default]
    Auto,
    /// Lines of text, in the order of the build.
    Plain,
    /// One JSON object a line, in the schema of `docker buildx`.
    RawJson,
    /// Nothing.
    Quiet,
}

impl Mode {
    /// Every name that [`FromStr`] takes, in the order in which they should be told.
    pub const NAMES: [&str; 4] = ["auto", "plain", "rawjson", "quiet"];

    /// The renderer of this mode, drawing to `out`.
    pub fn renderer<W: Write + Send + 'static>(self, out: W) -> Box<dyn Renderer + Send> {
        match self {
            Self::Auto | Self::Plain => Box::new(Plain::new(out)),
            Self::RawJson => Box::new(RawJson::new(out)),
            Self::Quiet => Box::new(Quiet),
        }
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        match name {
            "auto" => Ok(Self::Auto),
            "plain" => Ok(Self::Plain),
            "rawjson" => Ok(Self::RawJson),
            "quiet" => Ok(Self::Quiet),
            _ => Err(UnknownMode(name.to_owned())),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::RawJson => "rawjson",
            Self::Quiet => "quiet",
        })
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
            Err("`fancy` is not a progress mode; there are auto, plain, rawjson, quiet".to_owned())
        );
    }
}
