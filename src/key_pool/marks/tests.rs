//! Tests of a project's blocks.

use proptest::prelude::*;

use super::*;
use crate::failure::{Failure, Kind};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn claim(kind: Kind, hint: Option<u64>) -> Claim {
    let failure = Failure::local(kind, "");
    Claim::of(&hint.map_or(failure.clone(), |hint| failure.with_hint(secs(hint)))).unwrap()
}

const CALLS: [Needs<'static>; 6] = [
    Needs { model: "a", pays: true, grounded: false, spends: true },
    Needs { model: "a", pays: true, grounded: true, spends: true },
    Needs { model: "b", pays: true, grounded: false, spends: true },
    // A long-running prediction, a cached content, a list.
    Needs { model: "a", pays: false, grounded: false, spends: true },
    Needs { model: "", pays: false, grounded: false, spends: true },
    Needs { model: "a", pays: false, grounded: false, spends: false },
];

/// Says whether a block of a part, for a model, holds up a call.
fn holds_up(part: Part, model: &str, needs: Needs<'_>) -> bool {
    let same = needs.model == model;
    match part {
        Part::Model => same && needs.pays,
        Part::Grounded => same && needs.pays && needs.grounded,
        Part::Closed => same && needs.spends,
        Part::Spending => needs.spends,
    }
}

proptest! {
    /// Compares with one block for each part and model, kept in a list.
    #[test]
    fn a_call_is_held_up_by_what_concerns_it(
        steps in proptest::collection::vec((0usize..6, 0usize..4, 0usize..6, 0u64..90), 1..120),
    ) {
        let mut now = Instant::now();
        let mut marks = Marks::default();
        let mut plain: Vec<(Part, &str, Block)> = Vec::new();
        for (event, part, call, seconds) in steps {
            let (part, needs) = (Part::ALL[part], CALLS[call]);
            let midnight = now + secs(50_000);
            match event {
                0 | 1 => now += secs(seconds * if event == 0 { 1 } else { 60 }),
                2 | 3 if !needs.model.is_empty() => {
                    let kinds = [(Kind::QuotaMinute, Some(seconds + 1)), (Kind::QuotaDay, None), (Kind::QuotaUnknown, None), (Kind::QuotaZero, None)];
                    let (kind, hint) = kinds[seconds as usize % 4];
                    let claim = claim(kind, hint);
                    marks.block(part, &needs.model.into(), claim, now, midnight);
                    let name = if part == Part::Spending { "" } else { needs.model };
                    match plain.iter_mut().find(|(known, model, _)| (*known, *model) == (part, name)) {
                        Some((.., block)) => block.refused(claim, now, midnight),
                        None => plain.push((part, name, Block::new(claim, now, midnight))),
                    }
                }
                4 => {
                    if marks.passage(needs, now) == Passage::Look {
                        let looks = marks.begin_looks(needs, now);
                        prop_assert!(!looks.is_empty());
                        prop_assert!(matches!(marks.passage(needs, now), Passage::Closed(_)), "one at a time");
                        if seconds % 2 == 0 {
                            marks.succeeded(needs, looks, now);
                            plain.retain(|(part, model, block)| !holds_up(*part, model, needs) || matches!(block.passage(now), Passage::Closed(_)));
                        } else {
                            marks.end_looks(needs.model, looks);
                        }
                    }
                }
                _ => {
                    marks.succeeded(needs, ProjectLooks::default(), now);
                    let is_left = |block: &Block| block.ends() > now && !block.is_unsaid();
                    plain.retain(|(part, model, block)| !holds_up(*part, model, needs) || is_left(block));
                }
            }
            for needs in CALLS {
                let blocks = || plain.iter().filter(|(part, model, _)| holds_up(*part, model, needs)).map(|(.., block)| block);
                let left = blocks().filter_map(|block| block.closed_until(now)).max().map_or(Duration::ZERO, |until| until - now);
                prop_assert_eq!(marks.left(needs, now), left);
                prop_assert_eq!(marks.obstruction(needs, now).is_some(), !left.is_zero());
                let passes = marks.passage(needs, now);
                prop_assert_eq!(matches!(passes, Passage::Closed(_)), !left.is_zero());
                prop_assert_eq!(passes == Passage::Free, blocks().all(|block| block.passage(now) == Passage::Free));
            }
            prop_assert_eq!(marks.is_empty(), plain.is_empty());
        }
    }
}

