//! Secrets and SSH agents: from flags, and the environment, to sources. The rule: what is not there is an error here,
//! before anything is sent; values of the environment are taken now.

use bk_client::{BuildRequest, DEFAULT_SSH_ID, InputError, SecretSource, SshForward};

use crate::{args::AccessArgs, csv, request::Surroundings};

const SECRET: &str = "--secret";
const SECRET_FIELDS: &str = "id=ID[,type=file|env][,src=FILE][,env=VARIABLE]";
const SSH: &str = "--ssh";
const SSH_FIELDS: &str = "default|ID[=SOCKET|KEY[,KEY…]][,raw=true]";
/// Where an agent says that it listens.
const AGENT: &str = "SSH_AUTH_SOCK";

/// Adds what the arguments give to the request.
///
/// # Errors
/// A value that has no meaning, or a variable that is not set.
pub(crate) fn add(
    request: &mut BuildRequest,
    args: &AccessArgs,
    around: &impl Surroundings,
) -> Result<(), InputError> {
    for text in &args.secrets {
        let (id, source) = secret(text, around)?;
        request.secrets.insert(id, source);
    }
    // An empty value is no forward: scripts pass `--ssh "$SSH"`.
    for text in args.ssh.iter().filter(|text| !text.is_empty()) {
        let (id, forward) = ssh(text, around)?;
        if request.ssh.insert(id.clone(), forward).is_some() {
            return Err(InputError::new(SSH, format!("`{id}` is given twice"), SSH_FIELDS));
        }
    }
    Ok(())
}

