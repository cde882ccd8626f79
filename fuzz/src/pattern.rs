//! A slow matcher for the plain part of Docker's pattern language: literals, `?`, `*` and `**`.

/// Whether `pattern` matches the whole of `path`. Both are ASCII without `\ [ ] { } ^ |` and line feeds; the pattern is
/// clean. Takes exponential time: for short input.
pub fn matches(pattern: &[u8], path: &[u8]) -> bool {
    match pattern.strip_prefix(b"**") {
        // Without another wildcard a leading `**` means that the path ends so, in the middle of a name too.
        Some(rest) if !rest.iter().any(|b| b"*?".contains(b)) => {
            path.ends_with(rest) || rest.strip_prefix(b"/") == Some(path)
        }
        _ => from_here(pattern, path),
    }
}

fn from_here(pattern: &[u8], path: &[u8]) -> bool {
    if let Some(rest) = pattern.strip_prefix(b"**") {
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        let mut behind_slash = (0..path.len()).filter(|at| path[*at] == b'/').map(|at| at + 1);
        return rest.is_empty()
            || from_here(rest, path)
            || behind_slash.any(|at| from_here(rest, &path[at..]));
    }
    match (pattern.split_first(), path.split_first()) {
        (None, _) => path.is_empty(),
        (Some((b'*', rest)), None) => from_here(rest, path),
        (Some((b'*', rest)), Some((first, tail))) => {
            from_here(rest, path) || *first != b'/' && from_here(pattern, tail)
        }
        (Some(_), None) => false,
        (Some((b'?', rest)), Some((first, tail))) => *first != b'/' && from_here(rest, tail),
        (Some((byte, rest)), Some((first, tail))) => byte == first && from_here(rest, tail),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn the_reference_says_what_the_language_means() {
        for (pattern, path, want) in [
            ("a", "a", true),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("**/b", "a/b", true),
            ("**/b", "b", true),
            ("**b", "ab", true),
            ("**b*", "ab", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/c", "a/c", true),
            ("a?c", "a/c", false),
            ("**", "a/b", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), want, "{pattern} {path}");
        }
    }
}
