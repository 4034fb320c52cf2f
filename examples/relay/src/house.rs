//! The stack that serves just now, and how another comes in its place.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::RwLock;
use tower_gemini::BoxError;

use crate::{Source, settings::Settings, stack::Stack};

pub(crate) struct House {
    source: Source,
    /// Where it listens, to the end.
    listen: SocketAddr,
    stack: RwLock<Arc<Stack>>,
}

impl House {
    pub(crate) fn new(source: Source, settings: Settings) -> Result<Self, BoxError> {
        let listen = settings.listen;
        let stack = Stack::new(settings, None)?;
        describe(&stack);
        Ok(Self { source, listen, stack: RwLock::new(Arc::new(stack)) })
    }

    /// The stack for a call that comes now. Calls under way keep theirs.
    pub(crate) fn now(&self) -> Arc<Stack> {
        self.stack.read().clone()
    }

    /// Reads the settings again. Wrong ones are complained of, and the old ones stay.
    pub(crate) fn reload(&self) {
        let before = self.now();
        let read = self.source.read().and_then(|(settings, _)| {
            if settings.listen != self.listen {
                let (now, then) = (self.listen, settings.listen);
                tracing::warn!("listen cannot change while the relay runs: it stays {now}; {then} needs a restart");
            }
            Stack::new(settings, Some(&before)).map_err(|error| error.to_string())
        });
        match read {
            Ok(stack) => {
                describe(&stack);
                *self.stack.write() = Arc::new(stack);
                tracing::info!("settings were read again, and hold from now on");
            }
            Err(mistakes) => {
                for mistake in mistakes.lines() {
                    tracing::error!("{mistake}");
                }
                tracing::error!("settings were read again and are wrong: the old ones stay");
            }
        }
    }
}

/// What came of the settings.
fn describe(stack: &Stack) {
    for remark in stack.remarks() {
        tracing::warn!("{remark}");
    }
    for line in stack.gemini.describe().to_string().lines() {
        tracing::info!("{line}");
    }
}
