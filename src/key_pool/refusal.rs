//! The error for a call that no key can take: the state of each key, when the first one is back, and what to do. Callers
//! get a message of their own, without keys and projects.
//!
//! [`blocked_keys`] copies what is needed while the lock is held; [`decide`] and [`message`] are functions of the copy.

use std::{fmt, fmt::Write as _, sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    KeyState, NAME, Part,
    health::Use,
    marks::{Needs, Obstruction},
    pool::Shared,
    registry::{KeyEntry, PooledKey, Query, Registry},
};
use crate::{
    context::{BoxError, Error},
    failure::{Failure, Kind, OWN_KEYS_REFUSED},
};

/// The most keys that a message names.
const MAX_NAMED: usize = 8;

/// A guess of how long a call tests a key, after which the next call can have it.
const TRIAL: Duration = Duration::from_secs(1);

/// Returns the error for a call that no key can take.
pub(super) fn nothing_left(shared: &Shared, query: &Query<'_>) -> BoxError {
    let (blocked, plain_ones_pass) = {
        let registry = shared.registry.lock();
        (blocked_keys(&registry, query), query.needs.grounded && is_about_grounding(&registry, query))
    };
    let shortage = decide(&blocked);
    let message = message(query, &blocked, shortage, plain_ones_pass);
    let for_callers = caller_message(query, &blocked, shortage, plain_ones_pass);
    let failure = match shortage {
        Shortage::Exhausted { soonest, is_lasting } => {
            let failure = Failure::local(Kind::KeysExhausted, message).with_hint(soonest);
            let failure = if plain_ones_pass { failure.into_grounded() } else { failure };
            if is_lasting { failure.into_lasting() } else { failure }
        }
        Shortage::Disabled => Failure::local(Kind::KeysDisabled, message),
    };
    // The same as for the first call, which the upstream has refused. The kind is the one by which others go elsewhere.
    let failure = match Cure::of(&blocked, shortage, plain_ones_pass) {
        Cure::Bill => failure.with_status(StatusCode::SERVICE_UNAVAILABLE),
        Cure::OtherModel => failure.with_status(StatusCode::NOT_FOUND),
        _ => failure,
    };
    let failure = failure.with_caller_message(for_callers);
    let failure = if query.pinned.is_some() { failure.into_bound() } else { failure };
    Error::refusal(NAME, failure).into()
}

/// A key that cannot take the call.
#[derive(Debug)]
struct BlockedKey {
    key: Arc<PooledKey>,
    obstacle: Obstacle,
}

/// The reason that a key cannot take the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// The key is disabled.
    State(KeyState),
    /// The project is blocked for the call.
    Blocked(Obstruction),
    /// An attempt of this call was refused with the key.
    Refused,
    /// Another call is testing the key, or the key has currently nothing to sign with.
    OnTrial,
}

/// The lack of keys that the call meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortage {
    /// A key is back after `soonest`; or, where that `is_lasting`, one call may look then.
    Exhausted { soonest: Duration, is_lasting: bool },
    /// No key comes back by itself.
    Disabled,
}

/// Copies the keys that the call could have had, each with its obstacle.
fn blocked_keys(registry: &Registry, query: &Query<'_>) -> Vec<BlockedKey> {
    let projects = registry.projects.iter().filter(|project| query.allows(&project.handle));
    let keys = projects.flat_map(|project| {
        let mark = project.marks.obstruction(query.needs, query.now);
        project
            .keys
            .iter()
            .map(move |entry| BlockedKey { key: entry.key.clone(), obstacle: Obstacle::of(entry, query, mark) })
    });
    keys.collect()
}

/// Returns whether a call that searches neither the web nor maps would find a key.
fn is_about_grounding(registry: &Registry, query: &Query<'_>) -> bool {
    let plain = Query { needs: Needs { grounded: false, ..query.needs }, ..*query };
    registry.draw(&plain, plain.now, || 0.0).candidates > 0
}

/// Decides whether it is worth waiting, and for how long.
fn decide(blocked: &[BlockedKey]) -> Shortage {
    // An end that comes by itself goes before a look.
    let ends = blocked.iter().filter_map(|blocked| blocked.obstacle.ends_in());
    let soonest = ends.min_by_key(|(soonest, is_lasting)| (*is_lasting, *soonest));
    soonest.map_or(Shortage::Disabled, |(soonest, is_lasting)| Shortage::Exhausted { soonest, is_lasting })
}

