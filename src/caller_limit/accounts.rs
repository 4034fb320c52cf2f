//! The accounts of one caller: that of all its calls, and one for each model that has limits of its own. A call is within
//! all of its limits or charged to none. Pure: the caller of these functions passes the time.

use tokio::time::Instant;

use super::{
    account::{AccountCharge, CallerAccount, CallerCost, CallerShortage},
    quota::{CallerQuota, PastLimit},
};
use crate::quota::PacificCalendar;

/// The accounts of one caller.
#[derive(Clone, Debug)]
pub(super) struct CallerAccounts {
    all: CallerAccount,
    /// Those of models, by their names. None is ever taken out, so that a charge finds its own by its place; there are no
    /// more than the settings have named.
    models: Vec<(Box<str>, CallerAccount)>,
}

/// The charges of a call on the accounts of its caller, and the cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallerCharge {
    cost: CallerCost,
    all: AccountCharge,
    model: Option<(usize, AccountCharge)>,
}

/// The decision on a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallerAdmission {
    /// It goes. `past`: past limits, with the lowest priority.
    Charged { charge: CallerCharge, past: PastLimits },
    /// It is past a limit that refuses, of all calls or of those of its model; nothing is charged.
    Refused { shortage: CallerShortage, of_model: bool },
}

/// The limits that a call is past which goes on all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PastLimits {
    /// Those of its caller.
    pub(super) of_caller: bool,
    /// Those of its caller for its model.
    pub(super) of_model: bool,
}

impl PastLimits {
    /// Returns whether it is past any.
    pub(super) fn any(self) -> bool {
        self.of_caller || self.of_model
    }
}

impl CallerAccounts {
    /// Opens accounts on which nothing is charged.
    pub(super) fn new(now: Instant, calendar: PacificCalendar) -> Self {
        Self { all: CallerAccount::new(now, calendar), models: Vec::new() }
    }

    /// Returns accounts that go on from the usage of these.
    pub(super) fn continued(&self) -> Self {
        let models = self.models.iter().map(|(model, account)| (model.clone(), account.continued())).collect();
        Self { all: self.all.continued(), models }
    }

    /// Decides on a call of a model, and charges it if it goes.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        calendar: PacificCalendar,
        quota: &CallerQuota,
        model: &str,
        cost: CallerCost,
        is_proven: bool,
    ) -> CallerAdmission {
        let of_model = quota.of_model(model).filter(|quota| quota.has_limits());
        let place = of_model.map(|_| self.place(model, now, calendar));
        let short = self.all.shortage(now, calendar, quota, cost, is_proven);
        let short_of_model = of_model.zip(place).and_then(|(quota, place)| {
            let shortage = self.models[place].1.shortage(now, calendar, quota, cost, is_proven)?;
            Some((shortage, quota.choice()))
        });
        let past = PastLimits { of_caller: short.is_some(), of_model: short_of_model.is_some() };
        let refused = short.filter(|_| quota.choice() == PastLimit::Refuse);
        let refused_of_model = short_of_model.filter(|(_, choice)| *choice == PastLimit::Refuse);
        match (refused, refused_of_model) {
            (None, None) => {
                let all = self.all.charge(now, calendar, cost);
                let model = place.map(|place| (place, self.models[place].1.charge(now, calendar, cost)));
                CallerAdmission::Charged { charge: CallerCharge { cost, all, model }, past }
            }
            (Some(shortage), None) => CallerAdmission::Refused { shortage, of_model: false },
            (None, Some((shortage, _))) => CallerAdmission::Refused { shortage, of_model: true },
            // The one that lasts longer; what will never fit lasts longest.
            (Some(one), Some((other, _))) => match (one.at, other.at) {
                (Some(_), None) => CallerAdmission::Refused { shortage: other, of_model: true },
                (Some(at), Some(later)) if later > at => CallerAdmission::Refused { shortage: other, of_model: true },
                _ => CallerAdmission::Refused { shortage: one, of_model: false },
            },
        }
    }

    /// Corrects a charge to the real cost.
    pub(super) fn settle(&mut self, now: Instant, calendar: PacificCalendar, charge: CallerCharge, cost: CallerCost) {
        self.all.settle(now, calendar, charge.all, charge.cost, cost);
        if let Some((place, of_model)) = charge.model {
            self.models[place].1.settle(now, calendar, of_model, charge.cost, cost);
        }
    }

    /// Returns the account of all calls, or that of a model, which is opened where there is none.
    pub(super) fn account(
        &mut self,
        model: Option<&str>,
        now: Instant,
        calendar: PacificCalendar,
    ) -> &mut CallerAccount {
        let Some(model) = model else { return &mut self.all };
        let place = self.place(model, now, calendar);
        &mut self.models[place].1
    }

    /// Iterates over the accounts that have been opened, that of all calls first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Option<&str>, &mut CallerAccount)> {
        let models = self.models.iter_mut().map(|(model, account)| (Some(&**model), account));
        [(None, &mut self.all)].into_iter().chain(models)
    }

    /// Returns the account of all calls, or that of a model, if it has been opened.
    pub(super) fn opened(&mut self, model: Option<&str>) -> Option<&mut CallerAccount> {
        match model {
            None => Some(&mut self.all),
            Some(model) => self.models.iter_mut().find(|(known, _)| **known == *model).map(|(_, account)| account),
        }
    }

    /// Returns whether the accounts say no more than new ones.
    pub(super) fn are_forgettable(&mut self, now: Instant) -> bool {
        self.all.is_forgettable(now) && self.models.iter_mut().all(|(_, account)| account.is_forgettable(now))
    }

    /// Returns the place of a model's account.
    fn place(&mut self, model: &str, now: Instant, calendar: PacificCalendar) -> usize {
        self.models.iter().position(|(known, _)| **known == *model).unwrap_or_else(|| {
            self.models.push((model.into(), CallerAccount::new(now, calendar)));
            self.models.len() - 1
        })
    }
}

