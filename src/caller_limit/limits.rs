//! The handle: the quotas of all callers, and what they have used. It outlives the layers made from it.

mod memory;

use std::{
    array,
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

pub use self::memory::CallerLimitsMemory;
use super::{
    account::{CallerAccount, CallerCost},
    accounts::{CallerAccounts, CallerAdmission, CallerCharge},
    dimension::{CallerAmount, CallerDimension},
    quota::CallerQuota,
    scopes::CallerScopes,
};
use crate::{
    bounded::{ByScope, Scoped},
    context::{ConfigError, Priority},
    describe::Describe,
    prices::Prices,
    quota::{PacificCalendar, QuotaStore},
};

/// The most callers with accounts of their own. Beyond that, and while none can be forgotten, new ones share one, except
/// those that the settings name.
const MAX_CALLERS: usize = 16_384;

/// The number of maps over which the callers are spread, each with a lock of its own.
const SHARDS: usize = 16;

/// The quotas of all callers and what they have used: the state of any number of
/// [`CallerLimitLayer`](super::CallerLimitLayer)s.
///
/// A cheap handle: all clones are the same.
///
/// ```
/// use tower_gemini::{caller_limit::{CallerLimits, CallerQuota}, prices::{Money, Price, Prices}};
///
/// let limits = CallerLimits::builder()
///     .others(CallerQuota::new().requests_per_minute(10))
///     .caller("app", CallerQuota::new().requests_per_minute(60).money_per_month(Money::dollars(50)))
///     // The numbers are made up.
///     .prices(Prices::builder().model("gemini-*", Price::new(Money::dollars(1), Money::dollars(8))).build())
///     .build()?;
/// let [app] = &limits.snapshot()[..] else { panic!() };
/// assert_eq!((&*app.caller, app.dimensions[0].used.to_string()), ("app", "0".into()), "no call has been made");
/// # Ok::<_, tower_gemini::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct CallerLimits {
    shared: Arc<Shared>,
}

struct Shared {
    settings: RwLock<Arc<CallerSettings>>,
    calendar: PacificCalendar,
    hasher: RandomState,
    shards: [Mutex<ByScope<CallerEntry>>; SHARDS],
    /// The accounts that callers share while there is no room.
    overflow: Arc<CallerEntry>,
}

/// The name under which callers are reported that share accounts.
const OTHERS: &str = "others";

/// A caller with its accounts.
#[derive(Debug)]
pub(super) struct CallerEntry {
    caller: Arc<str>,
    calendar: PacificCalendar,
    accounts: Mutex<CallerAccounts>,
    /// A flag: it is the entry of all callers without one of their own.
    is_overflow: bool,
    /// The scopes in the store, once it was asked.
    scopes: OnceLock<Box<CallerScopes>>,
}

impl CallerLimits {
    /// Returns a builder.
    pub fn builder() -> CallerLimitsBuilder {
        CallerLimitsBuilder::default()
    }

    /// Replaces the quotas, the prices and the store, and keeps what has been used here: for a program that reads its settings again.
    ///
    /// # Errors
    ///
    /// As [`CallerLimitsBuilder::build`]; nothing is replaced then.
    pub fn replace(&self, settings: CallerLimitsBuilder) -> Result<(), ConfigError> {
        *self.shared.settings.write() = Arc::new(settings.check()?);
        Ok(())
    }

