//! The knowledge of a limiter in a form that outlives the process.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Limiter, MAX_SCOPES};
use crate::{bounded::MAX_NAME, clock::TimeAnchor, rate_limit::account::AccountMemory};

/// The knowledge of a [`Limiter`] in a form that outlives the process, from [`Limiter::memory`]: the usage of the day and of
/// the last minute, learned limits, and blocks, of each project and model.
///
/// It is written with serde, in a format that describes itself, such as JSON. What a later version adds is missing in an older memory, and counts as
/// not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimiterMemory {
    scopes: Vec<ScopeMemory>,
}

/// The knowledge of one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ScopeMemory {
    project: Box<str>,
    model: Box<str>,
    #[serde(flatten)]
    account: AccountMemory,
}

impl Limiter {
    /// Returns everything that the limiter knows and that holds for another process too, for [`restore`](Self::restore).
    /// Reads wall time. Calls in the queue, and the scopes that share one account for want of room, are not in it.
    ///
    /// ```
    /// use tower_gemini::rate_limit::{Limiter, LimiterMemory};
    ///
    /// let kept = serde_json::to_string(&Limiter::new().memory())?;
    /// // In the next process:
    /// let limiter = Limiter::new();
    /// limiter.restore(&serde_json::from_str::<LimiterMemory>(&kept)?);
    /// # Ok::<_, serde_json::Error>(())
    /// ```
    pub fn memory(&self) -> LimiterMemory {
        let (now, anchor, calendar) = (Instant::now(), TimeAnchor::read(), self.shared.calendar);
        let queues = self.shared.shards.iter().flat_map(|shard| shard.lock().iter().cloned().collect::<Vec<_>>());
        let mut scopes: Vec<_> = queues
            .filter_map(|queue| {
                let account = queue.read(now, |account, _| account.memory(now, calendar, anchor))?;
                let scope = queue.scope();
                Some(ScopeMemory { project: scope.project().into(), model: scope.model().into(), account })
            })
            .collect();
        scopes.sort_unstable_by(|one, other| (&one.project, &one.model).cmp(&(&other.project, &other.model)));
        LimiterMemory { scopes }
    }

    /// Takes up what a limiter of another process knew: for a program that has just started. Reads wall time.
    ///
    /// The usage of a day counts only on the same day in California. Blocks end when they would have, and no later than a
    /// refusal of this moment would; limits that a refusal has named are taken up for 25 hours. Limits that are set stay as
    /// they are. What this limiter has learned itself goes before, and usage is raised, never added.
    pub fn restore(&self, memory: &LimiterMemory) {
        let (now, anchor, calendar) = (Instant::now(), TimeAnchor::read(), self.shared.calendar);
        let fits = |scope: &&ScopeMemory| scope.project.len() <= MAX_NAME && scope.model.len() <= MAX_NAME;
        for scope in memory.scopes.iter().filter(fits).take(MAX_SCOPES) {
            let queue = self.queue_of_all(&scope.project, &scope.model, now);
            // A full limiter lends the account of all others.
            if (queue.scope().project(), queue.scope().model()) == (&scope.project, &scope.model) {
                queue.change(|account| account.restore(&scope.account, now, calendar, anchor));
            }
        }
    }
}
