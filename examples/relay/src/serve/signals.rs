//! The signals of the system: to end, to read the settings again, and to lift what is parked.

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

/// A wish of the operator's, as a signal tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// SIGHUP: the settings are to be read again.
    Reload,
    /// SIGUSR1: what is parked after refusals is to be asked for again.
    Lift,
}

/// Waits for wishes. Windows has no such signals.
pub(crate) struct Wishes {
    #[cfg(unix)]
    reload: tokio::signal::unix::Signal,
    #[cfg(unix)]
    lift: tokio::signal::unix::Signal,
}

impl Wishes {
    /// Listens from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            #[cfg(unix)]
            reload: signal(SignalKind::hangup())?,
            #[cfg(unix)]
            lift: signal(SignalKind::user_defined1())?,
        })
    }

    /// Returns the next wish.
    pub(crate) async fn next(&mut self) -> Wish {
        #[cfg(unix)]
        tokio::select! {
            Some(()) = self.reload.recv() => return Wish::Reload,
            Some(()) = self.lift.recv() => return Wish::Lift,
            else => {}
        }
        std::future::pending().await
    }
}
