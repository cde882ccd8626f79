//! Patterns for names of targets: `*`, `?` and `[a-z]`.
//!
//! The rule: the language is that of Go's `path.Match`, for names that hold no slash.

/// Whether a text is a pattern rather than a name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', ']'])
}

/// Whether `name` is one that `pattern` means. A pattern that is no pattern matches nothing.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    here(&pattern, &name)
}

fn here(pattern: &[char], name: &[char]) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return name.is_empty();
    };
    match first {
        '*' => {
            let rest: &[char] = match rest.iter().position(|c| *c != '*') {
                Some(at) => &rest[at..],
                None => return true,
            };
            (0..=name.len()).any(|at| name.get(at..).is_some_and(|tail| here(rest, tail)))
        }
        '?' => name.split_first().is_some_and(|(_, tail)| here(rest, tail)),
        '[' => {
            let (Some((_, tail)), Some((inside, rest))) = (name.split_first(), class(rest, name)) else {
                return false;
            };
            inside && here(rest, tail)
        }
        '\\' => match (rest.split_first(), name.split_first()) {
            (Some((p, rest)), Some((c, tail))) => p == c && here(rest, tail),
            _ => false,
        },
        p => name
            .split_first()
            .is_some_and(|(c, tail)| p == c && here(rest, tail)),
    }
}

/// Whether the first character of `name` is in the class that begins `pattern`, and what follows the class.
fn class<'a>(pattern: &'a [char], name: &[char]) -> Option<(bool, &'a [char])> {
    let c = name.first()?;
    let negated = pattern.first() == Some(&'^');
    let mut rest = if negated { pattern.get(1..)? } else { pattern };
    let mut inside = false;
    let mut any = false;
    loop {
        let (low, after) = rest.split_first()?;
        if *low == ']' && any {
            return Some((inside != negated, after));
        }
        let (high, after) = match after {
            ['-', high, after @ ..] if *high != ']' => (high, after),
            _ => (low, after),
        };
        inside |= (low..=high).contains(&c);
        any = true;
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name, yes) in [
            ("*", "web", true),
            ("*", "", true),
            ("w*b", "web", true),
            ("w**b", "wb", true),
            ("w*", "app", false),
            ("?eb", "web", true),
            ("?", "", false),
            ("[a-w]eb", "web", true),
            ("[^a-w]eb", "web", false),
            ("[xw]eb", "web", true),
            ("[", "w", false),
            ("web", "web", true),
            ("web", "webs", false),
            ("*-*-b", "x-a-b", true),
        ] {
            assert_eq!(matches(pattern, name), yes, "{pattern} {name}");
        }
    }
}