#[test]
fn a_report_names_each_model_once_by_what_lasts_longest_and_grounded_calls_beside_it() {
    let now = Instant::now();
    let midnight = now + secs(50_000);
    let mut marks = Marks::default();
    marks.block(Part::Model, &"m".into(), claim(Kind::QuotaMinute, Some(26)), now, midnight);
    marks.block(Part::Grounded, &"m".into(), claim(Kind::QuotaGrounding, None), now, midnight);
    marks.block(Part::Model, &"a".into(), claim(Kind::QuotaUnknown, None), now, midnight);
    marks.block(Part::Closed, &"c".into(), claim(Kind::ModelClosed, None), now, midnight);
    marks.block(Part::Model, &"c".into(), claim(Kind::QuotaMinute, Some(26)), now, midnight);
    let cooling = |seconds| KeyState::Cooling { left: secs(seconds) };
    let exhausted = KeyState::Exhausted { left: secs(50_000) };
    let report = |model: &str, part, state, reason, look| KeyModelReport {
        model: model.into(),
        state,
        part,
        reason,
        look: secs(look),
    };
    assert_eq!(
        marks.report(now),
        [
            report("a", Part::Model, cooling(1), Kind::QuotaUnknown, 1),
            report("c", Part::Closed, exhausted, Kind::ModelClosed, 3_600),
            report("m", Part::Model, cooling(26), Kind::QuotaMinute, 26),
            report("m", Part::Grounded, exhausted, Kind::QuotaGrounding, 15),
        ]
    );
    assert_eq!(marks.spending(now), None);
    marks.block(Part::Spending, &"m".into(), claim(Kind::QuotaSpend, None), now, midnight);
    let spent = KeySpendingReport { state: cooling(600), reason: Kind::QuotaSpend, look: secs(600) };
    assert_eq!(marks.spending(now), Some(spent));
    marks.clear();
    assert!(marks.is_empty());
}

#[test]
fn models_without_quota_are_bounded_and_the_soonest_to_return_goes_first() {
    let now = Instant::now();
    let mut marks = Marks::default();
    let name = |nth: u64| Arc::<str>::from(format!("m{nth}"));
    let left = |marks: &Marks, nth: u64, now| {
        marks.left(Needs { model: &name(nth), pays: true, grounded: false, spends: true }, now)
    };
    for nth in 0..MAX_MODELS as u64 {
        marks.block(Part::Model, &name(nth), claim(Kind::QuotaDay, Some(100 + nth)), now, now);
    }
    marks.block(Part::Model, &name(5_000), claim(Kind::QuotaDay, Some(9_000)), now, now);
    assert_eq!(marks.models[0].len(), MAX_MODELS);
    assert_eq!((left(&marks, 0, now), left(&marks, 1, now)), (Duration::ZERO, secs(101)));
    // Blocks that have ended are forgotten before those that have not.
    let later = now + secs(150);
    marks.block(Part::Model, &name(6_000), claim(Kind::QuotaMinute, Some(1)), later, later);
    assert!(marks.models[0].len() <= MAX_MODELS - 49);
    assert!(marks.models[0].contains_key(&name(5_000)));
}

proptest! {
    #[test]
    fn restored_marks_decide_as_the_old_ones_would_have(
        blocks in proptest::collection::vec((0usize..4, 0usize..3, 0usize..4, 0u64..4_000), 0..12), down in 0u64..4_000,
    ) {
        let (began, shift) = (Instant::now(), secs(1 << 20));
        let (mut old, mut at) = (Marks::default(), 0);
        for (part, model, kind, after) in blocks {
            at += after;
            let claim = match kind {
                0 => claim(Kind::QuotaDay, None),
                1 => claim(Kind::QuotaZero, None),
                2 => claim(Kind::QuotaUnknown, None),
                _ => claim(Kind::QuotaSpend, Some(600)),
            };
            old.block(Part::ALL[part], &["a", "b", ""][model].into(), claim, began + secs(at), began + secs(50_000));
        }
        let now = began + secs(at);
        let kept = old.memory(TimeAnchor::new(5_000, now), now);
        let then = now + secs(down);
        let mut new = Marks::default();
        new.restore(&kept, TimeAnchor::new(5_000 + down, then + shift), then + shift);
        for needs in CALLS {
            for later in [0, 1, 15, 600, 3_600, 80_000].map(secs) {
                let (here, there) = (then + later, then + later + shift);
                let moved = match old.passage(needs, here) {
                    Passage::Closed(at) => Passage::Closed(at + shift),
                    other => other,
                };
                prop_assert_eq!(new.passage(needs, there), moved, "{:?}", needs);
                prop_assert_eq!(new.left(needs, there), old.left(needs, here));
                prop_assert_eq!(new.obstruction(needs, there), old.obstruction(needs, here));
            }
        }
        prop_assert_eq!((new.report(then + shift), new.spending(then + shift)), (old.report(then), old.spending(then)));
    }
}

#[test]
fn marks_of_unknown_parts_and_more_than_are_remembered_are_left_out() {
    let (now, anchor) = (Instant::now(), TimeAnchor::new(1_000, Instant::now()));
    let mut old = Marks::default();
    let claim = claim(Kind::QuotaDay, None);
    for number in 0..MAX_MODELS {
        old.block(Part::Closed, &number.to_string().into(), claim, now, now + secs(50_000));
    }
    let mut kept = old.memory(anchor, now);
    let block = kept[0].block.clone();
    for (part, model) in
        [("closed_model", "one more".to_owned()), ("moon", "a".into()), ("model", "m".repeat(MAX_NAME + 1))]
    {
        kept.push(MarkMemory { part: part.into(), model: model.into(), block: block.clone() });
    }
    let mut new = Marks::default();
    new.restore(&kept, anchor, now);
    assert_eq!(new.memory(anchor, now), old.memory(anchor, now));
}
