//! Which files look like secrets, by name, and where a name says too little by what they hold.
//!
//! The rule: names that tools give to secrets; examples and templates of them are none.

/// Why a file is looked at twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspect {
    /// The name says it all: it looks like this.
    ByName(&'static str),
    /// It does if it holds one of these texts.
    Holding(&'static [&'static str], &'static str),
}

/// What the file at `path` may be.
pub(super) fn suspect(path: &[u8]) -> Option<Suspect> {
    use Suspect::{ByName, Holding};
    const KEY: &[&str] = &["PRIVATE KEY"];
    let path = std::str::from_utf8(path).ok()?;
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let above = above.rsplit('/').next().unwrap_or(above);
    let lower = name.to_ascii_lowercase();
    Some(match (above, &*lower) {
        (_, "id_rsa" | "id_dsa" | "id_ecdsa" | "id_ed25519") => ByName("a private SSH key"),
        (_, ".git-credentials") => ByName("passwords of Git"),
        (_, ".netrc" | "_netrc") => ByName("passwords of hosts"),
        (_, ".pgpass" | ".my.cnf") => ByName("passwords of databases"),
        (_, ".htpasswd") => ByName("passwords of a web server"),
        (".aws", "credentials") => ByName("keys of AWS"),
        (".kube", "config") => ByName("credentials of Kubernetes"),
        (".docker", "config.json") => Holding(&["\"auth\"", "\"identitytoken\""], "passwords of registries"),
        (_, ".npmrc" | ".yarnrc.yml") => Holding(
            &["_authToken", "_password", "_auth=", "npmAuthToken"],
            "a token of npm",
        ),
        (_, ".pypirc") => Holding(&["password"], "a password of PyPI"),
        (".cargo", "credentials" | "credentials.toml") => ByName("a token of Cargo"),
        (_, "terraform.tfstate") => ByName("the state of Terraform, which holds secrets in plain text"),
        (_, ".env") => ByName("settings with secrets"),
        (_, text) if text.starts_with(".env.") => {
            let harmless = [".example", ".sample", ".template", ".dist"];
            if harmless.iter().any(|end| text.ends_with(end)) {
                return None;
            }
            ByName("settings with secrets")
        }
        (_, text) => match text.rsplit_once('.')?.1 {
            "pem" | "key" => Holding(KEY, "a private key"),
            "p12" | "pfx" | "jks" | "keystore" | "kdbx" | "ppk" => ByName("a store of keys"),
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known() {
        let by_name = |path: &str| matches!(suspect(path.as_bytes()), Some(Suspect::ByName(_)));
        for path in [
            "a/.env",
            ".env.production",
            "ssh/id_rsa",
            ".aws/credentials",
            "x/.aws/credentials",
            "a.P12",
        ] {
            assert!(by_name(path), "{path}");
        }
        for path in [
            ".env.example",
            "env",
            "credentials",
            "id_rsa.pub",
            "environment.ts",
            ".envrc",
            ".kube/other",
        ] {
            assert_eq!(suspect(path.as_bytes()), None, "{path}");
        }
        assert!(matches!(suspect(b"tls/a.pem"), Some(Suspect::Holding(..))));
    }
}
