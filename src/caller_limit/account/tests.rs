//! The account against a plain list of all charges that were ever made.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::quota::{until_pacific_midnight, until_pacific_month_end};

#[derive(Clone, Debug)]
enum AccountStep {
    /// Seconds.
    Wait(u64),
    Ask(CallerCost, bool),
    /// The charge of that number turns out to cost this.
    Settle(usize, CallerCost),
    /// It is given back.
    Refund(usize),
}

/// A charge of the plain model.
struct PlainCharge {
    at: Instant,
    day_end: Instant,
    month_end: Instant,
    charge: AccountCharge,
    cost: CallerCost,
}

fn costs() -> impl Strategy<Value = CallerCost> {
    (1u64..3, 0u64..60, 0u64..60, 0u64..60).prop_map(|(requests, input, output, money)| CallerCost {
        requests,
        input,
        output,
        money: Money::cents(money),
    })
}

fn steps() -> impl Strategy<Value = Vec<AccountStep>> {
    let step = prop_oneof![
        3 => (0u64..40).prop_map(AccountStep::Wait),
        1 => (0u64..90_000).prop_map(AccountStep::Wait),
        1 => (0u64..40).prop_map(|days| AccountStep::Wait(days * 86_400)),
        9 => (costs(), any::<bool>()).prop_map(|(cost, proven)| AccountStep::Ask(cost, proven)),
        3 => (0usize..60, costs()).prop_map(|(nth, cost)| AccountStep::Settle(nth, cost)),
        1 => (0usize..60).prop_map(AccountStep::Refund),
    ];
    proptest::collection::vec(step, 1..120)
}

fn quotas() -> impl Strategy<Value = CallerQuota> {
    let some = |most: u64| prop::option::of(1..most);
    (some(8), some(150), some(20), some(600), some(400), some(1_500)).prop_map(
        |(minute, tokens, day, in_all, money, month)| {
            let quota = CallerQuota::new();
            let quota = minute.map_or(quota.clone(), |limit| quota.requests_per_minute(limit));
            let quota = tokens.map_or(quota.clone(), |limit| quota.input_tokens_per_minute(limit));
            let quota = day.map_or(quota.clone(), |limit| quota.requests_per_day(limit));
            let quota = in_all.map_or(quota.clone(), |limit| quota.tokens_per_day(limit));
            let quota = money.map_or(quota.clone(), |limit| quota.money_per_day(Money::cents(limit)));
            month.map_or(quota.clone(), |limit| quota.money_per_month(Money::cents(limit)))
        },
    )
}

/// Adds up what counts at `now`.
fn plain_use(all: &[PlainCharge], now: Instant, dimension: CallerDimension) -> CallerAmount {
    let counts = |charge: &&PlainCharge| match dimension {
        CallerDimension::RequestsPerMinute | CallerDimension::InputTokensPerMinute => {
            charge.at + Duration::from_secs(60) > now
        }
        CallerDimension::MoneyPerMonth => charge.month_end > now,
        _ => charge.day_end > now,
    };
    let zero = CallerCost::default().of(dimension);
    all.iter().filter(counts).fold(zero, |sum, charge| sum.plus(charge.cost.of(dimension)))
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

/// A fixed wall time: 2026-10-20 17:00 UTC. The days and months after it have a change of the clocks among them.
fn begun() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_792_515_600)
}

