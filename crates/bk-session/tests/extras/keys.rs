//! Private keys in files, made by the real `ssh-keygen` and judged by it.

use std::{path::Path, process::Command};

use bk_build::{BuildRequest, SshForward};
use bk_session::Extras;

use super::{framed, serving, talk};

fn run(program: &str, args: &[&str], input: &[u8]) -> std::process::Output {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program} (Debian: openssh-client): {e}"));
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input)
        .expect("write");
    child.wait_with_output().expect("an end")
}

/// Makes a key; `extra` goes to `ssh-keygen`.
fn make(path: &Path, extra: &[&str]) -> Vec<u8> {
    let path = path.to_str().expect("UTF-8");
    let made = run(
        "ssh-keygen",
        &[&["-q", "-f", path, "-C", "a comment"], extra].concat(),
        b"",
    );
    assert!(made.status.success(), "{made:?}");
    let public = std::fs::read_to_string(format!("{path}.pub")).expect("the public half");
    let text = public.split(' ').nth(1).expect("its bytes");
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).expect("base64")
}

fn string(bytes: &[u8]) -> Vec<u8> {
    framed(bytes)
}

fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (length, after) = rest.split_at(4);
    let (taken, after) = after.split_at(u32::from_be_bytes(length.try_into().expect("four bytes")) as usize);
    *rest = after;
    taken
}

/// Whether `ssh-keygen` takes `signature` for one of `public` over the signed data of `message` in `namespace`.
fn verified(dir: &Path, public: &[u8], hash: &str, signature: &[u8]) -> bool {
    let blob = [
        b"SSHSIG".as_slice(),
        &1u32.to_be_bytes(),
        &string(public),
        &string(b"test"),
        &string(b""),
        &string(hash.as_bytes()),
        &string(signature),
    ]
    .concat();
    let engine = base64::engine::general_purpose::STANDARD;
    let text = base64::Engine::encode(&engine, blob);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(70)
        .map(|l| std::str::from_utf8(l).expect("ASCII"))
        .collect();
    let file = dir.join("signature");
    let armoured = format!(
        "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
        lines.join("\n")
    );
    std::fs::write(&file, armoured).expect("write");
    let args = [
        "-Y",
        "check-novalidate",
        "-n",
        "test",
        "-s",
        file.to_str().expect("UTF-8"),
    ];
    run("ssh-keygen", &args, b"message").status.success()
}

