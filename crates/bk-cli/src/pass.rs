//! `bk dial-stdio` and `bk proxy`: bytes of BuildKit's API, passed on as they are.
//!
//! The rule: a side that has said everything is told to the other one, and what it still has to say arrives.

mod listen;

use std::{io, sync::Arc, time::Duration};

use bk_client::{BoxedIo, BuildError, Client, ImageBuilder as _, LocalFailure};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, split},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{
    args::{Global, ProxyArgs},
    connect, exit,
    interrupt::Interrupt,
    limits, report, threads,
};
use listen::Listener;

/// Runs `bk dial-stdio` and returns its exit code.
pub(crate) fn dial_stdio(global: &Global) -> u8 {
    finish(async {
        let client = connect::connect(global).await?;
        let stream = client.open_stream().await?;
        pass(tokio::io::stdin(), tokio::io::stdout(), stream)
            .await
            .map_err(|e| {
                LocalFailure::new("standard input and output", "the connection broke").caused_by(e)
            })?;
        Ok(())
    })
}

/// Runs `bk proxy` and returns its exit code.
pub(crate) fn proxy(global: &Global, args: &ProxyArgs) -> u8 {
    finish(async {
        // Whoever cannot be reached is told before anybody is let in.
        let client = connect::connect_to(global, args.to.as_deref()).await?;
        let interrupt = Interrupt::listen()
            .map_err(|e| LocalFailure::new("signals", "cannot wait for any").caused_by(e))?;
        let listener = Listener::bind(&args.listen).await?;
        report::to_stderr(&format!(
            "listening at {} for {}; Ctrl-C ends it\n",
            listener.address(),
            client.info()
        ));
        serve(listener, client, interrupt).await;
        Ok(())
    })
}

fn finish(work: impl Future<Output = Result<(), BuildError>>) -> u8 {
    let done = threads::start().and_then(|runtime| {
        let done = runtime.block_on(work);
        // A read of standard input may never end.
        runtime.shutdown_timeout(Duration::ZERO);
        done
    });
    match done {
        Ok(()) => exit::SUCCESS,
        Err(e) => {
            report::to_stderr(&report::render(&e, false));
            exit::of(&e)
        }
    }
}

/// Accepts until it is asked to stop, and then lets what is under way come to its end, for [`limits::PROXY_FAREWELL`].
async fn serve(listener: Listener, client: Client, mut interrupt: Interrupt) {
    let room = Arc::new(Semaphore::new(limits::PROXY_CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = interrupt.asked() => break,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            next = next => next,
        };
        match accepted {
            Ok(near) => {
                let client = client.clone();
                open.spawn(async move {
                    carry(near, &client).await;
                    drop(permit);
                });
            }
            Err(e) => {
                report::to_stderr(&format!("WARNING: no connection could be accepted: {e}\n"));
                tokio::time::sleep(limits::PROXY_REST).await; // sleep: nobody tells when descriptors are free again
            }
        }
    }
    drop(listener);
    let rest = async { while open.join_next().await.is_some() {} };
    // Clients keep connections open that they do not use. What has not ended by then ends with the set.
    drop(timeout(limits::PROXY_FAREWELL, rest).await);
}

/// One connection. What goes wrong is told here: the other side sees an end only.
async fn carry(near: BoxedIo, client: &Client) {
    let (reader, writer) = split(near);
    match client.open_stream().await {
        Ok(far) => {
            let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            match pass(reader, writer, far).await {
                Ok(()) => {}
                // Who has what it wanted may just go.
                Err(e) if gone.contains(&e.kind()) => {}
                Err(e) => report::to_stderr(&format!("WARNING: a connection broke: {e}\n")),
            }
        }
        Err(e) => report::to_stderr(&report::render(&e, false)),
    }
}

/// Carries bytes both ways until the far side has ended. One that takes no more may still say why.
async fn pass(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    far: BoxedIo,
) -> io::Result<()> {
    let (mut far_reader, mut far_writer) = split(far);
    let up = async {
        let sent = copy(&mut reader, &mut far_writer).await;
        let shut = far_writer.shutdown().await;
        sent.and(shut)
    };
    let down = async {
        copy(&mut far_reader, &mut writer).await?;
        writer.flush().await?;
        writer.shutdown().await
    };
    tokio::pin!(up, down);
    tokio::select! {
        biased;
        done = &mut down => done,
        sent = &mut up => down.await.and(sent),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn the_end_of_one_side_is_told_to_the_other_and_answers_still_arrive() {
        let (mut near, inner) = duplex(16);
        let (mut far, outer) = duplex(16);
        let (reader, writer) = split(inner);
        let passing = tokio::spawn(pass(reader, writer, Box::new(outer)));
        near.write_all(b"question").await.expect("written");
        near.shutdown().await.expect("shut");
        let mut asked = Vec::new();
        far.read_to_end(&mut asked).await.expect("read");
        assert_eq!(asked, b"question");
        far.write_all(b"answer").await.expect("written");
        drop(far);
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.expect("read");
        assert_eq!(answer, b"answer");
        passing.await.expect("ends").expect("well");
    }

    #[tokio::test]
    async fn what_a_side_says_that_takes_no_more_arrives() {
        let (mut near, inner) = duplex(16);
        let (mut says, outer) = duplex(16);
        let (deaf, takes_nothing) = duplex(16);
        drop(deaf);
        let far = tokio::io::join(outer, takes_nothing);
        near.write_all(b"question").await.expect("written");
        let (reader, writer) = split(inner);
        // The first look at it is enough to see that nothing can be sent.
        let (passed, ()) = tokio::join!(pass(reader, writer, Box::new(far)), async {
            says.write_all(b"too much").await.expect("written");
            drop(says);
        });
        assert_eq!(
            passed.expect_err("not all was sent").kind(),
            io::ErrorKind::BrokenPipe
        );
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.expect("read");
        assert_eq!(answer, b"too much");
    }

    #[tokio::test]
    async fn the_end_of_the_daemon_ends_it_though_nothing_else_does() {
        let (near, inner) = duplex(16);
        let (far, outer) = duplex(16);
        let (reader, writer) = split(inner);
        drop(far);
        pass(reader, writer, Box::new(outer)).await.expect("an end");
        drop(near);
    }
}
