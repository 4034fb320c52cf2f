//! The stack in force, and its replacement at a reload.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use tower_gemini::BoxError;

use crate::{
    config::{Plan, Source, TelemetrySettings},
    serve::{lift::Lift, stack::Stack},
};

/// The stack in force, and the source of the next one.
pub(crate) struct Current {
    source: Source,
    /// The addresses on which the relay listens to its end: for callers, and for operators.
    listen: (SocketAddr, Option<SocketAddr>),
    /// The names of metrics, which the exporter keeps.
    telemetry: TelemetrySettings,
    /// The file of the state, which is kept there to the end.
    state: Option<PathBuf>,
    stack: RwLock<Arc<Stack>>,
    /// Held while the settings are read again: by a signal and by an operator's wish, one after the other.
    reloading: Mutex<()>,
}

impl Current {
    pub(crate) fn new(source: Source, plan: Plan) -> Result<Self, BoxError> {
        let (server, telemetry) = (&plan.settings.server, plan.settings.telemetry);
        let listen = (server.listen, server.operator_listen);
        let state = plan.settings.state.clone();
        let stack = Stack::new(plan, None)?;
        describe(&stack);
        let (stack, reloading) = (RwLock::new(Arc::new(stack)), Mutex::default());
        Ok(Self { source, listen, telemetry, state, stack, reloading })
    }

    /// Returns the stack for a call that begins now. Calls under way keep theirs.
    pub(crate) fn stack(&self) -> Arc<Stack> {
        self.stack.read().clone()
    }

    /// Returns the settings of telemetry, which hold to the end.
    pub(crate) fn telemetry(&self) -> TelemetrySettings {
        self.telemetry
    }

    /// Returns the file of the state.
    pub(crate) fn state(&self) -> Option<&Path> {
        self.state.as_deref()
    }

    /// Reads the settings again. Returns the remarks about them; or their mistakes, a line each, and the old ones stay.
    /// Both are logged, and fit to be shown.
    pub(crate) fn reload(&self) -> Result<Vec<String>, Vec<String>> {
        // A reload changes the pool that goes on.
        let _alone = self.reloading.lock();
        let before = self.stack();
        match self.next(&before) {
            Ok(stack) => {
                describe(&stack);
                if !before.settings.access.callers.is_empty() && stack.settings.access.callers.is_empty() {
                    tracing::warn!(
                        "no caller needs a token any more: [[callers]] and client_tokens are gone, and everybody may call"
                    );
                }
                let remarks = stack.remarks().iter().map(|remark| stack.clean(remark)).collect();
                before.reloads().succeeded();
                *self.stack.write() = Arc::new(stack);
                before.end_upkeep();
                tracing::info!("settings reloaded: they hold for new calls from now on");
                Ok(remarks)
            }
            Err(mistakes) => {
                let mistakes: Vec<_> = mistakes.lines().map(|mistake| before.clean(mistake)).collect();
                for mistake in &mistakes {
                    tracing::error!("{mistake}");
                }
                tracing::error!(
                    "settings not reloaded: they are wrong, and the old ones stay; correct them and send SIGHUP"
                );
                before.reloads().failed(&mistakes);
                Err(mistakes)
            }
        }
    }

    /// Has what is parked asked for again, as far as `which` says. Logs and returns what that was.
    pub(crate) fn lift(&self, which: &Lift) -> Vec<String> {
        let parked = self.stack().lift(which);
        match &parked[..] {
            [] => tracing::info!("nothing is parked: there was nothing to lift"),
            parked => tracing::warn!("lifted, asked again from now on: {}", parked.join("; ")),
        }
        parked
    }

    /// Builds the stack that the settings want by now.
    fn next(&self, before: &Stack) -> Result<Stack, String> {
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
        if plan.settings.state != self.state {
            tracing::warn!("state cannot change while the relay runs: it stays as it was; it needs a restart");
        }
        Stack::new(plan, Some(before)).map_err(|error| error.to_string())
    }
}

/// Logs the layers that came of the settings.
fn describe(stack: &Stack) {
    for remark in stack.remarks() {
        tracing::warn!("{remark}");
    }
    for line in stack.settings.describe(&stack.gemini.describe()) {
        tracing::info!("{line}");
    }
}
