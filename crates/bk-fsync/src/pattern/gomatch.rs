//! Shell-style matching of one name, as the Go standard library does it: needed to refuse exactly the
//! patterns that the daemon's side refuses, and to expand wildcards in followed paths.
//!
//! The rule: a pattern is checked to its end even where the name has already failed to match.

/// The pattern is not well formed (an unfinished or empty `[…]`, a range without an end, a lone `\`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Whether `pattern` matches the whole of `name`; `*` and `?` stop at `/`.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, Malformed> {
    check(pattern)?;
    Ok(run(pattern, name))
}

/// Whether `pattern` is well formed.
pub(crate) fn check(mut pattern: &[u8]) -> Result<(), Malformed> {
    while let Some((first, rest)) = pattern.split_first() {
        pattern = match first {
            b'[' => class(rest, None)?.0,
            b'\\' => rest.get(1..).ok_or(Malformed)?,
            _ => rest,
        };
    }
    Ok(())
}

/// One rune and its width; a byte that is no UTF-8 counts as U+FFFD of width one.
pub(crate) fn rune(bytes: &[u8]) -> Option<(char, usize)> {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(fault) => std::str::from_utf8(&head[..fault.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None if bytes.is_empty() => None,
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

/// Matches a pattern that [`check`] has accepted, going back to the latest `*` only: an earlier one could
/// give up nothing that the latest cannot take.
fn run(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (pattern, name);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match p.first() {
            Some(b'*') => {
                while p.first() == Some(&b'*') {
                    p = &p[1..];
                }
                retry = Some((p, n));
                continue;
            }
            None if n.is_empty() => return true,
            Some(_) => {
                if let Some((p_next, n_next)) = step(p, n) {
                    (p, n) = (p_next, n_next);
                    continue;
                }
            }
            None => {}
        }
        // Let the latest `*` take one byte more and try again from there.
        match retry {
            Some((after, from)) if from.first().is_some_and(|b| *b != b'/') => {
                retry = Some((after, &from[1..]));
                (p, n) = (after, &from[1..]);
            }
            _ => return false,
        }
    }
}

/// Consumes one item of the pattern (no `*`) and what it matches.
fn step<'p, 'n>(p: &'p [u8], n: &'n [u8]) -> Option<(&'p [u8], &'n [u8])> {
    match p[0] {
        b'[' => {
            let (c, width) = rune(n)?;
            let (rest, hit) = class(&p[1..], Some(c)).ok()?;
            hit.then_some((rest, &n[width..]))
        }
        b'?' => match rune(n)? {
            ('/', _) => None,
            (_, width) => Some((&p[1..], &n[width..])),
        },
        b'\\' => (p.get(1)? == n.first()?).then(|| (&p[2..], &n[1..])),
        byte => (byte == *n.first()?).then(|| (&p[1..], &n[1..])),
    }
}

/// Reads a character class after its `[`: what follows it, and whether it holds `c`.
fn class(mut p: &[u8], c: Option<char>) -> Result<(&[u8], bool), Malformed> {
    let negated = p.first() == Some(&b'^');
    if negated {
        p = &p[1..];
    }
    let mut hit = false;
    let mut ranges = 0;
    loop {
        if p.first() == Some(&b']') && ranges > 0 {
            return Ok((&p[1..], hit != negated));
        }
        let (low, rest) = class_char(p)?;
        p = rest;
        let mut high = low;
        if p.first() == Some(&b'-') {
            (high, p) = class_char(&p[1..])?;
        }
        hit |= c.is_some_and(|c| low <= c && c <= high);
        ranges += 1;
    }
}

/// One end of a range in a class. Something must follow it: at least the closing bracket.
fn class_char(mut p: &[u8]) -> Result<(char, &[u8]), Malformed> {
    match p.first() {
        None | Some(b'-' | b']') => return Err(Malformed),
        Some(b'\\') => p = &p[1..],
        Some(_) => {}
    }
    let (c, width) = rune(p).ok_or(Malformed)?;
    let rest = &p[width..];
    if (c == char::REPLACEMENT_CHARACTER && width == 1) || rest.is_empty() {
        return Err(Malformed);
    }
    Ok((c, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name, want) in [
            ("*", "abc", true),
            ("*", "a/b", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*a*", "xxaxx", true),
            ("?", "é", true),
            ("??", "é", false),
            ("[a-c]?", "b.", true),
            ("[^a-c]", "b", false),
            ("[\\]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a/*/c", "a/b/c", true),
            ("", "", true),
            ("", "a", false),
            ("[é]", "é", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                Ok(want),
                "{pattern} {name}"
            );
        }
        assert_eq!(matches(b"?", b"\xff"), Ok(true));
    }

    #[test]
    fn malformed_patterns_are_refused_wherever_the_fault_is() {
        for bad in [
            "[", "a[z-", "\\", "a/[", "[]a]", "[-]", "**[", "x\\", "[a-]", "[^]", "[a", "zzz[", "[a\\",
        ] {
            assert_eq!(matches(bad.as_bytes(), b"."), Err(Malformed), "{bad}");
        }
    }
}
