//! An agent that lives in this process, for key files without a passphrase. It lists and signs, nothing else.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bk_build::{BuildError, LocalFailure, SecretBytes};
use bytes::Bytes;
use rsa::{BigUint, Pkcs1v15Sign, RsaPrivateKey};
use signature::Signer;
use ssh_key::{
    Algorithm, EcdsaCurve, HashAlg, Mpint, PrivateKey, Signature,
    private::{KeypairData, RsaKeypair},
    rand_core::OsRng,
    sha2::{Digest, Sha256, Sha512},
};

use super::framed;
use crate::limits::MAX_KEY_FILE;

/// Answers of an agent.
const IDENTITIES: u8 = 12;
const SIGNED: u8 = 14;
/// Which hash an RSA signature is wanted with.
const RSA_SHA256: u32 = 2;
const RSA_SHA512: u32 = 4;

/// Private keys, each with its public half as it is listed. The keys wipe themselves when they are dropped.
pub(crate) struct KeyRing(Vec<Key>);

struct Key {
    public: Vec<u8>,
    private: PrivateKey,
}

impl KeyRing {
    /// Reads key files; blocks.
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Self, BuildError> {
        let keys = paths.iter().map(|path| load(path)).collect::<Result<_, _>>()?;
        Ok(Self(keys))
    }

    /// The answer to a request to list: every key with its comment.
    pub(crate) fn list(&self) -> Bytes {
        let mut message = vec![IDENTITIES];
        message.extend(u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_be_bytes());
        for key in &self.0 {
            put(&mut message, &key.public);
            put(&mut message, key.private.comment().as_bytes());
        }
        framed(&message).unwrap_or(Bytes::from_static(super::FAILURE))
    }

    /// The answer to a request to sign; none when it is malformed, names another key or an old hash.
    pub(crate) fn sign(&self, request: &[u8]) -> Option<Bytes> {
        let (_, rest) = request.split_first()?;
        let (public, rest) = string(rest)?;
        let (data, rest) = string(rest)?;
        let flags = match rest {
            [] => 0,
            rest => u32::from_be_bytes(rest.try_into().ok()?),
        };
        let key = self.0.iter().find(|key| key.public == public)?;
        let signature = match key.private.key_data() {
            KeypairData::Rsa(pair) => rsa_sign(&rsa_key(pair)?, data, flags)?,
            _ => Signer::try_sign(&key.private, data).ok()?,
        };
        let signature: Vec<u8> = signature.try_into().ok()?;
        let mut message = vec![SIGNED];
        put(&mut message, &signature);
        framed(&message)
    }
}

/// By hand: the conversion of `ssh-key` 0.6 takes the first prime twice.
fn rsa_key(pair: &RsaKeypair) -> Option<RsaPrivateKey> {
    let number = |n: &Mpint| n.as_positive_bytes().map(BigUint::from_bytes_be);
    let primes = vec![number(&pair.private.p)?, number(&pair.private.q)?];
    let (n, e) = (number(&pair.public.n)?, number(&pair.public.e)?);
    RsaPrivateKey::from_components(n, e, number(&pair.private.d)?, primes).ok()
}

/// SHA-1 is not offered: servers do not take it any more.
fn rsa_sign(key: &RsaPrivateKey, data: &[u8], flags: u32) -> Option<Signature> {
    // Blinded by fresh random numbers, so that its time tells nothing about the key.
    let (hash, bytes) = match flags {
        f if f & RSA_SHA512 != 0 => {
            let digest = Sha512::digest(data);
            (
                HashAlg::Sha512,
                key.sign_with_rng(&mut OsRng, Pkcs1v15Sign::new::<Sha512>(), &digest),
            )
        }
        f if f & RSA_SHA256 != 0 => {
            let digest = Sha256::digest(data);
            (
                HashAlg::Sha256,
                key.sign_with_rng(&mut OsRng, Pkcs1v15Sign::new::<Sha256>(), &digest),
            )
        }
        _ => return None,
    };
    Signature::new(Algorithm::Rsa { hash: Some(hash) }, bytes.ok()?).ok()
}

fn put(message: &mut Vec<u8>, bytes: &[u8]) {
    // Keys and comments come from files of at most 100 KiB.
    message.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(bytes);
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

fn unusable(algorithm: &str) -> String {
    format!("this SSH key of type {algorithm} cannot be used from a file")
}

/// The algorithm that a key in OpenSSH's format names in the part that is never encrypted.
fn algorithm(pem: &[u8]) -> Option<String> {
    let lines = std::str::from_utf8(pem).ok()?.lines();
    let body = lines
        .skip_while(|line| *line != "-----BEGIN OPENSSH PRIVATE KEY-----")
        .skip(1)
        .take_while(|line| !line.starts_with('-'));
    let mut text = Vec::with_capacity(pem.len());
    body.for_each(|line| text.extend_from_slice(line.as_bytes()));
    let text = SecretBytes::new(text);
    let bytes = SecretBytes::new(STANDARD.decode(text.expose()).ok()?);
    let rest = bytes.expose().strip_prefix(b"openssh-key-v1\0")?;
    let (_cipher, rest) = string(rest)?;
    let (_derivation, rest) = string(rest)?;
    let (_options, rest) = string(rest)?;
    let (public, _) = string(rest.split_first_chunk::<4>()?.1)?;
    let (name, _) = string(public)?;
    let printable = !name.is_empty() && name.len() <= 64 && name.iter().all(u8::is_ascii_graphic);
    printable.then(|| String::from_utf8_lossy(name).into_owned())
}

fn load(path: &Path) -> Result<Key, LocalFailure> {
    const HINT: &str = "add the key to ssh-agent with ssh-add and forward the agent's socket";
    let failed = |e| LocalFailure::new(path, "cannot read the SSH key").caused_by(e);
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(LocalFailure::new(
            path,
            "is neither an SSH agent's socket nor a key file",
        ));
    }
    let mut bytes = Vec::with_capacity(MAX_KEY_FILE as usize + 64);
    let read = file.take(MAX_KEY_FILE + 1).read_to_end(&mut bytes);
    // Wiped from here on, whatever happens.
    let bytes = SecretBytes::new(bytes);
    read.map_err(failed)?;
    if bytes.len() as u64 > MAX_KEY_FILE {
        let text = format!(
            "is larger than {} KiB and cannot be an SSH key",
            MAX_KEY_FILE / 1024
        );
        return Err(LocalFailure::new(path, text));
    }
    let private = PrivateKey::from_openssh(bytes.expose()).map_err(|e| {
        // `ssh-key` 0.6 also fails on elliptic keys whose private number is shorter than its curve.
        let failure = match algorithm(bytes.expose()) {
            Some(name) => LocalFailure::new(path, unusable(&name)).hint(HINT),
            None => LocalFailure::new(path, "is not a private key in OpenSSH's format")
                .hint("convert it with `ssh-keygen -p -f KEY`, or forward an agent that holds it"),
        };
        failure.caused_by(e)
    })?;
    if private.is_encrypted() {
        return Err(LocalFailure::new(path, "the SSH key is protected by a passphrase").hint(HINT));
    }
    match private.algorithm() {
        Algorithm::Ed25519
        | Algorithm::Rsa { .. }
        | Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP256 | EcdsaCurve::NistP384,
        } => {}
        other => return Err(LocalFailure::new(path, unusable(other.as_str())).hint(HINT)),
    }
    let public = private
        .public_key()
        .to_bytes()
        .map_err(|e| LocalFailure::new(path, "the SSH key cannot be used").caused_by(e))?;
    Ok(Key { public, private })
}
