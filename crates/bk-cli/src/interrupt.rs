//! Ctrl-C and SIGTERM: the first asks the build to stop, the second stops the program, and so does waiting too long.

use std::io;

use tokio::sync::watch;

use crate::{display, exit, host::Signals, limits};

/// Tells when the user asked to stop.
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens from now on, as long as the runtime lives. The second signal ends the process with [`exit::CANCELLED`],
    /// whatever it is doing; so does [`limits::EXIT_GRACE`] after the first.
    ///
    /// # Errors
    /// The system does not allow to handle signals.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut signals = Signals::new()?;
        let (asked, receiver) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            asked.send_replace(true);
            // The only thing left to happen is the end of this process: a second signal just brings it about sooner.
            drop(tokio::time::timeout(limits::EXIT_GRACE, signals.next()).await);
            display::restore_terminal();
            std::process::exit(i32::from(exit::CANCELLED));
        });
        Ok(Self(receiver))
    }

    /// An interrupt that a test gives by hand.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (watch::Sender<bool>, Self) {
        let (asked, receiver) = watch::channel(false);
        (asked, Self(receiver))
    }

    /// Waits until the user asks to stop. Safe to drop and to call again.
    pub(crate) async fn asked(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            // The listener is gone without having heard anything: it never will.
            std::future::pending::<()>().await;
        }
    }
}
