//! From the end of a connection to its class.

use std::{error::Error, io};

use bk_build::LossKind;

/// The class of a transport's error; `Closed` when nothing says more.
pub fn loss_kind(error: &(dyn Error + 'static)) -> LossKind {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(h2) = e.downcast_ref::<h2::Error>() {
            return of_h2(h2);
        }
        if let Some(hyper) = e.downcast_ref::<hyper::Error>()
            && hyper.is_timeout()
        {
            return LossKind::Unanswered;
        }
        if let Some(io) = e.downcast_ref::<io::Error>()
            && let Some(kind) = of_io(io.kind())
        {
            return kind;
        }
        next = e.source();
    }
    LossKind::Closed
}

fn of_h2(error: &h2::Error) -> LossKind {
    if let Some(kind) = error.get_io().and_then(|io| of_io(io.kind())) {
        return kind;
    }
    let Some(reason) = error.reason() else {
        return LossKind::Closed;
    };
    if !error.is_remote() && !error.is_io() {
        // We ended it, because of what came.
        return match reason {
            h2::Reason::NO_ERROR | h2::Reason::CANCEL => LossKind::Closed,
            _ => LossKind::Garbled,
        };
    }
    if error.is_go_away() {
        LossKind::GoAway(reason.into())
    } else if error.is_reset() {
        LossKind::Reset
    } else {
        LossKind::Closed
    }
}

fn of_io(kind: io::ErrorKind) -> Option<LossKind> {
    Some(match kind {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => LossKind::Reset,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            LossKind::Unanswered
        }
        io::ErrorKind::InvalidData => LossKind::Garbled,
        io::ErrorKind::UnexpectedEof => LossKind::Closed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn system_errors_have_classes() {
        for (kind, class) in [
            (io::ErrorKind::ConnectionReset, LossKind::Reset),
            (io::ErrorKind::BrokenPipe, LossKind::Reset),
            (io::ErrorKind::TimedOut, LossKind::Unanswered),
            (io::ErrorKind::UnexpectedEof, LossKind::Closed),
            (io::ErrorKind::Other, LossKind::Closed),
        ] {
            assert_eq!(loss_kind(&Outer(kind.into())), class, "{kind:?}");
        }
    }

    #[test]
    fn protocol_errors_of_our_own_side_are_garbled() {
        assert_eq!(
            loss_kind(&h2::Error::from(h2::Reason::PROTOCOL_ERROR)),
            LossKind::Garbled
        );
        assert_eq!(loss_kind(&h2::Error::from(h2::Reason::CANCEL)), LossKind::Closed);
    }
}
