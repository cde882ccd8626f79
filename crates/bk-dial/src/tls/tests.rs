//! Real certificates, good and bad, on a real connection.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, server::WebPkiClientVerifier},
};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}

/// A certificate for `name`, and its key, as PEM.
fn identity(by: &Authority, name: &str, expired: bool) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    if expired {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    }
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, by).expect("signed");
    (certificate.pem(), key.serialize_pem())
}

fn pem(text: &str) -> Pem {
    Pem::Bytes(text.as_bytes().into())
}

/// Serves one connection that gives back what it gets; wants a certificate of `clients` if that is given.
async fn serve(server: (String, String), clients: Option<&Authority>) -> std::net::SocketAddr {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    let chain = CertificateDer::pem_slice_iter(server.0.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(server.1.as_bytes()).expect("a key");
    let mut config = builder
        .with_single_cert(chain.expect("PEM"), key)
        .expect("an identity");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("somebody");
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            let mut bytes = [0; 5];
            if stream.read_exact(&mut bytes).await.is_ok() {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    address
}

/// What comes back, or why nothing does.
async fn ask(address: std::net::SocketAddr, host: &str, options: TlsOptions) -> Result<Vec<u8>, String> {
    let stream = TcpStream::connect(address).await.expect("connected");
    let mut stream = options
        .connect(host, &[b"h2"], stream)
        .await
        .map_err(|e| e.to_string())?;
    let mut back = Vec::new();
    // The daemon may have refused already; then reading says why.
    let _ = stream.write_all(b"hello").await;
    stream.read_to_end(&mut back).await.map_err(|e| e.to_string())?;
    Ok(back)
}

#[tokio::test]
async fn both_sides_show_who_they_are() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let (cert, key) = identity(&theirs, "me", false);
    for (host, name) in [("build.example", None), ("127.0.0.1", Some("build.example"))] {
        let address = serve(identity(&ours, "build.example", false), Some(&theirs)).await;
        let mut options = TlsOptions::new()
            .ca(pem(&ours.pem()))
            .identity(pem(&cert), pem(&key));
        options.server_name = name.map(str::to_owned);
        assert_eq!(ask(address, host, options).await, Ok(b"hello".to_vec()));
    }
    // An address stands for itself.
    let address = serve(identity(&ours, "127.0.0.1", false), None).await;
    let options = TlsOptions::new().ca(pem(&ours.pem()));
    assert_eq!(ask(address, "127.0.0.1", options).await, Ok(b"hello".to_vec()));
    // The system's authorities count when none is named.
    let address = serve(identity(&ours, "h", false), None).await;
    let der = ours.der().to_vec();
    let options = TlsOptions::new().system_roots(move || Ok(vec![der.clone()]));
    assert_eq!(ask(address, "h", options).await, Ok(b"hello".to_vec()));
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_changes_it() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let trusting = || TlsOptions::new().ca(pem(&ours.pem()));
    let (cert, key) = identity(&ours, "me", false);
    for (server, clients, options, why) in [
        (
            identity(&theirs, "h", false),
            None,
            trusting(),
            "no authority that is trusted; name its authority with --tlscacert",
        ),
        (
            identity(&ours, "h", true),
            None,
            trusting(),
            "its certificate has expired",
        ),
        (
            identity(&ours, "other", false),
            None,
            trusting(),
            "not for `h`; if that is right, name whom it is for with --tlsservername",
        ),
        (
            identity(&ours, "h", false),
            Some(&theirs),
            trusting(),
            "give one with --tlscert and --tlskey",
        ),
        (
            identity(&ours, "h", false),
            Some(&theirs),
            trusting().identity(pem(&cert), pem(&key)),
            "does not accept the certificate of --tlscert",
        ),
        (
            identity(&ours, "h", false),
            None,
            TlsOptions::new(),
            "--tlscacert: no certificate authority is trusted",
        ),
        (
            identity(&ours, "h", false),
            None,
            trusting().identity(pem(&cert), pem(&cert)),
            "--tlskey: it holds no private key",
        ),
        (
            identity(&ours, "h", false),
            None,
            TlsOptions::new().ca(pem("nothing")),
            "--tlscacert: it holds no certificate",
        ),
        (
            identity(&ours, "h", false),
            None,
            TlsOptions::new().ca(PathBuf::from("/nonexistent/ca.pem")),
            "/nonexistent/ca.pem: cannot read it",
        ),
        (
            identity(&ours, "h", false),
            None,
            trusting().server_name("a b"),
            "--tlsservername: `a b` is neither",
        ),
    ] {
        let address = serve(server, clients).await;
        let error = ask(address, "h", options).await.expect_err(why);
        assert!(error.contains(why), "{error}\nwanted: {why}");
    }
    // An authority that stands for itself.
    let own = (ours.pem(), ours.key().serialize_pem());
    let address = serve(own, None).await;
    let error = ask(address, "h", trusting()).await.expect_err("an authority");
    assert_eq!(
        error,
        "it shows the certificate of an authority as its own; sign one for it that is none (CA:FALSE), and trust the authority"
    );
    // Something that speaks no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("somebody");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await
    });
    let error = ask(address, "h", trusting()).await.expect_err("no TLS");
    assert_eq!(error, "it does not speak TLS");
}

