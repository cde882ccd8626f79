//! The whole of it, with helpers that are scripts.

use std::time::{Duration, SystemTime};

use super::*;

struct Place {
    dir: tempfile::TempDir,
    config: DockerConfig,
}

/// A config file, and helpers as scripts beside it.
fn place(text: &str, helpers: &[(&str, &str)]) -> Place {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("config.json");
    std::fs::write(&path, text).expect("write");
    for (name, script) in helpers {
        let file = dir.path().join(format!("docker-credential-{name}"));
        let text = format!("#!/bin/sh\ncd '{}'\n{script}\n", dir.path().display());
        // Written by another process: a file that this one has open for writing, or a fork of it, cannot be run.
        let made = std::process::Command::new("sh")
            .args(["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""])
            .arg(&file)
            .arg(text)
            .status();
        assert!(made.expect("sh").success());
    }
    let search = format!("{}:/usr/bin:/bin", dir.path().display());
    let config = DockerConfig::new(path).search_path(search);
    Place { dir, config }
}

impl Place {
    async fn ask(&self, host: &str) -> Result<CredentialAnswer, CredentialError> {
        self.config.look_up(&CredentialQuery::new(host)).await
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Notes the server in `asked` and answers with a fresh secret.
const COUNTING: &str = r#"read -r server; test "$1" = get || exit 9; echo "$server" >> asked
printf '{"ServerURL":"%s","Username":"u","Secret":"s%s"}' "$server" "$(wc -l < asked)""#;

#[tokio::test]
async fn finds_whole_hosts_and_nothing_else() {
    let place = place(
        r#"{"auths":{
            "localhost:5000":{"auth":"dTpwOnc="},
            "https://old.example.com/v2/":{"username":"a","password":"b"},
            "https://index.docker.io/v1/":{"identitytoken":"tok","auth":"eDp5"},
            "path.example.com/team":{"auth":"dTpw"},
            "empty.example.com":{}
        }}"#,
        &[],
    );
    let get = async |h: &str| place.config.credential(h).await.expect("reads");
    assert_eq!(get("localhost:5000").await, Some(Credential::basic("u", "p:w")));
    assert_eq!(get("old.example.com").await, Some(Credential::basic("a", "b")));
    assert_eq!(
        get("registry-1.docker.io").await,
        Some(Credential::identity_token("tok"))
    );
    for other in [
        "localhost:50001",
        "localhost",
        "example.com",
        "path.example.com",
        "empty.example.com",
        "",
    ] {
        assert_eq!(get(other).await, None, "{other}");
    }
    let source = place.ask("localhost:5000").await.expect("reads").source;
    let expected = format!(
        "`auths` entry `localhost:5000` of {}",
        place.config.path.display()
    );
    assert_eq!(source, expected);
}

#[tokio::test]
async fn bad_files_are_named_without_their_content() {
    let bad = place(r#"{"auths":{"h":{"auth":"hunter2 hunter2"}}}"#, &[]);
    let e = bad.ask("h").await.expect_err("bad base64").to_string();
    assert!(
        e.contains("config.json") && e.contains("`h`") && !e.contains("hunter2"),
        "{e}"
    );
    let bad = place("{\"auths\": hunter2}", &[]);
    let e = bad.ask("h").await.expect_err("bad JSON").to_string();
    assert!(e.contains("line 1") && !e.contains("hunter2"), "{e}");
    let absent = DockerConfig::new("/nonexistent/config.json");
    assert_eq!(absent.credential("h").await.expect("absent"), None);
}

#[tokio::test]
async fn a_helper_is_asked_once_and_again_after_a_refusal() {
    let place = place(
        r#"{"credHelpers":{"h:1":"count"},"credsStore":"missing"}"#,
        &[("count", COUNTING)],
    );
    let (one, two) = tokio::join!(place.ask("h:1"), place.ask("h:1"));
    let one = one.expect("answers");
    assert_eq!(one.credential, Some(Credential::basic("u", "s1")));
    assert_eq!(one.credential, two.expect("answers").credential);
    assert!(
        one.source.contains("docker-credential-count") && one.source.contains("`credHelpers` entry `h:1`")
    );
    let again = place
        .config
        .look_up(&CredentialQuery::new("h:1").refused())
        .await
        .expect("answers");
    assert_eq!(again.credential, Some(Credential::basic("u", "s2")));
    assert_eq!(place.lines("asked"), ["h:1", "h:1"]);
}

#[tokio::test]
async fn an_answer_that_is_about_to_end_is_not_kept() {
    let soon = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("clock")
        + Duration::from_secs(30);
    let claims = base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        format!(r#"{{"exp":{}}}"#, soon.as_secs()),
    );
    let script = format!(
        r#"read -r server; echo x >> asked; printf '{{"Username":"<token>","Secret":"h.{claims}.s"}}'"#
    );
    let place = place(r#"{"credsStore":"jwt"}"#, &[("jwt", &script)]);
    for _ in 0..2 {
        let credential = place
            .ask("h")
            .await
            .expect("answers")
            .credential
            .expect("a token");
        assert_eq!(credential.username, "");
    }
    assert_eq!(place.lines("asked").len(), 2);
}

#[tokio::test]
async fn helpers_of_different_hosts_run_at_the_same_time() {
    // Each waits for the other.
    let script = r#"read -r server; mkfifo fifo 2>/dev/null
case $server in a) echo go > fifo;; b) read -r x < fifo;; esac
printf '{"Username":"u","Secret":"%s"}' "$server""#;
    let place = place(r#"{"credsStore":"wait"}"#, &[("wait", script)]);
    let (a, b) = tokio::join!(place.ask("a"), place.ask("b"));
    assert_eq!(a.expect("a").credential, Some(Credential::basic("u", "a")));
    assert_eq!(b.expect("b").credential, Some(Credential::basic("u", "b")));
}

#[tokio::test]
async fn what_a_store_does_not_know_may_stand_in_auths() {
    let not_found = "echo 'credentials not found in native keychain'; exit 1";
    let place = place(
        r#"{"credsStore":"none","auths":{"h":{"auth":"dTpw"}}}"#,
        &[("none", not_found)],
    );
    let answer = place.ask("h").await.expect("answers");
    assert_eq!(answer.credential, Some(Credential::basic("u", "p")));
    assert!(answer.source.contains("`auths` entry `h`"), "{}", answer.source);
    let answer = place.ask("other").await.expect("answers");
    assert_eq!((answer.credential, answer.warning), (None, None));
}

#[tokio::test]
async fn failing_helpers_are_named_and_their_output_is_not_told() {
    let helpers = [
        ("fails", "echo stdout-hunter2; echo 'please log in' >&2; exit 3"),
        ("talks", "echo stdout-hunter2"),
        ("floods", "head -c 3000000 /dev/zero"),
    ];
    let text = r#"{"credsStore":"gone","auths":{"marked":{}},"credHelpers":{"fails":"fails","talks":"talks",
        "floods":"floods","odd":"../odd"}}"#;
    let place = place(text, &helpers);
    for (host, said) in [
        (
            "fails",
            "`docker-credential-fails` failed (exit status: 3): please log in; `credHelpers` entry `fails` of",
        ),
        (
            "talks",
            "`docker-credential-talks` gave an answer that is not the JSON it should be",
        ),
        ("floods", "it wrote more than"),
        ("odd", "`../odd` is not the name of a credential helper"),
        (
            "marked",
            "`docker-credential-gone` is not installed; `credsStore` of",
        ),
    ] {
        let e = place.ask(host).await.expect_err(host).to_string();
        assert!(
            e.contains(said) && e.contains(host) && !e.contains("hunter2"),
            "{e}"
        );
    }
    // Nothing says that this host needs credentials at all.
    let answer = place.ask("public.example").await.expect("anonymous");
    assert_eq!(answer.credential, None);
    let warning = answer.warning.expect("a warning");
    assert!(
        warning.contains("docker-credential-gone") && warning.contains("public.example"),
        "{warning}"
    );
}

#[tokio::test]
async fn dropping_the_question_kills_the_helper_and_its_children() {
    // The FIFO's other end closes only when both the script and its child are gone.
    let script = "exec 3> fifo; echo up >&3; sleep 1000 & wait";
    let place = place(r#"{"credsStore":"hangs"}"#, &[("hangs", script)]);
    let fifo = place.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let (runs, running) = tokio::sync::oneshot::channel();
    let reading = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(fifo).expect("opens");
        let mut first = [0; 3];
        file.read_exact(&mut first).expect("reads");
        runs.send(first).expect("the test waits");
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).map(|_| rest)
    });
    let config = place.config.clone();
    let asking = tokio::spawn(async move { config.credential("h").await });
    assert_eq!(&running.await.expect("the helper runs"), b"up\n");
    asking.abort();
    let rest = tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .expect("everything that held the FIFO is gone")
        .expect("no panic");
    assert_eq!(rest.expect("reads"), b"");
}
