//! Which key of Docker's config file means which registry.
//!
//! The rule: a key matches a host as a whole or not at all (no suffixes, no substrings), and a path only by whole
//! components; of several that match the most exact one is taken, always the same.

/// The host by which the daemon asks for Docker Hub, and the key under which the config file keeps it.
const HUB_HOST: &str = "registry-1.docker.io";
pub(super) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The key under which `docker login` keeps the credentials of `host`.
pub(super) fn login_key(host: &str) -> &str {
    if canonical(host) == HUB_HOST {
        HUB_KEY
    } else {
        host
    }
}

/// Of `keys` the one that answers for `host`; `paths` says for which repositories.
pub(super) fn best<'a>(keys: impl Iterator<Item = &'a str>, host: &str, paths: Paths<'_>) -> Option<&'a str> {
    keys.filter_map(|key| Some((rank(key, host, paths)?, key)))
        .max_by_key(|(rank, key)| (*rank, std::cmp::Reverse(*key)))
        .map(|(_, key)| key)
}

/// Which keys with a path may answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paths<'a> {
    /// None: the repository is not known.
    Whole,
    /// Those that the repository is below.
    Of(&'a str),
    /// All: whether there is any key is what is asked.
    Any,
}

/// How well a key matches; the larger the better. The length of its path, then the likeness to what `docker login`
/// writes.
fn rank(key: &str, host: &str, paths: Paths<'_>) -> Option<(usize, u8)> {
    let (scheme, rest) = match key.split_once("://") {
        Some(("https", rest)) => (1, rest),
        Some(("http", rest)) => (0, rest),
        Some(_) => return None,
        None => (2, key),
    };
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    if name.is_empty() || canonical(name) != canonical(host) {
        return None;
    }
    let path = path.trim_end_matches('/');
    let exact = if key == login_key(host) { 3 } else { scheme };
    if matches!(path, "" | "v1" | "v2") {
        return Some((0, exact));
    }
    let below = match paths {
        Paths::Whole => false,
        Paths::Any => true,
        Paths::Of(repository) => repository
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    below.then_some((path.len(), exact))
}

/// One name for all of Docker Hub's.
fn canonical(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" => HUB_HOST,
        other => other,
    }
}

/// The repository that `scopes` are about: the one that is pushed to, else the first. A token for several can be had
/// with one credential only.
pub(super) fn repository(scopes: &[String]) -> Option<&str> {
    let parse = |scope: &'_ str| -> Option<(usize, usize, bool)> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let pushes = actions.split(',').any(|a| a == "push" || a == "*");
        let from = kind.len() + 1;
        (kind == "repository" || kind.starts_with("repository(")).then_some((from, from + name.len(), pushes))
    };
    let mut first = None;
    for scope in scopes {
        if let Some((from, to, pushes)) = parse(scope) {
            let name = &scope[from..to];
            if pushes {
                return Some(name);
            }
            first = first.or(Some(name));
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_as_a_whole() {
        let keys = [
            "0.1",
            "localhost",
            "example.com",
            "ftp://localhost:5000",
            "",
            "https://",
            "/x",
        ];
        for host in [
            "127.0.0.1",
            "localhost:5000",
            "notexample.com",
            "example.com:443",
            "",
        ] {
            assert_eq!(best(keys.into_iter(), host, Paths::Any), None, "{host}");
        }
    }

    #[test]
    fn the_most_exact_key_wins_in_any_order() {
        let of = |keys: &[&'static str], host, paths| {
            let there = best(keys.iter().copied(), host, paths);
            assert_eq!(there, best(keys.iter().rev().copied(), host, paths));
            there
        };
        let keys = [
            "http://h:1",
            "https://h:1/v2/",
            "h:1",
            "h:1/team",
            "h:1/team/app",
            "h:1/tea",
        ];
        assert_eq!(of(&keys, "h:1", Paths::Whole), Some("h:1"));
        assert_eq!(of(&keys[..2], "h:1", Paths::Whole), Some("https://h:1/v2/"));
        assert_eq!(of(&keys, "h:1", Paths::Of("team/app/x")), Some("h:1/team/app"));
        assert_eq!(of(&keys, "h:1", Paths::Of("team/apple")), Some("h:1/team"));
        assert_eq!(of(&keys, "h:1", Paths::Of("other")), Some("h:1"));
        assert_eq!(of(&["h:1/team"], "h:1", Paths::Whole), None);
        assert_eq!(of(&["h:1/team"], "h:1", Paths::Any), Some("h:1/team"));
        let hub = ["docker.io", HUB_KEY, "registry-1.docker.io", "docker.io/team"];
        assert_eq!(of(&hub, HUB_HOST, Paths::Whole), Some(HUB_KEY));
        assert_eq!(of(&hub, HUB_HOST, Paths::Of("team/app")), Some("docker.io/team"));
        assert_eq!(of(&hub[..1], HUB_HOST, Paths::Whole), Some("docker.io"));
    }

    #[test]
    fn scopes_name_a_repository() {
        let of = |scopes: &[&str]| {
            let scopes: Vec<String> = scopes.iter().map(|s| (*s).to_owned()).collect();
            repository(&scopes).map(str::to_owned)
        };
        assert_eq!(of(&["repository:a/b:pull"]).as_deref(), Some("a/b"));
        assert_eq!(
            of(&["repository:a:pull", "repository:b/c:pull,push"]).as_deref(),
            Some("b/c")
        );
        assert_eq!(of(&["repository(plugin):p/q:pull"]).as_deref(), Some("p/q"));
        assert_eq!(of(&["registry:catalog:*", "repository:", "x"]), None);
    }
}
