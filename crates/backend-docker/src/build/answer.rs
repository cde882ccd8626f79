//! Follows the answer of a build to its end and says how it went.

use bk_build::{BuildError, BuildEvent, EventSink, ProtocolFailure};
use bk_solve::{ErrorDetails, StatusFold, message_failure};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::records::{Record, Records};
use crate::http1::{SendError, error_message, grpc_code, lost};

/// A build that is under way, and where its events go.
pub(crate) struct Follow<'a> {
    /// The daemon, for messages.
    pub(crate) address: &'a str,
    /// The Dockerfile's name, for daemons that say only a line.
    pub(crate) filename: &'a str,
    /// Where events go.
    pub(crate) events: &'a EventSink,
}

impl Follow<'_> {
    /// Does `work` while passing on events that arise beside it.
    pub(crate) async fn beside<T>(
        &self,
        beside: &mut mpsc::Receiver<BuildEvent>,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                value = &mut work => return value,
                Some(event) = beside.recv() => self.events.emit(event).await,
            }
        }
    }

    /// Reads the answer until it ends. Returns the id of the image, if the daemon said one.
    ///
    /// `beside` brings events that arise on our own side meanwhile.
    pub(crate) async fn run(
        &self,
        response: Response<Incoming>,
        beside: &mut mpsc::Receiver<BuildEvent>,
    ) -> Result<Option<String>, BuildError> {
        let mut fold = StatusFold::new();
        if response.status() != StatusCode::OK {
            let code = grpc_code(response.status());
            let said = error_message(response).await;
            return Err(self.failure(code, &said, &fold));
        }
        let mut body = response.into_body();
        let mut records = Records::new();
        let mut batch = Vec::new();
        let mut image_id = None;
        loop {
            let frame = self.beside(beside, body.frame()).await;
            let ended = frame.is_none();
            match frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        records.push(data);
                    }
                }
                Some(Err(e)) => return Err(lost(self.address, SendError::Transport(e))),
                None => {}
            }
            while let Some(record) = records.next()? {
                self.take(record, &mut fold, &mut batch, &mut image_id).await?;
            }
            if ended {
                break;
            }
            // A daemon that tells more than can be taken must not keep the end of the build from being seen.
            tokio::task::yield_now().await;
        }
        if let Some(record) = records.finish()? {
            self.take(record, &mut fold, &mut batch, &mut image_id).await?;
        }
        Ok(image_id)
    }

    async fn take(
        &self,
        record: Record,
        fold: &mut StatusFold,
        batch: &mut Vec<BuildEvent>,
        image_id: &mut Option<String>,
    ) -> Result<(), BuildError> {
        match record {
            Record::Status(status) => {
                fold.apply(status, batch);
                for event in batch.drain(..) {
                    self.events.emit(event).await;
                }
            }
            Record::ImageId(id) => *image_id = Some(checked_id(id)?),
            Record::Failure(said) => return Err(self.failure(UNKNOWN, &said, fold)),
        }
        Ok(())
    }

    fn failure(&self, code: i32, said: &str, fold: &StatusFold) -> BuildError {
        message_failure(
            code,
            said,
            ErrorDetails::default(),
            fold,
            self.address,
            self.filename,
        )
    }
}

/// gRPC `UNKNOWN`: a record says no code.
const UNKNOWN: i32 = 2;

/// An id goes into files and other programs' arguments: it must look like one.
fn checked_id(id: String) -> Result<String, ProtocolFailure> {
    let digest = |id: &str| {
        id.split_once(':').is_some_and(|(kind, hex)| {
            !kind.is_empty()
                && !hex.is_empty()
                && kind
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b))
                && hex.bytes().all(|b| b.is_ascii_hexdigit())
        })
    };
    if digest(&id) {
        Ok(id)
    } else {
        Err(ProtocolFailure::new(format!("{id:?} is no image id")))
    }
}