#[tokio::test]
async fn nobody_is_checked_when_that_is_wanted_and_files_are_named_by_their_origin() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let address = serve(identity(&theirs, "other", true), None).await;
    let options = TlsOptions::new().unchecked(true);
    assert_eq!(ask(address, "h", options).await, Ok(b"hello".to_vec()));

    let from = |options: TlsOptions| options.origin("the Docker context `far`");
    let address = serve(identity(&theirs, "h", false), None).await;
    let error = ask(address, "h", from(TlsOptions::new().ca(pem(&ours.pem())))).await;
    assert_eq!(
        error.expect_err("another authority"),
        "its certificate is signed by no authority that is trusted; name its authority with ca.pem of the Docker context \
         `far`"
    );
    let address = serve(identity(&ours, "h", false), Some(&theirs)).await;
    let error = ask(address, "h", from(TlsOptions::new().ca(pem(&ours.pem())))).await;
    assert_eq!(
        error.expect_err("no certificate"),
        "it wants to see a certificate; give one with cert.pem and key.pem of the Docker context `far`"
    );
    let address = serve(identity(&ours, "h", false), None).await;
    let error = ask(address, "h", from(TlsOptions::new().ca(pem("nothing")))).await;
    assert_eq!(
        error.expect_err("no certificate"),
        "the Docker context `far`: it holds no certificate in PEM"
    );
}

#[tokio::test]
async fn what_is_spoken_inside_is_known() {
    let ours = authority("ours");
    let address = serve(identity(&ours, "h", false), None).await;
    let stream = TcpStream::connect(address).await.expect("connected");
    let options = TlsOptions::new().ca(pem(&ours.pem()));
    let stream = options.connect("h", &[b"http/1.1", b"h2"], stream).await;
    assert_eq!(stream.expect("agreed").protocol(), Some(&b"h2"[..]));
}

#[test]
fn a_file_that_is_too_large_is_refused_and_not_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ca.pem");
    let text = authority("ours").pem();
    // What matters stands in front, so that a part of it would do.
    let size = usize::try_from(MAX_PEM).expect("a size");
    for (surplus, refused) in [(0, false), (1, true)] {
        let mut text = text.clone().into_bytes();
        text.resize(size + surplus, b'\n');
        std::fs::write(&path, text).expect("writable");
        let read = certificates("--tlscacert", &Pem::File(path.clone()));
        match refused {
            false => assert_eq!(read.expect("small enough").len(), 1),
            true => {
                let error = read.expect_err("too large").to_string();
                assert!(error.ends_with("ca.pem: it is larger than 4 MiB"), "{error}");
            }
        }
    }
}

#[test]
fn a_directory_has_the_files_under_either_name() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(TlsOptions::from_dir(dir.path()).is_err());
    for name in ["ca.crt", "cert.pem", "tls.key"] {
        std::fs::write(dir.path().join(name), "").expect("writable");
    }
    let found = format!("{:?}", TlsOptions::from_dir(dir.path()).expect("files"));
    assert!(
        found.contains("ca.crt") && found.contains("cert.pem") && !found.contains("tls.key"),
        "{found}"
    );
}

#[test]
fn keys_come_in_three_forms_and_others_are_told_apart() {
    let ours = authority("ours");
    let (cert, key) = identity(&ours, "me", false);
    let with = |key: &str| {
        let options = TlsOptions::new()
            .ca(pem(&ours.pem()))
            .identity(pem(&cert), pem(key));
        options.config(Vec::new()).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(with(&key), Ok(()));
    // The same key as openssl writes it for `ecparam -genkey`: without its envelope, behind the name of the curve.
    let der = KeyPair::from_pem(&key).expect("a key").serialize_der();
    let inner = der.get(29..).expect("an envelope");
    let curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let bare = |label: &str, der: &[u8]| {
        let text = base64(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    assert_eq!(with(&format!("{curve}{}", bare("EC PRIVATE KEY", inner))), Ok(()));
    let locked = "--tlskey: it is locked with a password, which nobody is asked for; store it without one";
    assert_eq!(with(&bare("ENCRYPTED PRIVATE KEY", b"x")), Err(locked.to_owned()));
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA \
               PRIVATE KEY-----\n";
    assert_eq!(with(old), Err(locked.to_owned()));
    let (_, other) = identity(&ours, "me", false);
    let error = with(&other).expect_err("another key");
    assert!(
        error.starts_with("--tlskey: it does not fit the certificate: "),
        "{error}"
    );
    assert_eq!(
        with(&bare("PRIVATE KEY", b"x")),
        Err(
            "--tlskey: it is no key of a kind that is known: RSA, ECDSA (P-256, P-384) or Ed25519".to_owned()
        )
    );
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let value =
            chunk.iter().fold(0_u32, |value, b| value << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        let digit = move |n: usize| char::from(DIGITS[(value >> (18 - 6 * n) & 63) as usize]);
        (0..4).map(move |n| if n <= chunk.len() { digit(n) } else { '=' })
    });
    digits.collect()
}
