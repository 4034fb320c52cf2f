//! Tests of blocks against a plain model.

use proptest::prelude::*;

use super::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn of(kind: Kind, hint: Option<u64>) -> Claim {
    let failure = Failure::local(kind, "");
    Claim::of(&hint.map_or(failure.clone(), |hint| failure.with_hint(secs(hint)))).unwrap()
}

/// Returns the times of the looks in seconds, if each is refused again, until the block ends or twelve have been made.
fn looks(claim: Claim, midnight: u64) -> Vec<u64> {
    let start = Instant::now();
    let midnight = start + secs(midnight);
    let mut now = start;
    let mut block = Block::new(claim, now, midnight);
    let mut times = Vec::new();
    while let Passage::Closed(at) = block.passage(now) {
        now = at;
        if block.passage(now) == Passage::Free || times.len() == 12 {
            break;
        }
        times.push((now - start).as_secs());
        let look = block.begin_look(now);
        block.end_look(look);
        block.refused(claim, now, midnight);
    }
    times
}

#[test]
fn each_kind_is_believed_as_far_as_it_can_last() {
    let day = 19 * 3_600;
    let left = |claim: Claim| {
        let now = Instant::now();
        (Block::new(claim, now, now + secs(day)).ends() - now).as_secs()
    };
    let quarter = |minutes: u64| (1..=12).map(|nth| nth * minutes * 60).collect::<Vec<_>>();
    for kind in [Kind::QuotaMinute, Kind::QuotaTokensMinute] {
        assert_eq!((left(of(kind, Some(26))), looks(of(kind, Some(26)), day)), (26, vec![]));
        assert_eq!(looks(of(kind, Some(1_000_000_000)), day), quarter(2));
    }
    assert_eq!((left(of(Kind::QuotaUnknown, Some(299))), looks(of(Kind::QuotaUnknown, Some(299)), day)), (299, vec![]));
    assert_eq!(looks(of(Kind::QuotaUnknown, Some(90_000)), day), quarter(5));
    // A day's quota: until midnight, whatever nobody says, and no longer than a day where somebody does.
    assert_eq!(left(of(Kind::QuotaDay, None)), day);
    assert_eq!(left(of(Kind::QuotaDay, Some(7_200))), 7_200);
    assert_eq!(left(of(Kind::QuotaDay, Some(604_800))), 25 * 3_600);
    let doubled = [15, 45, 105, 225, 465, 945, 1_905, 3_825, 7_425, 11_025, 14_625, 18_225];
    assert_eq!(looks(of(Kind::QuotaDay, None), day), doubled);
    assert_eq!(looks(of(Kind::QuotaGrounding, None), day), doubled);
    let half_past = quarter(60).into_iter().map(|at| at - 1_800).collect::<Vec<_>>();
    assert_eq!(looks(of(Kind::QuotaDay, None).confirmed(), day), half_past);
    for kind in [Kind::QuotaZero, Kind::ModelClosed] {
        assert_eq!((left(of(kind, None)), looks(of(kind, None), day)), (day, quarter(60)));
    }
    assert_eq!(looks(of(Kind::QuotaSpend, None), day), quarter(10));
    assert_eq!(looks(of(Kind::QuotaSpend, Some(60)), day)[..3], [60, 180, 420]);
    assert_eq!(looks(of(Kind::BillingRequired, None), day), quarter(60));
    assert_eq!(Claim::of(&Failure::local(Kind::Overloaded, "")), None);
}

#[test]
fn a_refusal_that_says_nothing_lasts_longer_each_time() {
    for (kind, last) in [(Kind::QuotaUnknown, [512, 1_024, 1_200, 1_200]), (Kind::QuotaMinute, [60; 4])] {
        let mut now = Instant::now();
        let claim = of(kind, None);
        let mut block = Block::new(claim, now, now);
        for expected in [1, 2, 4, 8, 16, 32].into_iter().chain([64, 128, 256].map(|step| step.min(last[3]))).chain(last)
        {
            assert_eq!(block.passage(now), Passage::Closed(now + secs(expected)));
            // Together is once.
            block.refused(claim, now, now);
            assert_eq!(block.passage(now), Passage::Closed(now + secs(expected)));
            now += secs(expected);
            assert_eq!(block.passage(now), Passage::Look);
            // The others wait for the look as long again, and not for long.
            let look = block.begin_look(now);
            assert_eq!(block.passage(now), Passage::Closed(now + secs(expected.min(30))));
            block.end_look(look);
            block.refused(claim, now, now);
        }
        // The last step is remembered for an hour, and a refusal after that is a new event.
        now = block.ends() + secs(3_599);
        assert_eq!(block.passage(now), Passage::Free);
        assert!(now < block.forgotten_at());
        block.refused(claim, now, now);
        assert_eq!(block.passage(now), Passage::Closed(now + secs(last[3])));
        now = block.ends() + secs(3_600);
        assert_eq!(block.forgotten_at(), now);
        block.refused(claim, now, now);
        assert_eq!(block.passage(now), Passage::Closed(now + secs(1)));
    }
}