fn secret(text: &str, around: &impl Surroundings) -> Result<(String, SecretSource), InputError> {
    let bad = |why: String| Err(InputError::new(SECRET, why, SECRET_FIELDS));
    let (mut id, mut file, mut env, mut by_env) = (None, None, None, false);
    for (key, value) in csv::pairs(SECRET, text)? {
        match (&*key, &*value) {
            ("id", _) => id = Some(value),
            ("src" | "source", _) => file = Some(value),
            ("env", _) => env = Some(value),
            ("type", "file") => by_env = false,
            ("type", "env") => by_env = true,
            ("type", _) => return bad(format!("`{value}` is not a type of secret")),
            _ => return bad(format!("`{key}` is not a field of a secret")),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return bad(format!("`{text}`: a secret needs an id"));
    };
    if by_env && env.is_none() {
        env = file.take();
    }
    let source = match (env, file) {
        (Some(_), Some(_)) => return bad(format!("`{id}` cannot come from a file and from the environment")),
        (Some(name), None) => match variable(&name, around) {
            Some(value) => value,
            None => return bad(format!("`{id}`: the environment variable `{name}` is not set")),
        },
        (None, Some(path)) => SecretSource::file(path),
        (None, None) => variable(&id, around).unwrap_or_else(|| SecretSource::file(&id)),
    };
    Ok((id, source))
}

fn variable(name: &str, around: &impl Surroundings) -> Option<SecretSource> {
    around
        .var(name)
        .map(|value| SecretSource::bytes(value.into_encoded_bytes()))
}

fn ssh(text: &str, around: &impl Surroundings) -> Result<(String, SshForward), InputError> {
    let bad = |why: String| Err(InputError::new(SSH, why, SSH_FIELDS));
    // The id ends at the first `=`, unless that belongs to `,raw=`.
    let mut fields = csv::fields(SSH, text)?;
    let first = fields.remove(0);
    let (id, path) = match first.split_once('=') {
        Some((id, path)) => (id.to_owned(), Some(path.to_owned())),
        None => (first, None),
    };
    let id = if id.is_empty() {
        DEFAULT_SSH_ID.to_owned()
    } else {
        id
    };
    let (mut paths, mut raw) = (Vec::new(), false);
    for field in path.into_iter().chain(fields) {
        match field.strip_prefix("raw=") {
            Some("true" | "1" | "TRUE" | "True" | "t" | "T") => raw = true,
            Some("false" | "0" | "FALSE" | "False" | "f" | "F") => raw = false,
            Some(value) => return bad(format!("raw=`{value}` is neither true nor false")),
            None => paths.push(field),
        }
    }
    if paths.is_empty() {
        match around.var(AGENT).filter(|v| !v.is_empty()) {
            Some(socket) => return Ok((id, SshForward::new(socket).raw(raw))),
            None => {
                return bad(format!(
                    "`{id}`: no agent to forward, since {AGENT} is not set; start one with ssh-agent or name a key"
                ));
            }
        }
    }
    let mut forward = SshForward::new("");
    forward.paths = paths.into_iter().map(Into::into).collect();
    Ok((id, forward.raw(raw)))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        ffi::OsString,
        io::{self, Read},
    };

    use bk_client::ArchiveReader;

    use super::*;

    struct Fake(BTreeMap<&'static str, &'static str>);

    impl Surroundings for Fake {
        fn var(&self, name: &str) -> Option<OsString> {
            self.0.get(name).map(Into::into)
        }

        fn stdin(&self) -> Box<dyn Read> {
            Box::new(io::empty())
        }

        fn stdin_rest(&self) -> ArchiveReader {
            Box::pin(tokio::io::empty())
        }
    }

    fn meant(secrets: &[&str], ssh: &[&str]) -> Result<BuildRequest, InputError> {
        let around = Fake([("TOKEN", "t0k3n"), ("OTHER", "other"), (AGENT, "/run/agent")].into());
        let args = AccessArgs {
            secrets: secrets.iter().map(ToString::to_string).collect(),
            ssh: ssh.iter().map(ToString::to_string).collect(),
        };
        let mut request = BuildRequest::new(".");
        add(&mut request, &args, &around)?;
        request.validate()?;
        Ok(request)
    }

    fn source(text: &str) -> String {
        let request = meant(&[text], &[]).unwrap_or_else(|e| panic!("{text}: {e}"));
        let (id, source) = request.secrets.iter().next().expect("a secret");
        match source {
            SecretSource::File(path) => format!("{id} file {}", path.display()),
            SecretSource::Bytes(bytes) => format!("{id} bytes {}", String::from_utf8_lossy(bytes.expose())),
            _ => panic!("{source:?}"),
        }
    }

    #[test]
    fn secrets_come_from_where_other_tools_take_them() {
        for (text, expected) in [
            ("id=a,src=f", "a file f"),
            ("ID=a,Source=d/f", "a file d/f"),
            ("id=a,type=file,src=f", "a file f"),
            ("id=a,env=TOKEN", "a bytes t0k3n"),
            ("id=a,type=env,src=TOKEN", "a bytes t0k3n"),
            ("type=env,id=a,env=OTHER", "a bytes other"),
            ("id=TOKEN", "TOKEN bytes t0k3n"),
            ("id=some/file", "some/file file some/file"),
            (
                "id=GIT_AUTH_TOKEN.example.com,env=TOKEN",
                "GIT_AUTH_TOKEN.example.com bytes t0k3n",
            ),
            (r#"id=a,"src=b,c""#, "a file b,c"),
        ] {
            assert_eq!(source(text), expected, "{text}");
        }
        for (text, why) in [
            ("src=f", "needs an id"),
            ("id=,src=f", "needs an id"),
            ("a", "is not KEY=VALUE"),
            (
                "id=a,env=MISSING",
                "the environment variable `MISSING` is not set",
            ),
            ("id=a,type=vault", "`vault` is not a type"),
            ("id=a,path=f", "`path` is not a field"),
            ("id=a,env=TOKEN,src=f", "from a file and from the environment"),
        ] {
            let e = meant(&[text], &[]).expect_err(text);
            assert!(e.what == SECRET && e.message.contains(why), "{text}: {e}");
            assert!(!e.message.contains("t0k3n"));
        }
    }

    #[test]
    fn agents_and_keys() {
        let all = meant(
            &[],
            &["default", "", "a=/sock", "b=k1,k2", "c=/sock,raw=true", "=/x"],
        );
        assert!(
            all.expect_err("default twice")
                .message
                .contains("`default` is given twice")
        );
        let all = meant(
            &[],
            &["default", "", "a=/sock", "b=k1,k2", "c=/sock,raw=true", "d,raw=1"],
        )
        .expect("a request")
        .ssh;
        let with = |paths: &[&str], raw| {
            let mut forward = SshForward::new("").raw(raw);
            forward.paths = paths.iter().map(Into::into).collect();
            forward
        };
        assert_eq!(
            all.into_iter().collect::<Vec<_>>(),
            [
                ("a".to_owned(), with(&["/sock"], false)),
                ("b".to_owned(), with(&["k1", "k2"], false)),
                ("c".to_owned(), with(&["/sock"], true)),
                ("d".to_owned(), with(&["/run/agent"], true)),
                ("default".to_owned(), with(&["/run/agent"], false)),
            ]
        );
        for (text, why) in [
            ("a=k1,k2,raw=true", "raw takes exactly one socket"),
            ("a=k,raw=maybe", "raw=`maybe`"),
            ("a=", "needs the socket of an agent or a key"),
        ] {
            let e = meant(&[], &[text]).expect_err(text);
            assert!(e.what == SSH && e.message.contains(why), "{text}: {e}");
        }
        let mut request = BuildRequest::new(".");
        let args = AccessArgs {
            ssh: vec!["default".to_owned()],
            ..AccessArgs::default()
        };
        let e = add(&mut request, &args, &Fake(BTreeMap::new())).expect_err("no agent");
        assert!(e.message.contains("SSH_AUTH_SOCK is not set"), "{e}");
    }
}
