//! A list that is fetched when somebody needs it: for a name that nobody knows, and not before.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use http_body::Body;
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::sleep,
};
use tower_service::Service;

use super::{
    ModelTable,
    model::bare,
    nearest::is_judged,
    refresh::{FIRST_RETRY, LAST_RETRY},
};
use crate::context::BoxError;

/// Who needs a list, and who fetches it.
#[derive(Debug, Default)]
pub(super) struct Demand {
    wanted: Notify,
    answered: Arc<Notify>,
    /// How many stand ready to fetch it.
    attending: AtomicUsize,
}

/// Somebody stands ready to fetch the list, for as long as this lives.
struct Attending<'a>(&'a Demand);

impl<'a> Attending<'a> {
    fn new(demand: &'a Demand) -> Self {
        demand.attending.fetch_add(1, Ordering::AcqRel);
        Self(demand)
    }
}

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        self.0.attending.fetch_sub(1, Ordering::AcqRel);
        // Whoever waits has waited for nothing, and need not wait longer.
        self.0.answered.notify_waiters();
    }
}

impl ModelTable {
    /// Refreshes whenever a call asks for a name that the table does not know and the list is not fresh; that call waits for
    /// the list, up to [`ask_timeout`](crate::TokenPrecheckLayer::ask_timeout). An upstream whose callers make no mistakes is
    /// never asked. After a failure nobody waits and nothing is asked for 30 s, then 1 min, 2 min, … up to an hour.
    ///
    /// Spawn it, this one or [`refresh_every`](Self::refresh_every): the crate spawns nothing itself. What fails stands in the
    /// [snapshot](Self::snapshot).
    ///
    /// # Cancellation
    ///
    /// Drop it at any time; the table keeps what it has, and whoever waits goes on.
    pub fn refresh_on_demand<S, B, R>(&self, service: S) -> impl Future<Output = Infallible> + use<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        B: Default,
        R: Body,
        R::Error: Into<BoxError>,
    {
        let table = self.clone();
        async move {
            let demand = &table.shared.demand;
            let mut retry = FIRST_RETRY;
            loop {
                let attending = Attending::new(demand);
                demand.wanted.notified().await;
                // Several may have wanted the list that has come meanwhile.
                if table.is_fresh() {
                    continue;
                }
                let refreshed = table.refresh(service.clone()).await;
                // After a failure, nobody attends while it sleeps.
                drop(attending);
                match refreshed {
                    Ok(_) => retry = FIRST_RETRY,
                    Err(_) => {
                        sleep(retry).await;
                        retry = (retry * 2).min(LAST_RETRY);
                    }
                }
            }
        }
    }

    /// A list is needed to judge a name: what to wait for, if somebody stands ready to fetch it, the one at hand is not fresh,
    /// and a fresh one could say anything.
    pub(crate) fn want_list(&self, name: &str) -> Option<OwnedNotified> {
        let demand = &self.shared.demand;
        let attended = || demand.attending.load(Ordering::Acquire) > 0;
        let is_any_use = is_judged(bare(name)) && !self.shared.settings.fresh_for.is_zero();
        if !is_any_use || !attended() || self.is_fresh() {
            return None;
        }
        // Before it is asked for, so that no answer is missed, and seen again: the last may just have gone.
        let answered = demand.answered.clone().notified_owned();
        if !attended() {
            return None;
        }
        demand.wanted.notify_one();
        Some(answered)
    }
}
