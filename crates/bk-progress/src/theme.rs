//! Colours: what the variables `NO_COLOR` and `BUILDKIT_COLORS` say, given as text. Nothing here reads the environment.

use std::fmt;

/// The colours of a display for terminals. The default has those of `docker buildx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Theme {
    run: String,
    cancel: String,
    error: String,
    warning: String,
    log: String,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Something that goes on or has not begun: the terminal's own colour.
    Normal,
    Done,
    Cancelled,
    Failed,
    Warning,
    Log,
}

impl Default for Theme {
    fn default() -> Self {
        let code = |s: &str| s.to_owned();
        Self {
            run: code("34"),
            cancel: code("33"),
            error: code("31"),
            warning: code("33"),
            log: code("2"),
        }
    }
}

impl Theme {
    /// No colours at all: for a `NO_COLOR` that is set and not empty.
    pub fn none() -> Self {
        let [run, cancel, error, warning, log] = Default::default();
        Self {
            run,
            cancel,
            error,
            warning,
            log,
        }
    }

    /// The default with what `BUILDKIT_COLORS` says instead: `run=green:error=255,80,0`, for `run`, `cancel`, `error` and
    /// `warning`; a colour by its name or as red, green and blue. Empty text changes nothing.
    ///
    /// # Errors
    /// A field that is not of this form, or a colour that there is not.
    pub fn parse(fields: &str) -> Result<Self, UnknownColor> {
        let mut theme = Self::default();
        for field in fields.split(':').filter(|f| !f.is_empty()) {
            let unknown = || UnknownColor(field.to_owned());
            let (what, color) = field.split_once('=').ok_or_else(unknown)?;
            let code = code(color.trim()).ok_or_else(unknown)?;
            *match what.trim() {
                "run" => &mut theme.run,
                "cancel" => &mut theme.cancel,
                "error" => &mut theme.error,
                "warning" => &mut theme.warning,
                _ => return Err(unknown()),
            } = code;
        }
        Ok(theme)
    }

    /// `text` in that colour.
    pub(crate) fn paint(&self, ink: Ink, text: String) -> String {
        let code = match ink {
            Ink::Normal => return text,
            Ink::Done => &self.run,
            Ink::Cancelled => &self.cancel,
            Ink::Failed => &self.error,
            Ink::Warning => &self.warning,
            Ink::Log => &self.log,
        };
        if code.is_empty() || text.is_empty() {
            return text;
        }
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The parameters of the escape sequence of a colour.
fn code(color: &str) -> Option<String> {
    const NAMES: [&str; 8] = [
        "black", "red", "green", "yellow", "blue", "magenta", "cyan", "white",
    ];
    if color == "default" {
        return Some("39".to_owned());
    }
    let (name, first) = match color.strip_prefix("light-") {
        Some(name) => (name, 90),
        None => (color, 30),
    };
    if let Some(index) = NAMES.iter().position(|n| *n == name) {
        return Some((first + index).to_string());
    }
    let mut parts = color.split(',').map(|part| part.trim().parse::<u8>().ok());
    let (r, g, b) = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then(|| format!("38;2;{r};{g};{b}"))
}

/// A field of `BUILDKIT_COLORS` that has no meaning; the user's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownColor(String);

impl fmt::Display for UnknownColor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not WHAT=COLOR with run, cancel, error or warning and a name such as `light-blue`, or `R,G,B`",
            self.0
        )
    }
}

impl std::error::Error for UnknownColor {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_replace_colours() {
        let theme = Theme::parse("run=green:error=255,80,0:cancel=light-black").expect("this has the form");
        let painted = |ink| theme.paint(ink, "x".to_owned());
        assert_eq!(painted(Ink::Done), "\u{1b}[32mx\u{1b}[0m");
        assert_eq!(painted(Ink::Failed), "\u{1b}[38;2;255;80;0mx\u{1b}[0m");
        assert_eq!(painted(Ink::Cancelled), "\u{1b}[90mx\u{1b}[0m");
        assert_eq!(painted(Ink::Warning), "\u{1b}[33mx\u{1b}[0m");
        assert_eq!(painted(Ink::Normal), "x");
        assert_eq!(Theme::none().paint(Ink::Failed, "x".to_owned()), "x");
        assert_eq!(Theme::parse(""), Ok(Theme::default()));
    }

    #[test]
    fn what_has_no_meaning_is_told() {
        for bad in [
            "run",
            "run=mauve",
            "walk=red",
            "run=1,2",
            "run=1,2,3,4",
            "run=256,0,0",
        ] {
            assert!(Theme::parse(bad).is_err(), "{bad}");
        }
    }
}