impl CallerCharge {
    /// Returns the cost that is charged.
    pub(super) fn cost(&self) -> CallerCost {
        self.cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller_limit::CallerDimension;

    const ONE: CallerCost = CallerCost { requests: 1, input: 10, output: 0, money: crate::prices::Money::ZERO };

    struct Plain {
        accounts: CallerAccounts,
        now: Instant,
        calendar: PacificCalendar,
    }

    impl Plain {
        fn new() -> Self {
            let (now, calendar) = (Instant::now(), PacificCalendar::read());
            Self { accounts: CallerAccounts::new(now, calendar), now, calendar }
        }

        fn admit(&mut self, quota: &CallerQuota, model: &str) -> CallerAdmission {
            self.accounts.admit(self.now, self.calendar, quota, model, ONE, true)
        }

        fn used(&mut self, model: Option<&str>) -> String {
            let account = self.accounts.account(model, self.now, self.calendar);
            account.used(CallerDimension::RequestsPerDay).to_string()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_charged_to_both_accounts_or_to_none() {
        let mut plain = Plain::new();
        let quota = CallerQuota::new()
            .requests_per_day(3)
            .limits_for_model("pro", CallerQuota::new().requests_per_day(1))
            .limits_for_model("idle", CallerQuota::new());
        let CallerAdmission::Charged { charge, past } = plain.admit(&quota, "pro") else { panic!() };
        assert!(!past.any());
        assert!(matches!(plain.admit(&quota, "pro"), CallerAdmission::Refused { of_model: true, .. }));
        for model in ["flash", "idle"] {
            assert!(matches!(plain.admit(&quota, model), CallerAdmission::Charged { .. }));
        }
        assert_eq!((plain.used(None), plain.used(Some("pro"))), ("3".into(), "1".into()));
        // Both are used up, and both last until midnight.
        assert!(matches!(plain.admit(&quota, "pro"), CallerAdmission::Refused { of_model: false, .. }));
        plain.accounts.settle(plain.now, plain.calendar, charge, CallerCost::default());
        assert_eq!((plain.used(None), plain.used(Some("pro"))), ("2".into(), "0".into()));
        assert!(matches!(plain.admit(&quota, "pro"), CallerAdmission::Charged { .. }));
        // Only what is limited has an account.
        assert_eq!(plain.accounts.models.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn each_quota_has_its_own_choice() {
        let past = |past| CallerQuota::new().requests_per_day(1).past(past);
        for (all, of_model, refuses) in [
            (PastLimit::Refuse, PastLimit::LowestPriority, true),
            (PastLimit::LowestPriority, PastLimit::Refuse, true),
            (PastLimit::LowestPriority, PastLimit::LowestPriority, false),
        ] {
            let mut plain = Plain::new();
            let quota = past(all).limits_for_model("pro", past(of_model));
            plain.admit(&quota, "pro");
            match plain.admit(&quota, "pro") {
                CallerAdmission::Refused { .. } => assert!(refuses),
                CallerAdmission::Charged { past, .. } => assert!(past.any() && !refuses),
            }
            let used = if refuses { "1" } else { "2" };
            assert_eq!(plain.used(None), used, "what goes on past a limit is counted");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_limits_the_one_that_lasts_longer_is_named() {
        let minute = || CallerQuota::new().requests_per_minute(1);
        let never = || CallerQuota::new().input_tokens_per_minute(5);
        let day = || CallerQuota::new().requests_per_day(1);
        for (all, of_model, expected) in
            [(minute(), day(), true), (day(), minute(), false), (day(), never(), true), (never(), day(), false)]
        {
            let mut plain = Plain::new();
            let _ = plain.accounts.all.charge(plain.now, plain.calendar, ONE);
            plain.accounts.account(Some("pro"), plain.now, plain.calendar).charge(plain.now, plain.calendar, ONE);
            let quota = all.limits_for_model("pro", of_model);
            let CallerAdmission::Refused { of_model, .. } = plain.admit(&quota, "pro") else { panic!("{quota:?}") };
            assert_eq!(of_model, expected, "{quota:?}");
        }
    }
}
