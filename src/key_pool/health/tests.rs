//! Tests of the health of keys.

use proptest::prelude::*;

use super::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An event in the life of a key.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A call asks for the key.
    Call,
    Success,
    Strike,
    Leaked,
    Dropped,
    DisableByHand,
    Enable,
    Look(CheckResult),
    Wait(u64),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Call),
        3 => Just(Event::Success),
        5 => Just(Event::Strike),
        1 => Just(Event::Leaked),
        2 => Just(Event::Dropped),
        1 => Just(Event::DisableByHand),
        1 => Just(Event::Enable),
        3 => prop_oneof![Just(CheckResult::Good), Just(CheckResult::Refused), Just(CheckResult::Unclear)].prop_map(Event::Look),
        2 => (1u64..100_000).prop_map(Event::Wait),
        2 => (1u64..40).prop_map(Event::Wait),
    ]
}

/// A second implementation, in plain words.
#[derive(Default)]
struct Model {
    in_a_row: u32,
    answered: bool,
    out: Option<Out>,
    /// The calls under way, each with its trial and the time at which that began.
    under_way: Vec<Option<(TrialId, Instant)>>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Out {
    ByHand,
    Until { at: Instant, every: Duration },
}

proptest! {
    #[test]
    fn a_key_goes_and_returns_as_the_plain_model_says(events in proptest::collection::vec(events(), 1..120)) {
        let mut now = Instant::now();
        let (mut health, mut model) = (Health::default(), Model::default());
        for event in events {
            match event {
                Event::Wait(seconds) => now += secs(seconds),
                Event::Call => {
                    let tests = |trial: &&Option<(TrialId, Instant)>| trial.is_some_and(|(_, since)| now < since + secs(30));
                    let tested = model.under_way.iter().any(|trial| tests(&trial));
                    let expected = match (&model.out, model.in_a_row, model.answered, tested) {
                        (Some(_), ..) => Use::Disabled,
                        (None, 0, true, _) => Use::Free,
                        (None, _, _, false) => Use::OnTrial,
                        (None, 0, false, true) => Use::Shared,
                        (None, _, _, true) => Use::Busy,
                    };
                    prop_assert_eq!(health.usable(now), expected);
                    if matches!(expected, Use::Free | Use::OnTrial | Use::Shared) {
                        let begins = expected == Use::OnTrial;
                        model.under_way.push(begins.then(|| (health.begin_trial(now), now)));
                    }
                    prop_assert!(model.under_way.iter().filter(tests).count() <= 1);
                }
                Event::Success | Event::Strike | Event::Leaked | Event::Dropped => {
                    let Some(tests) = model.under_way.pop() else { continue };
                    match event {
                        Event::Success => {
                            health.succeeded();
                            (model.in_a_row, model.answered) = (0, true);
                        }
                        Event::Strike | Event::Leaked => {
                            let (kind, every) = match event {
                                Event::Strike => (Kind::AuthKeyInvalid, secs(60)),
                                _ => (Kind::KeyLeaked, secs(300)),
                            };
                            let is_disabled = health.refused(kind, kind == Kind::KeyLeaked, now);
                            if model.out.is_none() {
                                model.in_a_row += 1;
                                let goes = model.in_a_row == 3 || kind == Kind::KeyLeaked;
                                prop_assert_eq!(is_disabled, goes);
                                model.out = goes.then_some(Out::Until { at: now + every, every });
                            } else {
                                prop_assert!(!is_disabled, "it is reported once");
                            }
                        }
                        _ => {}
                    }
                    if let Some((id, _)) = tests {
                        health.end_trial(id);
                    }
                }
                Event::DisableByHand => {
                    health.disable_by_hand(now);
                    model.out = Some(Out::ByHand);
                }
                Event::Enable => {
                    health.enable();
                    (model.out, model.in_a_row, model.answered) = (None, 0, false);
                }
                Event::Look(found) => {
                    let due = match model.out {
                        Some(Out::Until { at, .. }) => Some(at),
                        _ => None,
                    };
                    prop_assert_eq!(health.check_at(), due);
                    let returns = health.checked(found, now);
                    prop_assert_eq!(returns, due.is_some() && found == CheckResult::Good);
                    if let Some(Out::Until { at, every }) = &mut model.out {
                        if found == CheckResult::Refused {
                            *every = (*every * 2).min(secs(21_600));
                        }
                        *at = now + *every;
                    }
                    if returns {
                        (model.out, model.in_a_row, model.answered) = (None, 0, true);
                    }
                }
            }
            prop_assert_eq!(health.disabled.is_some(), model.out.is_some());
        }
    }
}

proptest! {
    #[test]
    fn a_restored_key_is_used_as_the_old_one_would_have_been(
        events in proptest::collection::vec(events(), 0..60), down in 31u64..100_000,
    ) {
        let (mut now, shift) = (Instant::now(), secs(1 << 20));
        let mut old = Health::default();
        for event in events {
            match event {
                Event::Call if matches!(old.usable(now), Use::OnTrial) => drop(old.begin_trial(now)),
                Event::Call | Event::Dropped => {}
                Event::Success if old.disabled.is_none() => old.succeeded(),
                Event::Success => {}
                Event::Strike => drop(old.refused(Kind::AuthKeyInvalid, false, now)),
                Event::Leaked => drop(old.refused(Kind::KeyLeaked, true, now)),
                Event::DisableByHand => old.disable_by_hand(now),
                Event::Enable => old.enable(),
                Event::Look(result) => drop(old.checked(result, now)),
                Event::Wait(seconds) => now += secs(seconds),
            }
        }
        let kept = old.memory(TimeAnchor::new(500_000, now));
        // By then, each call that tested the key has been waited for.
        let then = now + secs(down) + shift;
        let mut new = Health::default();
        let reason = kept.and_then(|kept| new.restore(&kept, TimeAnchor::new(500_000 + down, then), then));
        prop_assert_eq!(reason, old.disabled.map(|disabled| disabled.reason));
        prop_assert_eq!(new.usable(then), old.usable(then - shift));
        prop_assert_eq!((new.is_settled(), new.strikes), (old.is_settled(), old.strikes));
        if let Some(disabled) = new.disabled {
            prop_assert_eq!(disabled.state(then), old.disabled.unwrap().state(then - shift));
            prop_assert_eq!(new.check_at().is_some(), old.check_at().is_some());
            let soon = then + FIRST_CHECK_WHEN_RESTORED..=then + FIRST_CHECK_WHEN_BANNED;
            prop_assert!(new.check_at().is_none_or(|at| soon.contains(&at)));
        }
    }
}

#[test]
fn a_broken_memory_disables_nothing_and_takes_no_key_that_is_known() {
    let (now, anchor) = (Instant::now(), TimeAnchor::new(1_000, Instant::now()));
    let disabled = |reason: &str, since| Some(DisabledMemory { reason: reason.into(), since });
    for reason in ["", "quota_day", "no such kind"] {
        let mut health = Health::default();
        let kept = HealthMemory { strikes: u32::MAX, proven: true, disabled: disabled(reason, u64::MAX) };
        assert_eq!((health.restore(&kept, anchor, now), health.strikes), (None, STRIKES - 1), "{reason}");
    }
    let kept = HealthMemory { strikes: 3, proven: true, disabled: disabled("key_leaked", u64::MAX) };
    let mut known = Health::default();
    known.succeeded();
    assert_eq!(known.restore(&kept, anchor, now), None);
    let mut new = Health::default();
    assert_eq!(new.restore(&kept, anchor, now), Some(DisabledReason::Refused(Kind::KeyLeaked)));
    assert_eq!(
        new.disabled.unwrap().state(now),
        KeyState::Disabled { reason: DisabledReason::Refused(Kind::KeyLeaked), since: Duration::ZERO }
    );
}
