//! The limits of one caller, and the choice of what becomes of a call that is past them.

use super::dimension::{CallerAmount, CallerDimension};
use crate::{context::Priority, prices::Money};

/// The limits of a caller. What is not set is not limited.
///
/// ```
/// use tower_gemini::{caller_limit::{CallerDimension, CallerQuota, PastLimit}, prices::Money};
///
/// let quota = CallerQuota::new()
///     .requests_per_minute(30)
///     .money_per_month(Money::dollars(20))
///     .limits_for_model("gemini-2.5-pro", CallerQuota::new().requests_per_day(100).past(PastLimit::LowestPriority));
/// assert_eq!(quota.get(CallerDimension::RequestsPerMinute).unwrap().to_string(), "30");
/// assert_eq!(quota.get(CallerDimension::RequestsPerDay), None, "only of one model");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct CallerQuota {
    limits: [Option<CallerAmount>; 6],
    models: Vec<(Box<str>, CallerQuota)>,
    past: PastLimit,
    priority: Option<Priority>,
}

impl CallerQuota {
    /// Creates a quota that limits nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the requests in any 60 seconds. 0 allows none.
    pub fn requests_per_minute(self, limit: u64) -> Self {
        self.with(CallerDimension::RequestsPerMinute, CallerAmount::Count(limit))
    }

    /// Limits the input tokens in any 60 seconds. 0 allows none.
    pub fn input_tokens_per_minute(self, limit: u64) -> Self {
        self.with(CallerDimension::InputTokensPerMinute, CallerAmount::Count(limit))
    }

    /// Limits the requests until midnight Pacific. 0 allows none.
    pub fn requests_per_day(self, limit: u64) -> Self {
        self.with(CallerDimension::RequestsPerDay, CallerAmount::Count(limit))
    }

    /// Limits the input and output tokens until midnight Pacific, thoughts included. 0 allows none.
    pub fn tokens_per_day(self, limit: u64) -> Self {
        self.with(CallerDimension::TokensPerDay, CallerAmount::Count(limit))
    }

    /// Limits the money until midnight Pacific, by [`prices`](super::CallerLimitsBuilder::prices).
    pub fn money_per_day(self, limit: Money) -> Self {
        self.with(CallerDimension::MoneyPerDay, CallerAmount::Money(limit))
    }

    /// Limits the money until the first midnight Pacific of the next month, by
    /// [`prices`](super::CallerLimitsBuilder::prices).
    pub fn money_per_month(self, limit: Money) -> Self {
        self.with(CallerDimension::MoneyPerMonth, CallerAmount::Money(limit))
    }

    /// Sets limits for the calls of one model. They hold besides those of the caller: a call has to be within both.
    pub fn limits_for_model(mut self, model: impl Into<Box<str>>, quota: Self) -> Self {
        let model = model.into();
        self.models.retain(|(known, _)| *known != model);
        self.models.push((model, quota));
        self
    }

    /// Sets what becomes of a call that is past a limit. Default: [`PastLimit::Refuse`].
    pub fn past(mut self, past: PastLimit) -> Self {
        self.past = past;
        self
    }

    /// Lowers the priority of all calls to this one. A lower one that a server has set stays.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Returns the limit of one dimension.
    #[must_use]
    pub fn get(&self, dimension: CallerDimension) -> Option<CallerAmount> {
        self.limits[dimension as usize]
    }

    fn with(mut self, dimension: CallerDimension, limit: CallerAmount) -> Self {
        self.limits[dimension as usize] = Some(limit);
        self
    }

    /// Returns what becomes of a call that is past a limit.
    pub(super) fn choice(&self) -> PastLimit {
        self.past
    }

    /// Returns the quota of a model, if it has one of its own.
    pub(super) fn of_model(&self, model: &str) -> Option<&Self> {
        self.models.iter().find(|(known, _)| **known == *model).map(|(_, quota)| quota)
    }

    /// Returns the models that have limits of their own.
    pub(super) fn models(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.models.iter().map(|(model, quota)| (&**model, quota))
    }

    /// Returns the priority to which the calls of a model are lowered: the lower one of the caller's and the model's.
    pub(super) fn priority_of(&self, model: Option<&Self>) -> Option<Priority> {
        self.priority.max(model.and_then(|model| model.priority))
    }

    /// Returns whether anything is limited.
    pub(super) fn has_limits(&self) -> bool {
        self.limits.iter().any(Option::is_some) || self.models.iter().any(|(_, quota)| quota.has_limits())
    }

    /// Returns whether a limit that holds for the calls of a model counts tokens, or the money that they cost.
    pub(super) fn depends_on_tokens(&self, model: &str) -> bool {
        let depends = |quota: &Self| {
            let mut limited = CallerDimension::ALL.into_iter().filter(|dimension| quota.get(*dimension).is_some());
            limited.any(|dimension| !dimension.is_of_requests())
        };
        depends(self) || self.of_model(model).is_some_and(depends)
    }

    /// Returns whether money is limited, apart from limits for one model.
    pub(super) fn limits_money(&self) -> bool {
        CallerDimension::ALL.into_iter().any(|dimension| dimension.is_money() && self.get(dimension).is_some())
    }

    /// Returns the limits in words, in the order of the dimensions.
    pub(super) fn words(&self) -> Vec<String> {
        let limits = CallerDimension::ALL.into_iter().zip(self.limits);
        limits.filter_map(|(dimension, limit)| Some(dimension.with_unit(limit?))).collect()
    }
}

/// The choice of what becomes of a call that is past a limit of its caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PastLimit {
    /// It is refused with 429, and with the wait that it would need.
    #[default]
    Refuse,
    /// It goes on with the lowest priority: it takes its turn after those of all others.
    LowestPriority,
}