/// Writes what the operator reads: the first [`MAX_NAMED`] keys with their obstacles, and what to do.
/// `plain_ones_pass`: a call that is not grounded would find a key.
fn message(query: &Query<'_>, blocked: &[BlockedKey], shortage: Shortage, plain_ones_pass: bool) -> String {
    let keys = blocked.len();
    let calls = if plain_ones_pass { "grounded calls of " } else { "" };
    let model = if query.needs.model.is_empty() { "this call" } else { query.needs.model };
    let mut text = format!("none of {keys} keys can take {calls}{model}");
    if let Some(project) = query.pinned {
        let _ = write!(text, " in project {project}, which it is bound to");
    }
    let cure = Cure::of(blocked, shortage, plain_ones_pass);
    let _ = match shortage {
        // Nobody knows when what is closed opens, or when a bill is paid.
        Shortage::Exhausted { .. } if matches!(cure, Cure::OtherModel | Cure::Money | Cure::Bill) => Ok(()),
        Shortage::Exhausted { soonest, .. } => write!(text, " within {soonest:.1?}"),
        Shortage::Disabled => write!(text, ": all are disabled"),
    };
    for blocked in blocked.iter().take(MAX_NAMED) {
        let _ = write!(text, "; {blocked}");
    }
    if keys > MAX_NAMED {
        let _ = write!(text, "; and {} more", keys - MAX_NAMED);
    }
    text.push_str(match cure {
        Cure::Wait => "; wait, add a key of another project, or ask another model",
        Cure::WaitForMoney => "; wait, or add a key of another project",
        Cure::NoSearch => "; ask without search or maps, wait, or add a key of another project",
        Cure::OtherModel => "; ask another model, or add a key of a project that may use this one",
        Cure::Money => "; raise what the project may spend, or add a key of another one",
        Cure::Bill => "; link billing or add credits, or add a key of another project",
        Cure::Keys => "; replace them, or enable them again",
    });
    text
}

/// Writes what the caller reads: neither names, fingerprints nor projects of keys, and nothing that only an operator can
/// do.
fn caller_message(query: &Query<'_>, blocked: &[BlockedKey], shortage: Shortage, plain_ones_pass: bool) -> String {
    let model = if query.needs.model.is_empty() { "this call" } else { query.needs.model };
    match (Cure::of(blocked, shortage, plain_ones_pass), shortage) {
        (Cure::Keys | Cure::Bill, _) | (_, Shortage::Disabled) => OWN_KEYS_REFUSED.into(),
        (Cure::Wait, Shortage::Exhausted { soonest, .. }) => {
            format!("this server has no quota for {model} within {soonest:.1?}; wait, or ask another model")
        }
        (Cure::WaitForMoney, Shortage::Exhausted { soonest, .. }) => {
            format!("this server has spent what it may within {soonest:.1?}; wait")
        }
        (Cure::NoSearch, _) => {
            format!("this server has no quota for grounded calls of {model}; ask without search or maps, or wait")
        }
        (Cure::OtherModel, _) => format!("{model} is closed for this server; ask another model"),
        (Cure::Money, _) => "this server has spent what it may; its operator has to act".into(),
    }
}

/// The thing to do about a lack of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cure {
    Wait,
    /// The projects may spend again in some minutes, whatever the model.
    WaitForMoney,
    /// Only the grounding quota is used up.
    NoSearch,
    /// The model is closed for every project that has keys.
    OtherModel,
    /// Each project has spent what it may, or is closed for the model.
    Money,
    /// Each project that has keys cannot pay.
    Bill,
    /// All keys are disabled.
    Keys,
}

