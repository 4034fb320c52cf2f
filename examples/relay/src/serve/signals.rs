//! The signals of the system: to end, and to read the settings again.

use std::io;

use tokio::sync::watch;

/// Counts the signals to end: SIGTERM, and Ctrl-C.
#[derive(Clone)]
pub(crate) struct Termination(watch::Receiver<u32>);

impl Termination {
    /// Listens from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        let (mut terminate, mut interrupt) = {
            use tokio::signal::unix::{SignalKind, signal};
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        #[cfg(windows)]
        let (mut terminate, mut interrupt) = {
            use tokio::signal::windows::{ctrl_c, ctrl_close};
            (ctrl_close()?, ctrl_c()?)
        };
        let (sender, receiver) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                sender.send_modify(|signals| *signals += 1);
            }
        });
        Ok(Self(receiver))
    }

    /// Returns whether the relay was told to end.
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Waits for the first signal.
    pub(crate) async fn first(&self) {
        self.count(1).await;
    }

    /// Waits for the second signal.
    pub(crate) async fn second(&self) {
        self.count(2).await;
    }

    async fn count(&self, signals: u32) {
        // The sender lives as long as the runtime.
        let _ = self.0.clone().wait_for(|received| *received >= signals).await;
    }
}

/// Waits for SIGHUP, which asks for the settings to be read again. Windows has no such signal.
pub(crate) struct HangUp {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl HangUp {
    /// Listens from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            #[cfg(unix)]
            signal: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when the next one has come.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}
