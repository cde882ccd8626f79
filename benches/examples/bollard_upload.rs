//! A build as users of bollard write it: the context as one tar body to the classic builder.
//!
//! `bollard_upload ADDRESS DOCKERFILE CONTEXT`. The tar is made while it is sent, so memory does not grow with it.

use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bollard::query_parameters::BuildImageOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker, body_try_stream};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// The name of the Dockerfile in the tar.
const DOCKERFILE: &str = ".bench.Dockerfile";
/// Bytes of one piece of the body.
const PIECE: usize = 256 * 1024;

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(data)));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn archive(dockerfile: &Path, context: &Path, out: mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::with_capacity(PIECE, Pieces(out)));
    tar.follow_symlinks(false);
    tar.append_path_with_name(dockerfile, DOCKERFILE)?;
    tar.append_dir_all("", context)?;
    tar.into_inner()?.flush()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, dockerfile, context] = &arguments[..] else {
        return Err("usage: bollard_upload ADDRESS DOCKERFILE CONTEXT".into());
    };
    let docker = Docker::connect_with_unix(address, 600, API_DEFAULT_VERSION)?;
    let (pieces, body) = mpsc::channel(8);
    let (dockerfile, context) = (dockerfile.clone(), context.clone());
    let archiving =
        tokio::task::spawn_blocking(move || archive(dockerfile.as_ref(), context.as_ref(), pieces));
    let options = BuildImageOptionsBuilder::default().dockerfile(DOCKERFILE).build();
    let body = body_try_stream(ReceiverStream::new(body));
    let mut answers = docker.build_image(options, None, Some(body));
    while let Some(answer) = answers.next().await {
        if let Some(error) = answer?.error_detail {
            return Err(format!("the build failed: {error:?}").into());
        }
    }
    archiving.await??;
    Ok(())
}