impl Cure {
    fn of(blocked: &[BlockedKey], shortage: Shortage, plain_ones_pass: bool) -> Self {
        if shortage == Shortage::Disabled {
            return Self::Keys;
        }
        let parts = || blocked.iter().filter_map(|blocked| blocked.obstacle.part());
        let on_trial = blocked.iter().any(|blocked| blocked.obstacle == Obstacle::OnTrial);
        // A limit within some minutes comes back by itself.
        let comes_back = |obstacle: Obstacle| {
            matches!(obstacle, Obstacle::Blocked(Obstruction { state: KeyState::Cooling { .. }, .. }))
        };
        let waits = on_trial || blocked.iter().any(|blocked| comes_back(blocked.obstacle));
        if plain_ones_pass {
            Self::NoSearch
        } else if is_unpaid(blocked) {
            Self::Bill
        } else if waits && !on_trial && parts().all(|part| part == Part::Spending) {
            Self::WaitForMoney
        } else if waits || parts().any(|part| matches!(part, Part::Model | Part::Grounded)) {
            Self::Wait
        } else if parts().all(|part| part == Part::Closed) {
            Self::OtherModel
        } else {
            Self::Money
        }
    }
}

/// Returns whether the upstream has refused each key that is not disabled because its project cannot pay.
fn is_unpaid(blocked: &[BlockedKey]) -> bool {
    blocked.iter().all(|blocked| match blocked.obstacle {
        Obstacle::Blocked(Obstruction { kind, .. }) => kind == Kind::BillingRequired,
        Obstacle::State(_) | Obstacle::Refused => true,
        Obstacle::OnTrial => false,
    })
}

impl Obstacle {
    /// Finds the obstacle of a key, given the block of its project.
    fn of(entry: &KeyEntry, query: &Query<'_>, mark: Option<Obstruction>) -> Self {
        match (query.usable(entry), &entry.health.disabled, mark) {
            (_, Some(disabled), _) => Self::State(disabled.state(query.now)),
            (Use::Disabled, None, _) => Self::Refused,
            (_, None, Some(mark)) => Self::Blocked(mark),
            (_, None, None) => Self::OnTrial,
        }
    }

    /// Returns the part of the project that is blocked.
    fn part(self) -> Option<Part> {
        match self {
            Self::Blocked(Obstruction { part, .. }) => Some(part),
            Self::State(_) | Self::Refused | Self::OnTrial => None,
        }
    }

    /// Returns the time until the obstacle ends, or until one call may look at it, which is the second part. `None`: it
    /// does not end by itself, or not within this call.
    fn ends_in(self) -> Option<(Duration, bool)> {
        match self {
            Self::Blocked(Obstruction { look, is_lasting, .. }) => Some((look, is_lasting)),
            Self::State(_) | Self::Refused => None,
            Self::OnTrial => Some((TRIAL, false)),
        }
    }
}