    /// Returns a report on each caller with limits that the settings name or that has used anything, and on each of its
    /// models with limits of their own, by name. Callers that share accounts are reported as one, `others`.
    pub fn snapshot(&self) -> Vec<CallerReport> {
        let (now, settings) = (Instant::now(), self.settings());
        let mut entries: Vec<_> =
            self.shared.shards.iter().flat_map(|shard| shard.lock().iter().cloned().collect::<Vec<_>>()).collect();
        let known: HashSet<_> = entries.iter().map(|entry| entry.caller.clone()).collect();
        let unused = settings.by_caller.keys().filter(|caller| !known.contains(&***caller));
        entries.extend(unused.map(|caller| Arc::new(CallerEntry::new(caller, now, self.shared.calendar))));
        entries.sort_unstable_by(|one, other| one.caller.cmp(&other.caller));
        let overflow = Some(self.shared.overflow.clone()).filter(|overflow| !overflow.is_forgettable(now));
        let quotas = entries.into_iter().map(|entry| (settings.quota(&entry.caller).clone(), entry));
        let all = quotas.chain(overflow.map(|overflow| (settings.others.clone(), overflow)));
        let reports = |(quota, entry): (Arc<CallerQuota>, Arc<CallerEntry>)| {
            let of_models = quota.models().map(|(model, quota)| (Some(model), quota));
            let all = [(None, &*quota)].into_iter().chain(of_models);
            all.map(|(model, quota)| entry.report(now, model, quota))
                .filter(CallerReport::has_limits)
                .collect::<Vec<_>>()
        };
        all.flat_map(reports).collect()
    }

    /// Returns the reports that become metrics: those on callers whom the settings name. Others can be anybody, and each would
    /// be a series of its own.
    pub(super) fn named(&self) -> impl Iterator<Item = CallerReport> {
        let settings = self.settings();
        self.snapshot().into_iter().filter(move |report| settings.by_caller.contains_key(&*report.caller))
    }

    pub(super) fn settings(&self) -> Arc<CallerSettings> {
        self.shared.settings.read().clone()
    }

    /// Returns the priority to which a call of this caller is lowered, and the settings by which it is counted, if it is.
    pub(super) fn rules(&self, caller: &str, model: &str) -> (Option<Priority>, Option<Arc<CallerSettings>>) {
        let settings = self.shared.settings.read();
        let quota = settings.quota(caller);
        let counts = quota.has_limits().then(|| settings.clone());
        (quota.priority_of(quota.of_model(model)), counts)
    }

    /// Returns the caller's entry, and makes one where there is none.
    pub(super) fn entry(&self, caller: &str, settings: &CallerSettings, now: Instant) -> Arc<CallerEntry> {
        let shared = &*self.shared;
        // The map inside has a hasher of its own, so that any bits of this hash will do.
        let mut shard = shared.shards[(shared.hasher.hash_one(caller) as usize) % SHARDS].lock();
        if let Some(entry) = shard.get(caller, "") {
            return entry.clone();
        }
        let is_named = settings.by_caller.contains_key(caller);
        shard.find_or_insert((caller, ""), is_named, now, |overflow| {
            // The calls of a caller may have been counted with those of others so far.
            let entry = CallerEntry::new(caller, now, shared.calendar);
            if let Some(overflow) = overflow {
                *entry.accounts.lock() = overflow.accounts.lock().continued();
            }
            entry
        })
    }