proptest! {
    #[test]
    fn it_counts_as_a_plain_list_of_charges_does(steps in steps(), quota in quotas()) {
        paused(async {
            let began = Instant::now();
            let calendar = PacificCalendar::new(begun(), began);
            let mut now = began;
            let mut account = CallerAccount::new(now, calendar);
            let mut all: Vec<PlainCharge> = Vec::new();
            for step in steps {
                match step {
                    AccountStep::Wait(seconds) => now += Duration::from_secs(seconds),
                    AccountStep::Ask(cost, is_proven) => {
                        let used = CallerDimension::ALL.map(|dimension| plain_use(&all, now, dimension));
                        let short = account.shortage(now, calendar, &quota, cost, is_proven);
                        for (dimension, used) in CallerDimension::ALL.into_iter().zip(used) {
                            assert_eq!(account.used(dimension), used, "{dimension}");
                        }
                        let fits = |dimension: CallerDimension, used: CallerAmount| quota.get(dimension).is_none_or(|limit| {
                            let needs = cost.of(dimension);
                            let is_exact = matches!(dimension, CallerDimension::RequestsPerMinute | CallerDimension::RequestsPerDay);
                            let is_proven = is_proven && !dimension.is_money();
                            used.plus(needs.min(limit)) <= limit && (needs <= limit || !is_proven && !is_exact)
                        });
                        let all_fit = CallerDimension::ALL.into_iter().zip(used).all(|(dimension, used)| fits(dimension, used));
                        assert_eq!(short.is_none(), all_fit, "{short:?}");
                        match short {
                            None => {
                                let wall = begun() + (now - began);
                                let charge = account.charge(now, calendar, cost);
                                let (day_end, month_end) = (now + until_pacific_midnight(wall), now + until_pacific_month_end(wall));
                                all.push(PlainCharge { at: now, day_end, month_end, charge, cost });
                            }
                            Some(CallerShortage { at: None, needs, limit, .. }) => assert!(needs > limit),
                            // At the time that was named, it fits.
                            Some(CallerShortage { at: Some(at), .. }) => {
                                assert!(at > now);
                                let mut later = account.clone();
                                assert_eq!(later.shortage(at, calendar, &quota, cost, is_proven), None, "{short:?}");
                                // And not a second before, in that dimension.
                                let before = at - Duration::from_secs(1);
                                let earlier = account.clone().shortage(before.max(now), calendar, &quota, cost, is_proven);
                                assert!(earlier.is_some());
                            }
                        }
                    }
                    AccountStep::Settle(nth, _) | AccountStep::Refund(nth) => {
                        let Some(nth) = nth.checked_rem(all.len()) else { continue };
                        let after = match step {
                            AccountStep::Settle(_, cost) => cost,
                            _ => CallerCost::default(),
                        };
                        account.settle(now, calendar, all[nth].charge, all[nth].cost, after);
                        all[nth].cost = after;
                    }
                }
            }
            let used = |account: &CallerAccount| CallerDimension::ALL.map(|dimension| account.used(dimension));
            account.catch_up(now, calendar);
            let is_unused = used(&account) == used(&CallerAccount::new(now, calendar));
            assert!(is_unused || !account.is_forgettable(now));
            now += Duration::from_secs(32 * 86_400);
            assert!(account.is_forgettable(now));
            account.catch_up(now, calendar);
            assert_eq!(used(&account), used(&CallerAccount::new(now, calendar)));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_elsewhere_raises_a_day_and_a_month_and_never_lowers_them() {
    let now = Instant::now();
    let calendar = PacificCalendar::new(begun(), now);
    let mut account = CallerAccount::new(now, calendar);
    let cost = CallerCost { requests: 2, input: 10, output: 5, money: Money::cents(3) };
    account.charge(now, calendar, cost);
    for dimension in CallerDimension::ALL {
        let (less, more) = match dimension.is_money() {
            true => (CallerAmount::Money(Money::cents(1)), CallerAmount::Money(Money::cents(9))),
            false => (CallerAmount::Count(1), CallerAmount::Count(90)),
        };
        account.raise(now, calendar, dimension, less);
        assert_eq!(account.used(dimension), cost.of(dimension), "{dimension}");
        account.raise(now, calendar, dimension, more);
        let is_minute = matches!(dimension, CallerDimension::RequestsPerMinute | CallerDimension::InputTokensPerMinute);
        assert_eq!(account.used(dimension), if is_minute { cost.of(dimension) } else { more }, "{dimension}");
        // An amount of the other kind says nothing.
        let other =
            if dimension.is_money() { CallerAmount::Count(1_000) } else { CallerAmount::Money(Money::dollars(1_000)) };
        account.raise(now, calendar, dimension, other);
        assert!(account.used(dimension) <= more);
    }
}
