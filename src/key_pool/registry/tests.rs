//! Tests of the registry.

use proptest::prelude::*;

use super::*;
use crate::{
    block::Claim,
    failure::{Failure, Kind},
    key_pool::{ApiKey, marks::Part},
};

fn key(nth: usize, project: usize) -> Key {
    Key::new(ApiKey::new(format!("AIza-{nth}")).unwrap()).project(format!("p{project}"))
}

#[derive(Clone, Debug)]
struct Scenario {
    /// The project of each key, and the key's past: nothing, an answer, a strike, disabled, on trial, a strike and on
    /// trial.
    keys: Vec<(usize, u8)>,
    /// The projects that are out of quota.
    cooling: [bool; 4],
    tried_projects: Vec<usize>,
    tried_keys: Vec<usize>,
    passed_over: Vec<usize>,
    pinned: Option<usize>,
    pays: bool,
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let nths = |most: usize| proptest::collection::vec(0..most, 0..3);
    let keys = proptest::collection::vec((0usize..4, 0u8..6), 0..10);
    let cooling = proptest::array::uniform4(proptest::bool::weighted(0.3));
    let pinned = proptest::option::weighted(0.2, 0usize..4);
    (keys, cooling, nths(4), nths(10), nths(10), pinned, any::<bool>()).prop_map(
        |(keys, cooling, tried_projects, tried_keys, passed_over, pinned, pays)| Scenario {
            keys,
            cooling,
            tried_projects,
            tried_keys,
            passed_over,
            pinned,
            pays,
        },
    )
}

proptest! {
    #[test]
    fn what_is_drawn_and_taken_may_be(scenario in scenarios(), seed in any::<u64>()) {
        let now = Instant::now();
        let model: Arc<str> = "m".into();
        let mut registry = Registry::default();
        for (nth, (project, state)) in scenario.keys.iter().enumerate() {
            registry.add(key(nth, *project));
            let fingerprint = key(nth, 0).fingerprint;
            let (project, at) = registry.find(fingerprint).unwrap();
            let health = &mut project.keys[at].health;
            match state {
                1 => health.succeeded(),
                2 => _ = health.refused(Kind::AuthKeyInvalid, false, now),
                3 => health.disable_by_hand(now),
                4 => _ = health.begin_trial(now),
                5 => {
                    health.refused(Kind::AuthKeyInvalid, false, now);
                    health.begin_trial(now);
                }
                _ => {}
            }
        }
        for project in &mut registry.projects {
            if (0..4).any(|nth| scenario.cooling[nth] && *project.handle.name == *format!("p{nth}")) {
                let failure = Failure::local(Kind::QuotaMinute, "").with_hint(Duration::from_secs(9));
                project.marks.block(Part::Model, &model, Claim::of(&failure).unwrap(), now, now);
            }
        }
        let shown = |nth: &usize| -> Arc<str> { key(*nth, 0).fingerprint.to_string().into() };
        let projects = scenario.tried_projects.iter().map(|nth| Tried::Project(format!("p{nth}").into()));
        let tried: Vec<Tried> = scenario.tried_keys.iter().map(|nth| Tried::Key(shown(nth))).chain(projects).collect();
        let passed_over: Vec<Arc<str>> = scenario.passed_over.iter().map(shown).collect();
        let pinned = scenario.pinned.map(|nth| format!("p{nth}"));
        let needs = Needs { model: "m", pays: scenario.pays, grounded: false, spends: scenario.pays };
        let query = Query { now, needs, pinned: pinned.as_deref(), tried: &tried, passed_over: &passed_over };

        // The same in plain words: a key may be used, as a trial or not (0), or only if nothing else is left (1).
        let may = |nth: usize| match scenario.keys[nth].1 {
            _ if scenario.tried_keys.contains(&nth) || scenario.passed_over.contains(&nth) => None,
            0..=2 => Some(0),
            4 => Some(1),
            _ => None,
        };
        let rank = |project: usize| {
            let keys = (0..scenario.keys.len()).filter(|nth| scenario.keys[*nth].0 == project);
            let best = keys.filter_map(may).min()?;
            let open = scenario.pinned.is_none_or(|pinned| pinned == project) && !(scenario.pays && scenario.cooling[project]);
            let is_tried = scenario.pinned.is_none() && scenario.tried_projects.contains(&project);
            open.then_some((is_tried, best))
        };
        let ranks: Vec<_> = (0..4).filter_map(|project| Some((rank(project)?, project))).collect();
        let best = ranks.iter().map(|(rank, _)| *rank).min();

        let mut rng = fastrand::Rng::with_seed(seed);
        let draw = registry.draw(&query, now, || rng.f64());
        prop_assert_eq!(draw.candidates, ranks.len());
        prop_assert_eq!(draw.untried, ranks.iter().filter(|((is_tried, _), _)| !is_tried).count());
        prop_assert_eq!(draw.first.is_some(), best.is_some());
        let among = ranks.iter().filter(|(rank, _)| Some(*rank) == best).count();
        prop_assert_eq!(draw.second.is_some(), among > 1);
        for project in [&draw.first, &draw.second].into_iter().flatten() {
            let project: usize = project.name[1..].parse().unwrap();
            prop_assert_eq!(rank(project), best);
        }
        if let (Some(first), Some(second)) = (&draw.first, &draw.second) {
            prop_assert!(!Arc::ptr_eq(first, second));
        }
        if let Some(first) = &draw.first {
            let (key, on_trial, looks) = registry.take(first, &query).unwrap();
            prop_assert!(looks.is_empty());
            let nth = (0..scenario.keys.len()).find(|nth| *shown(nth) == *key.shown).unwrap();
            prop_assert_eq!(may(nth), best.map(|(_, best)| best));
            prop_assert_eq!(&key.project.name, &first.name);
            prop_assert_eq!(on_trial.is_some(), matches!(scenario.keys[nth].1, 0 | 2));
        }
    }
}
