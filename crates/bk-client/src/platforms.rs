//! Platforms as they are compared, and which node builds which.
//!
//! The rule: what somebody said of a node wins over what its daemon says, and an exact match over one that merely runs.

/// A platform as it is compared: in small letters, with the usual names of machines, and without the variant that is meant
/// anyway.
pub(crate) fn normal(platform: &str) -> String {
    let platform = platform.trim().to_ascii_lowercase();
    let mut parts = platform.split('/');
    let mut part = || parts.next().unwrap_or_default();
    let (os, arch, variant) = (part(), part(), part());
    let (arch, variant) = match (arch, variant) {
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("i386", _) => ("386", ""),
        ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        other => other,
    };
    let known = match variant {
        "" => format!("{os}/{arch}"),
        variant => format!("{os}/{arch}/{variant}"),
    };
    // With more parts it is no platform, and stays what it was.
    match parts.next() {
        Some(_) => platform,
        None => known,
    }
}

/// How well a machine of the platform `of` does for `wanted`: 0 is the same, `None` not at all. Both are [`normal`].
fn distance(of: &str, wanted: &str) -> Option<usize> {
    if of == wanted {
        return Some(0);
    }
    let parts = |text: &str| -> Option<(String, String, String)> {
        let mut parts = text.split('/').map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.next().unwrap_or_default()))
    };
    let ((os, arch, variant), (wanted_os, wanted_arch, wanted_variant)) = (parts(of)?, parts(wanted)?);
    if os != wanted_os {
        return None;
    }
    let number = |variant: &str, least: usize| match variant {
        "" => Some(least),
        text => text.strip_prefix('v')?.parse::<usize>().ok(),
    };
    match (&*arch, &*wanted_arch) {
        ("amd64", "amd64") => number(&variant, 1)?.checked_sub(number(&wanted_variant, 1)?),
        ("amd64", "386") => Some(10),
        ("arm64", "arm64") => number(&variant, 8)?.checked_sub(number(&wanted_variant, 8)?),
        ("arm64", "arm") => Some(10 + 8_usize.checked_sub(number(&wanted_variant, 7)?)?),
        ("arm", "arm") => number(&variant, 7)?.checked_sub(number(&wanted_variant, 7)?),
        _ => None,
    }
}

/// Which of several nodes builds `wanted`: the first that is nearest, if any. All are [`normal`].
pub(crate) fn nearest<'a>(wanted: &str, nodes: impl Iterator<Item = &'a [String]>) -> Option<usize> {
    let near = nodes.enumerate().filter_map(|(at, platforms)| {
        let least = platforms.iter().filter_map(|p| distance(p, wanted)).min()?;
        Some((least, at))
    });
    near.min().map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_platform_has_one_name() {
        for (text, name) in [
            ("linux/amd64", "linux/amd64"),
            (" Linux/x86_64 ", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("linux/s390x", "linux/s390x"),
            ("a/b/c/d", "a/b/c/d"),
        ] {
            assert_eq!(normal(text), name, "{text}");
        }
    }

    #[test]
    fn the_nearest_node_builds_it() {
        let nodes = |list: &[&str]| -> Vec<Vec<String>> {
            list.iter().map(|p| p.split(',').map(normal).collect()).collect()
        };
        for (wanted, list, at) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], Some(1)),
            // The first of those that are alike.
            ("linux/amd64", &["linux/amd64", "linux/amd64"], Some(0)),
            (
                "linux/arm64",
                &["linux/amd64,linux/arm64", "linux/arm64"],
                Some(0),
            ),
            // A machine that runs it, unless there is one of its own.
            ("linux/arm/v6", &["linux/arm64", "linux/arm/v7"], Some(1)),
            ("linux/arm/v6", &["linux/amd64", "linux/arm64"], Some(1)),
            ("linux/386", &["linux/amd64"], Some(0)),
            ("linux/amd64", &["linux/386"], None),
            ("linux/arm/v7", &["linux/arm/v6"], None),
            (
                "linux/amd64/v2",
                &["linux/amd64", "linux/amd64/v4", "linux/amd64/v3"],
                Some(2),
            ),
            ("windows/amd64", &["linux/amd64"], None),
            ("linux/s390x", &["linux/amd64"], None),
        ] {
            let all = nodes(list);
            assert_eq!(
                nearest(&normal(wanted), all.iter().map(Vec::as_slice)),
                at,
                "{wanted} of {list:?}"
            );
        }
    }
}