#[test]
fn only_the_look_that_is_under_way_ends_a_block() {
    let now = Instant::now();
    let claim = of(Kind::QuotaDay, None);
    let midnight = now + secs(80_000);
    let mut block = Block::new(claim, now, midnight);
    let due = now + DOUBTED;
    let late = block.begin_look(due);
    assert_eq!(block.passage(due), Passage::Closed(due + LONGEST_LOOK));
    assert_eq!(block.closed_until(due), Some(midnight));
    let again = block.begin_look(due + LONGEST_LOOK);
    let now = due + LONGEST_LOOK;
    assert!(!block.ends_with(late, now) && block.ends_with(again, now));
    block.end_look(late);
    assert!(block.ends_with(again, now));
    block.end_look(again);
    block.refused(claim, now, midnight);
    assert!(!block.ends_with(again, now), "it is over");
}

#[test]
fn a_call_that_is_refused_late_neither_renews_the_block_nor_takes_the_look_from_the_one_that_looks() {
    let start = Instant::now();
    let midnight = start + secs(80_000);
    for (claim, due) in [(of(Kind::QuotaDay, None), 15), (of(Kind::QuotaUnknown, None), 1)] {
        let now = start + secs(due);
        let mut block = Block::new(claim, start, midnight);
        let look = block.begin_look(now);
        let before = block;
        block.refused(claim, now, midnight);
        assert_eq!(block, before);
        assert!(block.ends_with(look, now));
        // A claim of another sort that lasts longer is another matter.
        let mut block = Block::new(of(Kind::QuotaUnknown, None), start, midnight);
        let now = start + secs(1);
        let look = block.begin_look(now);
        block.refused(of(Kind::QuotaDay, None), now, midnight);
        assert_eq!(block.passage(now), Passage::Closed(now + DOUBTED));
        assert!(!block.ends_with(look, now));
    }
}

#[test]
fn any_answer_to_a_call_that_has_passed_ends_a_block_by_refusals_that_say_nothing() {
    let start = Instant::now();
    for (kind, ends) in [(Kind::QuotaUnknown, true), (Kind::QuotaMinute, true), (Kind::QuotaDay, false)] {
        let claim = of(kind, None);
        let mut block = Block::new(claim, start, start + secs(80_000));
        let now = start + secs(20);
        let passed = block.begin_look(now);
        block.end_look(passed);
        block.refused(claim, now, start + secs(80_000));
        assert_eq!(block.ends_with(passed, now), ends, "{kind:?}");
    }
}

#[test]
fn what_one_sort_of_quota_has_come_to_says_nothing_of_another() {
    let start = Instant::now();
    let midnight = start + secs(80_000);
    let bare = of(Kind::QuotaUnknown, None);
    for (first, hint) in [(Kind::QuotaMinute, 30), (Kind::QuotaDay, 5)] {
        // Both while the block is looked at, and after it has ended.
        for at in [start + secs(120), start + secs(hint) + secs(10)] {
            let mut block = Block::new(of(first, Some(hint)), start, midnight);
            block.refused(bare, at, midnight);
            assert_eq!(block.left(at), Some((secs(2), secs(1))), "{first:?}");
        }
    }
    let mut block = Block::new(of(Kind::QuotaMinute, Some(9_999)), start, midnight);
    block.refused(bare, start + secs(120), midnight);
    assert_eq!(block.passage(start + secs(120)), Passage::Closed(start + secs(121)));
    let mut block = Block::new(bare, start, midnight);
    for _ in 0..9 {
        let now = block.ends();
        block.refused(bare, now, midnight);
    }
    let now = block.ends();
    block.refused(of(Kind::QuotaDay, None), now, midnight);
    assert_eq!(block.passage(now), Passage::Closed(now + DOUBTED));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Refuse(usize),
    /// A call asks to pass.
    Ask,
    /// A look ends without a verdict.
    Drop(usize),
    Succeed(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..200).prop_map(Step::Wait),
        2 => (0u64..8_000).prop_map(Step::Wait),
        4 => (0usize..9).prop_map(Step::Refuse),
        8 => Just(Step::Ask),
        2 => (0usize..4).prop_map(Step::Drop),
        2 => (0usize..4).prop_map(Step::Succeed),
    ];
    proptest::collection::vec(step, 1..150)
}