    fn callers(&self) -> usize {
        self.shared.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl CallerEntry {
    fn new(caller: &str, now: Instant, calendar: PacificCalendar) -> Self {
        let accounts = Mutex::new(CallerAccounts::new(now, calendar));
        Self { caller: caller.into(), calendar, accounts, is_overflow: false, scopes: OnceLock::new() }
    }

    pub(super) fn caller(&self) -> &Arc<str> {
        &self.caller
    }

    /// Returns the caller's scopes in a store.
    pub(super) fn scopes(&self) -> &CallerScopes {
        let named = || CallerScopes::new(Some(&*self.caller).filter(|_| !self.is_overflow));
        self.scopes.get_or_init(|| Box::new(named()))
    }

    /// Decides on a call, and charges it if it goes.
    pub(super) fn admit(
        &self,
        now: Instant,
        quota: &CallerQuota,
        model: &str,
        cost: CallerCost,
        is_proven: bool,
    ) -> CallerAdmission {
        self.accounts.lock().admit(now, self.calendar, quota, model, cost, is_proven)
    }

    /// Corrects a charge to the real cost.
    pub(super) fn settle(&self, charge: CallerCharge, cost: CallerCost) {
        self.accounts.lock().settle(Instant::now(), self.calendar, charge, cost);
    }

    fn report(&self, now: Instant, model: Option<&str>, quota: &CallerQuota) -> CallerReport {
        let mut accounts = self.accounts.lock();
        // A report opens no account.
        let mut unused = None;
        let account = match accounts.opened(model) {
            Some(account) => account,
            None => unused.insert(CallerAccount::new(now, self.calendar)),
        };
        account.catch_up(now, self.calendar);
        CallerReport {
            caller: self.caller.clone(),
            model: model.map(Into::into),
            dimensions: CallerDimension::ALL.map(|dimension| CallerDimensionReport {
                dimension,
                used: account.used(dimension),
                limit: quota.get(dimension),
                resets_in: account.resets_at(now, dimension).saturating_duration_since(now),
            }),
        }
    }
}

impl Scoped for CallerEntry {
    fn names(&self) -> (&str, &str) {
        (&self.caller, "")
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        self.accounts.lock().are_forgettable(now)
    }
}

impl Describe for CallerLimits {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.settings();
        match settings.by_caller.len() {
            0 => f.write_str("no caller is named; ")?,
            1 => f.write_str("limits of 1 caller; ")?,
            named => write!(f, "limits of {named} callers; ")?,
        }
        match settings.others.words() {
            words if words.is_empty() => f.write_str("no limits for others")?,
            words => write!(f, "{} for others", words.join(", "))?,
        }
        match settings.store {
            Some(_) => f.write_str("; shared through a store"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for CallerLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerLimits").field("settings", &self.settings()).field("callers", &self.callers()).finish()
    }
}

/// The settings of [`CallerLimits`], checked.
#[derive(Debug)]
pub(super) struct CallerSettings {
    others: Arc<CallerQuota>,
    by_caller: HashMap<Box<str>, Arc<CallerQuota>>,
    pub(super) prices: Prices,
    pub(super) store: Option<Arc<dyn QuotaStore>>,
}

impl CallerSettings {
    /// Returns the quota of a caller.
    pub(super) fn quota(&self, caller: &str) -> &Arc<CallerQuota> {
        self.by_caller.get(caller).unwrap_or(&self.others)
    }
}

/// Settings of [`CallerLimits`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CallerLimitsBuilder {
    others: CallerQuota,
    by_caller: HashMap<Box<str>, CallerQuota>,
    prices: Prices,
    store: Option<Arc<dyn QuotaStore>>,
}

impl CallerLimitsBuilder {
    /// Sets the quota of each caller that has none of its own. Default: no limits.
    pub fn others(mut self, quota: CallerQuota) -> Self {
        self.others = quota;
        self
    }

    /// Sets the quota of one caller, in place of that of others.
    pub fn caller(mut self, caller: impl Into<Box<str>>, quota: CallerQuota) -> Self {
        self.by_caller.insert(caller.into(), quota);
        self
    }

    /// Sets the prices by which money is counted. Default: none.
    pub fn prices(mut self, prices: Prices) -> Self {
        self.prices = prices;
        self
    }

    /// Sets the store that counts callers for other instances, too. A call that is within its caller's limits here asks it,
    /// and is refused where others have used the rest; see [Several processes](super#several-processes). Default: none.
    pub fn store(mut self, store: impl QuotaStore + 'static) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Makes the handle. Reads wall time once, for midnight Pacific.
    ///
    /// # Errors
    ///
    /// A limit of money without prices, or without a price of a model that the same quota names; a quota of a model that has
    /// models of its own.
    pub fn build(self) -> Result<CallerLimits, ConfigError> {
        let settings = RwLock::new(Arc::new(self.check()?));
        let calendar = PacificCalendar::read();
        let overflow = CallerEntry { is_overflow: true, ..CallerEntry::new(OTHERS, Instant::now(), calendar) };
        let overflow = Arc::new(overflow);
        let shards = array::from_fn(|_| Mutex::new(ByScope::new(MAX_CALLERS / SHARDS, overflow.clone())));
        let hasher = RandomState::new();
        Ok(CallerLimits { shared: Arc::new(Shared { settings, calendar, hasher, shards, overflow }) })
    }

    fn check(self) -> Result<CallerSettings, ConfigError> {
        let mut named: Vec<_> =
            self.by_caller.iter().map(|(caller, quota)| (format!("caller {caller}"), quota)).collect();
        named.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        named.insert(0, ("every other caller".to_owned(), &self.others));
        named.into_iter().try_for_each(|(whose, quota)| check_quota(&whose, quota, &self.prices))?;
        let shared = |(caller, quota)| (caller, Arc::new(quota));
        let by_caller = self.by_caller.into_iter().map(shared).collect();
        Ok(CallerSettings { others: Arc::new(self.others), by_caller, prices: self.prices, store: self.store })
    }
}

/// Refuses a quota that could not be counted.
fn check_quota(whose: &str, quota: &CallerQuota, prices: &Prices) -> Result<(), ConfigError> {
    let words = |quota: &CallerQuota| quota.words().join(", ");
    if quota.limits_money() && prices.is_empty() {
        let message = format!(
            "the limit for {whose} is {}, and there are no prices: nothing would ever be counted; give prices of the models \
             that are used",
            words(quota)
        );
        return Err(ConfigError::new(message));
    }
    for (model, of_model) in quota.models() {
        if of_model.models().next().is_some() {
            let message =
                format!("the limits for {whose} and model {model} have limits for a model in them; give them beside");
            return Err(ConfigError::new(message));
        }
        if (quota.limits_money() || of_model.limits_money()) && prices.price(model).is_none() {
            let limits = if of_model.limits_money() { of_model } else { quota };
            let message = format!(
                "the limit for {whose} is {}, and there is no price of {model}: it would be charged as the dearest model is; \
                 give its price",
                words(limits)
            );
            return Err(ConfigError::new(message));
        }
    }
    Ok(())
}

/// The usage of a caller at a moment, from [`CallerLimits::snapshot`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallerReport {
    /// The caller.
    pub caller: Arc<str>,
    /// The model whose calls are counted. `None`: all calls.
    pub model: Option<Box<str>>,
    /// All dimensions, in the order of [`CallerDimension::ALL`].
    pub dimensions: [CallerDimensionReport; 6],
}

impl CallerReport {
    fn has_limits(&self) -> bool {
        self.dimensions.iter().any(|dimension| dimension.limit.is_some())
    }
}

/// The usage of a caller in one dimension at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallerDimensionReport {
    /// The dimension.
    pub dimension: CallerDimension,
    /// The usage that currently counts.
    pub used: CallerAmount,
    /// The limit, if there is one.
    pub limit: Option<CallerAmount>,
    /// The time until the usage falls: of a minute that of the oldest request, else to the end of the day or the month.
    pub resets_in: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_opens_no_account() {
        let of_model = CallerQuota::new().requests_per_day(1);
        let quota = CallerQuota::new().limits_for_model("m", of_model);
        let limits = CallerLimits::builder().others(quota).build().unwrap();
        let (now, settings) = (Instant::now(), limits.settings());
        let entry = limits.entry("app", &settings, now);
        let [report] = &limits.snapshot()[..] else { panic!() };
        assert_eq!((report.model.as_deref(), report.dimensions[2].used), (Some("m"), CallerAmount::Count(0)));
        assert!(entry.accounts.lock().opened(Some("m")).is_none());
        let cost = CallerCost { requests: 1, ..CallerCost::default() };
        assert!(matches!(entry.admit(now, settings.quota("app"), "m", cost, false), CallerAdmission::Charged { .. }));
        assert!(entry.accounts.lock().opened(Some("m")).is_some());
        assert_eq!(limits.snapshot()[0].dimensions[2].used, CallerAmount::Count(1));
    }
}
