//! What an error of TLS means, in words.
//!
//! The rule: what a person can change is named: the option, or where the files of certificates come from.

use std::io;

use bk_build::Obstacle;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError as C};

/// How webpki calls the certificate of an authority that is shown by a server.
const CA_AS_ITSELF: &str = "CaUsedAsEndEntity";

/// Says what an error of TLS with `name` means, and what changes it. `origin` is where the files come from, if not from
/// options.
pub(super) fn explain(error: io::Error, name: &str, origin: Option<&str>) -> io::Error {
    let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(
                error.kind(),
                "the connection was closed while TLS was being agreed on",
            ),
            _ => error,
        };
    };
    let or = |flags: &str, file: &str| match origin {
        Some(origin) => format!("{file} of {origin}"),
        None => flags.to_owned(),
    };
    let obstacle = match inner {
        rustls::Error::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => Some(Obstacle::Expired),
        rustls::Error::InvalidCertificate(_) => Some(Obstacle::Certificate),
        rustls::Error::AlertReceived(alert) if is_of_certificates(*alert) => Some(Obstacle::Certificate),
        rustls::Error::InvalidMessage(_) => Some(Obstacle::NoTls),
        _ => None,
    };
    let text = match inner {
        rustls::Error::InvalidCertificate(why) => match why {
            // The second: somebody else of the same name is trusted.
            C::UnknownIssuer | C::BadSignature => format!(
                "its certificate is signed by no authority that is trusted; name its authority with {}",
                or("--tlscacert", "ca.pem")
            ),
            C::Expired | C::ExpiredContext { .. } => "its certificate has expired".to_owned(),
            C::NotValidYet | C::NotValidYetContext { .. } => "its certificate is not valid yet".to_owned(),
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                format!(
                    "its certificate is not for `{name}`; if that is right, name whom it is for with --tlsservername"
                )
            }
            // Others take such a one; what this one is checked with does not, and has no name for the reason.
            C::Other(other) if other.to_string() == CA_AS_ITSELF => {
                "it shows the certificate of an authority as its own; \
                sign one for it that is none (CA:FALSE), and trust the authority"
                    .to_owned()
            }
            other => format!("its certificate is not accepted: {other}"),
        },
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => format!(
            "it wants to see a certificate; give one with {}",
            or("--tlscert and --tlskey", "cert.pem and key.pem")
        ),
        rustls::Error::AlertReceived(alert) if is_of_certificates(*alert) => format!(
            "it does not accept the certificate of {} ({alert:?})",
            or("--tlscert", "cert.pem")
        ),
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | rustls::Error::NoApplicationProtocol => {
            "it speaks TLS, but something else inside than is wanted".to_owned()
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        other => format!("TLS: {other}"),
    };
    match obstacle {
        Some(obstacle) => obstacle.error(error.kind(), text),
        None => io::Error::new(error.kind(), text),
    }
}

/// Whether the other side says with it that it wants a certificate, or another one.
fn is_of_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::UnsupportedCertificate
    )
}
