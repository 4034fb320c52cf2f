//! The store in memory against the plain model that every store has to match.

#[path = "support/store_model.rs"]
mod store_model;

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, advance};
use tower_gemini::quota::{
    Answer, Closing, Correction, Dimension, Grant, Limits, MemoryStore, Question, QuotaStore, Reply, Scope,
};

use crate::store_model::{PausedClock, StoreModel, store_steps};

/// The longest time for which a charge counts here: the minute, its slack, and the quarter of a second that shares an
/// entry.
const COUNTS_MOST: Duration = Duration::from_millis(60_500);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn scope() -> Scope {
    Scope::new("p1", "gemini-2.5-pro")
}

fn take(store: &MemoryStore, question: Question) -> Answer {
    match store.take(&scope(), question) {
        Reply::Now(answer) => answer,
        reply => panic!("{reply:?}"),
    }
}

fn granted(store: &MemoryStore, question: Question) -> Grant {
    match take(store, question) {
        Answer::Granted(grant) => grant,
        answer => panic!("{answer:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn four_limiters_in_any_order_match_the_plain_model(
        steps in store_steps(90_000, 200),
        rpm in proptest::option::of(4u64..12),
        tpm in proptest::option::of(60u64..250),
        rpd in proptest::option::of(10u64..60),
    ) {
        let mut limits = Limits::new();
        if let Some(rpm) = rpm { limits = limits.requests_per_minute(rpm); }
        if let Some(tpm) = tpm { limits = limits.input_tokens_per_minute(tpm); }
        if let Some(rpd) = rpd { limits = limits.requests_per_day(rpd); }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let stores: Vec<MemoryStore> = vec![MemoryStore::new(); 4];
            let stores: Vec<&dyn QuotaStore> = stores.iter().map(|store| store as &dyn QuotaStore).collect();
            let clock = PausedClock(Instant::now());
            let mut model = StoreModel::new(&stores, scope(), limits, COUNTS_MOST, Duration::ZERO, clock);
            for step in steps {
                model.step(step).await;
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_dimension_that_fits_last() {
    let store = MemoryStore::new();
    let limits = Limits::new().requests_per_minute(2).input_tokens_per_minute(100);
    granted(&store, Question::new(1, 90).limits(limits));
    advance(secs(10)).await;
    granted(&store, Question::new(1, 0).limits(limits));
    let full = |wait, dimension| Answer::Full { dimension: Some(dimension), wait };
    let window = Duration::from_millis(60_250);
    let minute = full(window - secs(10), Dimension::RequestsPerMinute);
    assert_eq!(take(&store, Question::new(1, 5).limits(limits)), minute);
    // Requests and tokens fit at the same time, and two requests ten seconds later.
    assert_eq!(take(&store, Question::new(2, 20).limits(limits)), full(window, Dimension::RequestsPerMinute));
    let tokens = Limits::new().input_tokens_per_minute(100);
    assert_eq!(
        take(&store, Question::new(1, 20).limits(tokens)),
        full(window - secs(10), Dimension::InputTokensPerMinute)
    );
    let Answer::Full { dimension, wait } = take(&store, Question::new(1, 0).limits(Limits::new().requests_per_day(2)))
    else {
        panic!("the day is used up")
    };
    assert!(dimension == Some(Dimension::RequestsPerDay) && wait <= secs(25 * 3_600), "{wait:?}");
    // A limit of zero never opens.
    let Answer::Full { wait, .. } = take(&store, Question::new(1, 0).limits(Limits::new().requests_per_minute(0)))
    else {
        panic!("nothing is allowed")
    };
    assert!(wait > Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_correction_gives_back_no_more_than_was_charged_and_nothing_once_it_is_gone() {
    let store = MemoryStore::new();
    let first = granted(&store, Question::new(1, 10));
    store.correct(&scope(), first.charge, Correction::refund(9, 99));
    let second = granted(&store, Question::new(2, 20));
    assert_eq!((second.requests, second.tokens), (2, 20));
    advance(secs(61)).await;
    granted(&store, Question::new(1, 5));
    store.correct(&scope(), second.charge, Correction::refund(2, 20));
    store.correct(&scope(), tower_gemini::quota::StoreCharge(u64::MAX, 7), Correction::refund(2, 20));
    let last = granted(&store, Question::new(1, 5));
    assert_eq!((last.requests, last.tokens), (2, 10));
}

#[tokio::test(start_paused = true)]
async fn a_new_day_begins_with_nothing_and_takes_no_refund_of_the_last() {
    let store = MemoryStore::new();
    let limits = Limits::new().requests_per_day(2);
    let old = granted(&store, Question::new(2, 0).limits(limits));
    let Answer::Full { wait, .. } = take(&store, Question::new(1, 0).limits(limits)) else { panic!() };
    advance(wait).await;
    assert_eq!(granted(&store, Question::new(1, 0).limits(limits)).today, 1);
    store.correct(&scope(), old.charge, Correction::refund(2, 0));
    assert_eq!(granted(&store, Question::new(1, 0).limits(limits)).today, 2);
}

#[tokio::test(start_paused = true)]
async fn of_those_that_ask_a_closed_scope_one_looks_in_each_half_minute() {
    let store = MemoryStore::new();
    store.close(&scope(), Closing::of(secs(3_600)).look(secs(15)));
    // A late refusal does not bring the look forward.
    store.close(&scope(), Closing::of(secs(5)));
    let mut looks = Vec::new();
    for second in 0..100u64 {
        if let Answer::Granted(grant) = take(&store, Question::new(1, 0)) {
            assert!(grant.is_look);
            looks.push(second);
        }
        advance(secs(1)).await;
    }
    assert_eq!(looks, [15, 45, 75]);
    store.open(&scope());
    assert!(!granted(&store, Question::new(1, 0)).is_look);
    // Without a look it ends by itself.
    store.close(&scope(), Closing::of(secs(5)));
    assert_eq!(take(&store, Question::new(1, 0)), Answer::Closed(Closing::of(secs(5))));
    advance(secs(5)).await;
    assert!(!granted(&store, Question::new(1, 0)).is_look);
}

#[tokio::test(start_paused = true)]
async fn invented_scopes_share_one_account_and_take_nothing_of_the_known() {
    let store = MemoryStore::new();
    let limits = Limits::new().requests_per_minute(1);
    granted(&store, Question::new(1, 0).limits(limits));
    let ask = |nth: usize| match store.take(&Scope::new("p1", format!("m{nth}")), Question::new(1, 0).limits(limits)) {
        Reply::Now(answer) => matches!(answer, Answer::Granted(_)),
        reply => panic!("{reply:?}"),
    };
    let served = (0..20_000).filter(|nth| ask(*nth)).count();
    assert_eq!(served, 16_384);
    assert!(matches!(take(&store, Question::new(1, 0).limits(limits)), Answer::Full { .. }));
    // Once nothing counts any more, there is room again.
    advance(secs(61)).await;
    assert!(ask(30_000));
}