impl fmt::Display for BlockedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.key.name {
            write!(f, "{name} ")?;
        }
        let project = &self.key.project.name;
        write!(f, "{} of {project}: ", self.key.shown)?;
        match self.obstacle {
            Obstacle::Blocked(Obstruction { part: Part::Closed, look, .. }) => {
                write!(f, "closed to project {project}, asked again in {look:.0?}")
            }
            Obstacle::Blocked(Obstruction { part: Part::Spending, look, .. }) => {
                write!(f, "project {project} has spent what it may, asked again in {look:.0?}")
            }
            Obstacle::Blocked(Obstruction { part: Part::Grounded, .. }) => {
                write!(f, "grounded calls {}", self.obstacle)
            }
            obstacle => fmt::Display::fmt(&obstacle, f),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => fmt::Display::fmt(state, f),
            Self::Blocked(Obstruction { state, look, is_lasting: true, .. }) => {
                write!(f, "{state}, asked again in {look:.0?}")
            }
            Self::Blocked(Obstruction { state, .. }) => fmt::Display::fmt(state, f),
            Self::Refused => f.write_str("refused in this call"),
            Self::OnTrial => f.write_str("tried by one call at a time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::{
        block::Claim,
        context::Tried,
        key_pool::{ApiKey, DisabledReason, Key},
    };

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key(nth: usize, project: &str) -> Key {
        Key::new(ApiKey::new(format!("AIza-{nth}")).unwrap()).project(project)
    }

    fn query<'a>(now: Instant, tried: &'a [Tried], pinned: Option<&'a str>) -> Query<'a> {
        let needs = Needs { model: "gemini-2.5-pro", pays: true, grounded: false, spends: true };
        Query { now, needs, pinned, tried, passed_over: &[] }
    }

    /// Two keys of `p1`, which is out of quota: one of them disabled; and one of `p2`, on trial.
    fn registry(now: Instant) -> Registry {
        let mut registry = Registry::default();
        registry.add(key(0, "p1").name("first"));
        registry.add(key(1, "p1"));
        registry.add(key(2, "p2"));
        let claim = Claim::of(&Failure::local(Kind::QuotaDay, "").with_hint(secs(9))).unwrap();
        registry.projects[0].marks.block(Part::Model, &"gemini-2.5-pro".into(), claim, now, now);
        registry.projects[0].keys[1].health.disable_by_hand(now);
        registry.projects[1].keys[0].health.begin_trial(now);
        registry
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_has_one_obstacle_and_the_first_to_end_is_the_hint() {
        let now = Instant::now();
        let registry = registry(now);
        let obstacles = |query: &Query<'_>| {
            let blocked = blocked_keys(&registry, query);
            (blocked.iter().map(|blocked| blocked.obstacle).collect::<Vec<_>>(), decide(&blocked))
        };
        let state = KeyState::Exhausted { left: secs(9) };
        let exhausted = Obstacle::Blocked(Obstruction {
            part: Part::Model,
            kind: Kind::QuotaDay,
            state,
            look: secs(9),
            is_lasting: false,
        });
        let disabled = Obstacle::State(KeyState::Disabled { reason: DisabledReason::ByHand, since: Duration::ZERO });
        let all = [exhausted, disabled, Obstacle::OnTrial];
        assert_eq!(
            obstacles(&query(now, &[], None)),
            (all.to_vec(), Shortage::Exhausted { soonest: TRIAL, is_lasting: false })
        );
        let bound = (vec![exhausted, disabled], Shortage::Exhausted { soonest: secs(9), is_lasting: false });
        assert_eq!(obstacles(&query(now, &[], Some("p1"))), bound);
        let tried = [Tried::Key(registry.projects[0].keys[0].key.shown.clone())];
        let none = (vec![Obstacle::Refused, disabled], Shortage::Disabled);
        assert_eq!(obstacles(&query(now, &tried, Some("p1"))), none);
        let free = query(now, &[], Some("p1"));
        let free = Query { needs: Needs { pays: false, ..free.needs }, ..free };
        assert_eq!(
            obstacles(&free),
            (vec![Obstacle::OnTrial, disabled], Shortage::Exhausted { soonest: TRIAL, is_lasting: false })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_message_says_how_each_key_stands_and_what_to_do() {
        let now = Instant::now();
        let registry = registry(now);
        let text = |query: &Query<'_>| {
            let blocked = blocked_keys(&registry, query);
            message(query, &blocked, decide(&blocked), false)
        };
        let shown: Vec<_> = registry.entries().map(|entry| entry.key.shown.clone()).collect();
        assert_eq!(
            text(&query(now, &[], None)),
            format!(
                "none of 3 keys can take gemini-2.5-pro within 1.0s; first {} of p1: exhausted for another 9 s; {} of p1: \
                 disabled for 0 s: by hand; {} of p2: tried by one call at a time; wait, add a key of another project, or \
                 ask another model",
                shown[0], shown[1], shown[2]
            )
        );
        let tried = [Tried::Key(shown[0].clone())];
        assert_eq!(
            text(&{
                let query = query(now, &tried, Some("p1"));
                Query { needs: Needs { model: "", ..query.needs }, ..query }
            }),
            format!(
                "none of 2 keys can take this call in project p1, which it is bound to: all are disabled; first {} of p1: \
                 refused in this call; {} of p1: disabled for 0 s: by hand; replace them, or enable them again",
                shown[0], shown[1]
            )
        );
    }

    #[test]
    fn a_message_names_no_more_than_eight_keys() {
        let mut registry = Registry::default();
        (0..10).for_each(|nth| registry.add(key(nth, "p")));
        let query = query(Instant::now(), &[], None);
        let blocked = blocked_keys(&registry, &query);
        let text = message(&query, &blocked, decide(&blocked), false);
        assert_eq!(text.matches(" of p: ").count(), MAX_NAMED);
        assert!(text.contains("; and 2 more; "), "{text}");
    }
}