/// A name, what `ssh-keygen` is given, and which flags ask for which kind of signature.
type Kind = (
    &'static str,
    &'static [&'static str],
    &'static [(u32, &'static str)],
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_listed_and_sign_what_ssh_keygen_verifies() {
    use sha2::{Digest, Sha256, Sha512};
    let dir = tempfile::tempdir().expect("temp dir");
    let kinds: [Kind; 4] = [
        ("ed25519", &["-t", "ed25519", "-N", ""], &[(0, "ssh-ed25519")]),
        (
            "p256",
            &["-t", "ecdsa", "-b", "256", "-N", ""],
            &[(0, "ecdsa-sha2-nistp256")],
        ),
        (
            "p384",
            &["-t", "ecdsa", "-b", "384", "-N", ""],
            &[(0, "ecdsa-sha2-nistp384")],
        ),
        (
            "rsa",
            &["-t", "rsa", "-b", "2048", "-N", ""],
            &[(2, "rsa-sha2-256"), (4, "rsa-sha2-512")],
        ),
    ];
    let publics: Vec<Vec<u8>> = kinds
        .iter()
        .map(|(name, args, _)| make(&dir.path().join(name), args))
        .collect();
    let mut forward = SshForward::new(dir.path().join(kinds[0].0));
    for (name, ..) in &kinds[1..] {
        forward = forward.key(dir.path().join(name));
    }
    let (daemon, _session) = serving(&BuildRequest::new(".").ssh("keys", forward)).await;

    let mut expected = vec![12, 0, 0, 0, 4];
    for public in &publics {
        expected.extend(string(public));
        expected.extend(string(b"a comment"));
    }
    let listed = talk(&daemon, Some("keys"), &[&framed(&[11])])
        .await
        .expect("a list");
    assert_eq!(listed, framed(&expected));

    for ((name, _, ways), public) in kinds.iter().zip(&publics) {
        for (flags, algorithm) in *ways {
            for (hash, digest) in [
                ("sha256", Sha256::digest(b"message").to_vec()),
                ("sha512", Sha512::digest(b"message").to_vec()),
            ] {
                let data = [
                    b"SSHSIG".as_slice(),
                    &string(b"test"),
                    &string(b""),
                    &string(hash.as_bytes()),
                    &string(&digest),
                ]
                .concat();
                let request = [&[13][..], &string(public), &string(&data), &flags.to_be_bytes()].concat();
                let answer = talk(&daemon, Some("keys"), &[&framed(&request)])
                    .await
                    .expect("an answer");
                assert_eq!(answer.get(4), Some(&14), "{name} {flags}: {answer:?}");
                let signature = take(&mut &answer[5..]).to_vec();
                assert_eq!(take(&mut &signature[..]), algorithm.as_bytes());
                assert!(
                    verified(dir.path(), public, hash, &signature),
                    "{name} {algorithm} {hash}"
                );
                assert!(!verified(
                    dir.path(),
                    public,
                    if hash == "sha256" { "sha512" } else { "sha256" },
                    &signature
                ));
            }
        }
    }
    // SHA-1, a key that is not there, and requests that end too early.
    let rsa = [
        &[13][..],
        &string(&publics[3]),
        &string(b"data"),
        &0u32.to_be_bytes(),
    ]
    .concat();
    let other = [
        &[13][..],
        &string(b"other"),
        &string(b"data"),
        &0u32.to_be_bytes(),
    ]
    .concat();
    for request in [
        &rsa[..],
        &other,
        &rsa[..20],
        &[13],
        &[13, 255, 255, 255, 255],
        &[17],
        &[25],
        &[27],
    ] {
        let answer = talk(&daemon, Some("keys"), &[&framed(request)]).await;
        assert_eq!(answer.expect("an answer"), framed(&[5]), "{request:?}");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().expect("temp dir");
    let at = |name: &str| dir.path().join(name);
    make(&at("locked"), &["-t", "ed25519", "-N", "pass phrase"]);
    // A key of this curve can be parsed or not, by chance: the text has to be the same.
    let curves = ["p521-0", "p521-1", "p521-2", "p521-3", "p521-4", "p521-5"];
    for name in curves {
        make(&at(name), &["-t", "ecdsa", "-b", "521", "-N", ""]);
    }
    let p521 = "this SSH key of type ecdsa-sha2-nistp521 cannot be used from a file";
    make(&at("pem"), &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]);
    std::fs::write(at("big"), vec![b'x'; 100 * 1024 + 1]).expect("write");
    for (name, cause, hint) in [
        ("locked", "the SSH key is protected by a passphrase", "ssh-add"),
        ("pem", "is not a private key in OpenSSH's format", "ssh-keygen -p"),
        (
            "locked.pub",
            "is not a private key in OpenSSH's format",
            "ssh-keygen -p",
        ),
        ("big", "is larger than 100 KiB", ""),
        ("", "is neither an SSH agent's socket nor a key file", ""),
    ]
    .into_iter()
    .chain(curves.map(|name| (name, p521, "ssh-add")))
    {
        let request = BuildRequest::new(".").ssh("k", SshForward::new(at(name)));
        let Err(error) = Extras::of(&request).await else {
            panic!("{name}: accepted")
        };
        assert!(error.to_string().contains(cause), "{name}: {error}");
        assert!(
            error.hint().unwrap_or_default().contains(hint),
            "{name}: {:?}",
            error.hint()
        );
    }
}
