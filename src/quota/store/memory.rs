//! The store in memory: one quota for several limiters of one process.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use super::{Closing, Correction, Question, QuotaStore, Reply, StoreCharge, shared::SharedAccount};
use crate::{
    bounded::{ByScope, Scoped},
    quota::{PacificCalendar, Scope},
    sync::Mutex,
};

/// The most scopes with an account of their own, as in a limiter. Beyond that, and while none can be forgotten, new ones
/// share one account.
const MAX_SCOPES: usize = 16_384;

/// A store for several limiters of one process: the window in memory, exact to a quarter of a second.
///
/// A cheap handle: all clones are the same store. It answers at once.
///
/// ```
/// use tower_gemini::quota::{Answer, Limits, MemoryStore, Question, QuotaStore, Reply, Scope};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (store, scope) = (MemoryStore::new(), Scope::new("p1", "gemini-2.5-flash"));
/// let question = Question::new(1, 500).limits(Limits::new().requests_per_minute(1));
/// assert!(matches!(store.take(&scope, question), Reply::Now(Answer::Granted(_))));
/// // Whoever asks next waits until the first charge no longer counts.
/// let Reply::Now(Answer::Full { wait, .. }) = store.take(&scope, question) else { panic!("it has room") };
/// tokio::time::advance(wait).await;
/// assert!(matches!(store.take(&scope, question), Reply::Now(Answer::Granted(_))));
/// # }
/// ```
///
/// Two limiters that share a quota of one request a minute:
///
/// ```
/// use std::time::Duration;
/// use http::{Request, Response};
/// use http_body_util::{Empty, Full};
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_gemini::{RateLimitLayer, quota::{Limits, MemoryStore}, rate_limit::Limiter};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_gemini::BoxError> {
/// let store = MemoryStore::new();
/// let begun = tokio::time::Instant::now();
/// for _ in 0..2 {
///     let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(1)).store(store.clone()).build();
///     let service = RateLimitLayer::new(limiter).layer(service_fn(|_: Request<Full<bytes::Bytes>>| async {
///         Ok::<_, std::io::Error>(Response::new(Empty::<bytes::Bytes>::new()))
///     }));
///     let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(Full::default())?;
///     service.oneshot(request).await?;
/// }
/// assert!(begun.elapsed() >= Duration::from_secs(60) && begun.elapsed() < Duration::from_secs(61));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    calendar: PacificCalendar,
    accounts: Mutex<Accounts>,
}

struct Accounts {
    by_scope: ByScope<ScopeAccount>,
    /// The number of accounts that were made.
    made: u32,
}

/// The account of one scope behind its lock.
struct ScopeAccount {
    scope: Scope,
    calendar: PacificCalendar,
    account: Mutex<SharedAccount>,
}

impl MemoryStore {
    /// Creates a store in which nothing is used. Reads wall time once, for midnight Pacific.
    #[must_use]
    pub fn new() -> Self {
        let (calendar, now) = (PacificCalendar::read(), Instant::now());
        let account = Mutex::new(SharedAccount::new(0, calendar, now));
        let overflow = Arc::new(ScopeAccount { scope: Scope::new("others", "others"), calendar, account });
        let by_scope = ByScope::new(MAX_SCOPES, overflow);
        Self { shared: Arc::new(Shared { calendar, accounts: Mutex::new(Accounts { by_scope, made: 0 }) }) }
    }

    /// Returns the account of a scope, made where there is none.
    fn account(&self, scope: &Scope, now: Instant) -> Arc<ScopeAccount> {
        let accounts = &mut *self.shared.accounts.lock();
        let made = &mut accounts.made;
        accounts.by_scope.find_or_insert((scope.model(), scope.project()), false, now, |overflow| {
            *made = made.wrapping_add(1);
            let calendar = self.shared.calendar;
            let account = SharedAccount::new(*made, calendar, now);
            let account = match overflow {
                Some(overflow) => {
                    let mut shared = overflow.account.lock();
                    shared.catch_up(calendar, now);
                    account.continuing(&shared)
                }
                None => account,
            };
            ScopeAccount { scope: scope.clone(), calendar, account: Mutex::new(account) }
        })
    }

    /// Returns the account of a scope, if there is one.
    fn known(&self, scope: &Scope) -> Option<Arc<ScopeAccount>> {
        self.shared.accounts.lock().by_scope.find(scope.model(), scope.project()).cloned()
    }
}

impl QuotaStore for MemoryStore {
    fn take(&self, scope: &Scope, question: Question) -> Reply {
        let now = Instant::now();
        let account = self.account(scope, now);
        let answer = account.account.lock().take(question, account.calendar, now);
        Reply::Now(answer)
    }

    fn correct(&self, scope: &Scope, charge: StoreCharge, by: Correction) {
        if let Some(account) = self.known(scope) {
            account.account.lock().correct(charge, by, account.calendar, Instant::now());
        }
    }

    fn close(&self, scope: &Scope, closing: Closing) {
        let now = Instant::now();
        self.account(scope, now).account.lock().close(closing, now);
    }

    fn open(&self, scope: &Scope) {
        if let Some(account) = self.known(scope) {
            account.account.lock().open();
        }
    }
}

impl Scoped for ScopeAccount {
    fn names(&self) -> (&str, &str) {
        (self.scope.model(), self.scope.project())
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        self.account.lock().is_forgettable(self.calendar, now)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes = self.shared.accounts.lock().by_scope.len();
        f.debug_struct("MemoryStore").field("scopes", &scopes).finish_non_exhaustive()
    }
}