proptest! {
    /// Compares with a list of all looks, and with what a caller may expect of any block.
    #[test]
    fn a_block_keeps_its_promises(steps in steps()) {
        let claims = [
            of(Kind::QuotaMinute, Some(26)),
            of(Kind::QuotaMinute, Some(9_999)),
            of(Kind::QuotaUnknown, None),
            of(Kind::QuotaUnknown, Some(40)),
            of(Kind::QuotaDay, None),
            of(Kind::QuotaDay, Some(5_000)),
            of(Kind::QuotaZero, None),
            of(Kind::QuotaSpend, Some(30)),
            of(Kind::BillingRequired, None),
        ];
        let mut now = Instant::now();
        let mut block: Option<Block> = None;
        // The looks that began after the last refusal, and when each did.
        let mut under_way: Vec<(Look, Instant)> = Vec::new();
        let mut current = None;
        let mut refused_at = now;
        for step in steps {
            let midnight = now + secs(40_000);
            match step {
                Step::Wait(seconds) => now += secs(seconds),
                Step::Refuse(which) => {
                    let claim = claims[which];
                    let before = block.filter(|block| matches!(block.passage(now), Passage::Closed(_)));
                    match &mut block {
                        Some(block) => block.refused(claim, now, midnight),
                        None => block = Some(Block::new(claim, now, midnight)),
                    }
                    let block = block.unwrap();
                    // Whatever was refused, nobody passes at once.
                    prop_assert!(matches!(block.passage(now), Passage::Closed(at) if at > now));
                    if let Some(before) = before {
                        prop_assert!(block.ends() >= before.ends(), "an event is no shorter than its longest claim");
                        if before.look.is_some() && block.look.is_none() {
                            // Another sort of quota has taken over.
                            under_way.clear();
                            current = None;
                        }
                    } else {
                        under_way.clear();
                        current = None;
                    }
                    refused_at = now;
                }
                Step::Ask => {
                    let Some(block) = &mut block else { continue };
                    match block.passage(now) {
                        Passage::Free => prop_assert!(now >= block.ends()),
                        Passage::Look => {
                            let fresh = |(_, since): &(Look, Instant)| now < *since + LONGEST_LOOK;
                            prop_assert!(!under_way.iter().any(fresh), "one at a time");
                            under_way.push((block.begin_look(now), now));
                            current = under_way.last().map(|(look, _)| *look);
                            prop_assert!(matches!(block.passage(now), Passage::Closed(_)));
                        }
                        Passage::Closed(at) => {
                            prop_assert!(at > now && at <= block.ends());
                            prop_assert!(at <= refused_at.max(now) + RARE, "somebody looks within an hour");
                            prop_assert!(block.closed_until(now).is_some_and(|until| until >= at));
                        }
                    }
                    prop_assert!(block.ends() <= refused_at + LONGEST);
                }
                Step::Drop(nth) => {
                    if let (Some(block), Some(at)) = (&mut block, nth.checked_rem(under_way.len())) {
                        let (look, _) = under_way.remove(at);
                        block.end_look(look);
                        current = current.filter(|current| *current != look);
                    }
                }
                Step::Succeed(nth) => {
                    if let (Some(known), Some(at)) = (block, nth.checked_rem(under_way.len())) {
                        let (look, _) = under_way.remove(at);
                        let ends = known.is_unsaid() || now >= known.ends() || current == Some(look);
                        prop_assert_eq!(known.ends_with(look, now), ends);
                        if known.ends_with(look, now) {
                            block = None;
                            under_way.clear();
                            current = None;
                        }
                    }
                }
            }
        }
    }
}
