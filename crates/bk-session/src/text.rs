//! Text from the daemon in messages of ours: quoted, escaped and cut.

/// Characters kept of a text that the daemon chose. Ids that people make are far shorter.
const SHOWN: usize = 200;

/// `text` as it can stand in a message.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::from("`");
    let mut chars = text.chars();
    for c in chars.by_ref().take(SHOWN) {
        out.extend(c.escape_debug());
    }
    if chars.next().is_some() {
        out.push('…');
    }
    out.push('`');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_escaped_and_cut() {
        assert_eq!(shown("a\u{1b}[31m\n"), r"`a\u{1b}[31m\n`");
        assert_eq!(shown(&"x".repeat(300)).chars().count(), SHOWN + 3);
    }
}
