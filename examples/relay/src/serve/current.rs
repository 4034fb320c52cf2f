//! The stack in force, and its replacement at a reload.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::RwLock;
use tower_gemini::BoxError;

use crate::{
    config::{Plan, Source, TelemetrySettings},
    serve::stack::Stack,
};

/// The stack in force, and the source of the next one.
pub(crate) struct Current {
    source: Source,
    /// The addresses on which the relay listens to its end: for callers, and for operators.
    listen: (SocketAddr, Option<SocketAddr>),
    /// The names of metrics, which the exporter keeps.
    telemetry: TelemetrySettings,
    stack: RwLock<Arc<Stack>>,
}

impl Current {
    pub(crate) fn new(source: Source, plan: Plan) -> Result<Self, BoxError> {
        let (server, telemetry) = (&plan.settings.server, plan.settings.telemetry);
        let listen = (server.listen, server.operator_listen);
        let stack = Stack::new(plan, None)?;
        describe(&stack);
        Ok(Self { source, listen, telemetry, stack: RwLock::new(Arc::new(stack)) })
    }

    /// Returns the stack for a call that begins now. Calls under way keep theirs.
    pub(crate) fn stack(&self) -> Arc<Stack> {
        self.stack.read().clone()
    }

    /// Returns the settings of telemetry, which hold to the end.
    pub(crate) fn telemetry(&self) -> TelemetrySettings {
        self.telemetry
    }

    /// Reads the settings again. If they are wrong, it logs their mistakes and keeps the old ones.
    pub(crate) fn reload(&self) {
        match self.next() {
            Ok(stack) => {
                describe(&stack);
                let had_callers = !self.stack().settings.access.callers.is_empty();
                if had_callers && stack.settings.access.callers.is_empty() {
                    tracing::warn!(
                        "no caller needs a token any more: [[callers]] and client_tokens are gone, and everybody may call"
                    );
                }
                *self.stack.write() = Arc::new(stack);
                tracing::info!("settings reloaded: they hold for new calls from now on");
            }
            Err(mistakes) => {
                for mistake in mistakes.lines() {
                    tracing::error!("{mistake}");
                }
                tracing::error!(
                    "settings not reloaded: they are wrong, and the old ones stay; correct them and send SIGHUP"
                );
            }
        }
    }

    /// Has everything that is parked asked for again, and logs what that was.
    pub(crate) fn lift(&self) {
        let parked = self.stack().lift();
        match &parked[..] {
            [] => tracing::info!("nothing is parked: there was nothing to lift"),
            parked => tracing::warn!("lifted, asked again from now on: {}", parked.join("; ")),
        }
    }

    /// Builds the stack that the settings want by now.
    fn next(&self) -> Result<Stack, String> {
        let plan = self.source.read()?;
        let (old, new) = (self.listen, &plan.settings.server);
        if new.listen != old.0 {
            let (old, new) = (old.0, new.listen);
            tracing::warn!("listen cannot change while the relay runs: it stays {old}; {new} needs a restart");
        }
        if new.operator_listen != old.1 {
            tracing::warn!(
                "operator_listen cannot change while the relay runs: it stays as it was; it needs a restart"
            );
        }
        if plan.settings.telemetry != self.telemetry {
            tracing::warn!("[telemetry] cannot change while the relay runs: it stays as it was; it needs a restart");
        }
        Stack::new(plan, Some(&self.stack())).map_err(|error| error.to_string())
    }
}

/// Logs the layers that came of the settings.
fn describe(stack: &Stack) {
    for remark in stack.remarks() {
        tracing::warn!("{remark}");
    }
    if let Some(pages) = stack.settings.access.origins.describe() {
        tracing::info!("{pages}");
    }
    if let Some(line) = stack.settings.access.callers.describe() {
        tracing::info!("{line}");
    }
    if let Some(line) = stack.settings.server.describe_keep_alive() {
        tracing::info!("{line}");
    }
    if let Some(line) = stack.settings.errors.describe() {
        tracing::info!("{line}");
    }
    for line in stack.gemini.describe().to_string().lines() {
        tracing::info!("{line}");
    }
}
