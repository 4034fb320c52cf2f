//! Fetches the list on demand: when a call names a model that is not known, and not before.

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

/// The meeting point of the calls that need a list and the futures that fetch it.
#[derive(Debug, Default)]
pub(super) struct Demand {
    wanted: Notify,
    answered: Arc<Notify>,
    /// The number of futures that stand ready to fetch it.
    attending: AtomicUsize,
}

/// A guard: a future stands ready to fetch the list for as long as this lives.
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
        // No list will come, so the calls that wait for it go on.
        self.0.answered.notify_waiters();
    }
}

impl ModelTable {
    /// Refreshes whenever a call names a model that the table does not know while the list is not fresh.
    ///
    /// That call waits for the list, up to [`ask_timeout`](crate::TokenPrecheckLayer::ask_timeout). An upstream whose
    /// callers make no mistakes is never asked. After a failure no call waits and nothing is asked for 30 s, then 1
    /// min, 2 min, … up to an hour.
    ///
    /// Spawn this future or [`refresh_every`](Self::refresh_every): the crate spawns nothing itself. The
    /// [snapshot](Self::snapshot) has the last error.
    ///
    /// # Cancellation
    ///
    /// It can be dropped at any time: the table keeps its list, and the calls that wait go on.
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
                // Several calls may have wanted the list that has come meanwhile.
                if table.is_fresh() {
                    continue;
                }
                let refreshed = table.refresh(service.clone()).await;
                // After a failure no call waits while this sleeps.
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

    /// Asks for a list to judge `name` by, and returns the notification to wait for.
    ///
    /// Returns `None` where no future stands ready to fetch it, the list in force is fresh, or no list could judge the
    /// name.
    pub(crate) fn want_list(&self, name: &str) -> Option<OwnedNotified> {
        let demand = &self.shared.demand;
        let attended = || demand.attending.load(Ordering::Acquire) > 0;
        let is_any_use = is_judged(bare(name)) && !self.shared.settings.fresh_for.is_zero();
        if !is_any_use || !attended() || self.is_fresh() {
            return None;
        }
        // Made before asking, so that no answer is missed. Then checked again, as the last future may just have gone.
        let answered = demand.answered.clone().notified_owned();
        if !attended() {
            return None;
        }
        demand.wanted.notify_one();
        Some(answered)
    }
}
