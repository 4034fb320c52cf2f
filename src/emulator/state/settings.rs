//! The settings of an emulator, fixed at its start.

use std::{collections::HashMap, time::Duration};

use super::{keyring::Keyring, models::EmulatedModel, quota::QuotaWindow};
use crate::{emulator::script::reply::Reply, quota::Limits};

/// The settings of an emulator. [`EmulatorBuilder`](crate::emulator::EmulatorBuilder) documents each.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) keys: Keyring,
    /// Requests without a credential are accepted.
    pub(crate) keyless: bool,
    pub(crate) models: Vec<EmulatedModel>,
    /// The limits of each project and model, unless one of the maps below has others.
    pub(crate) limits: Limits,
    /// Limits by model.
    pub(crate) limits_for: HashMap<String, Limits>,
    /// Limits by project; they go before those by model.
    pub(crate) limits_in: HashMap<String, Limits>,
    pub(crate) window: QuotaWindow,
    /// Quotas are named as those of the paid tier.
    pub(crate) paid: bool,
    /// The time until the headers are sent.
    pub(crate) before_headers: Duration,
    /// The time from the headers to the first piece of a generated answer.
    pub(crate) first_token: Duration,
    pub(crate) between_chunks: Duration,
    /// The time that batches and interactions in the background take.
    pub(crate) background: Duration,
    /// The number of pieces in which an answer is streamed.
    pub(crate) chunks: usize,
    pub(crate) reply: Reply,
    pub(crate) thinking: bool,
    /// The largest body of a request, in bytes.
    pub(crate) body_limit: usize,
    /// The number of visits that the journal keeps.
    pub(crate) journal_capacity: usize,
}

// === impl Settings ===

impl Settings {
    /// Returns whether only configured keys are accepted.
    pub(crate) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Returns the limits of a project and model.
    pub(crate) fn limits(&self, project: &str, model: &str) -> Limits {
        let special = self.limits_in.get(project).or_else(|| self.limits_for.get(model));
        special.copied().unwrap_or(self.limits)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            keys: Keyring::default(),
            keyless: false,
            models: Vec::new(),
            limits: Limits::new(),
            limits_for: HashMap::new(),
            limits_in: HashMap::new(),
            window: QuotaWindow::default(),
            paid: false,
            before_headers: Duration::ZERO,
            first_token: Duration::ZERO,
            between_chunks: Duration::ZERO,
            background: Duration::ZERO,
            chunks: 3,
            reply: Reply::default(),
            thinking: false,
            body_limit: 100 * 1024 * 1024,
            journal_capacity: 10_000,
        }
    }
}
