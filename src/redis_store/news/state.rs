//! The state of an instance's news: what it has found, what it has to tell, and what it does with what it hears.

use std::{collections::HashMap, time::Duration};

use redis::Value;
use tokio::time::Instant;

use super::{
    NewsReport,
    event::{Fact, MOST_FACTS},
    register::{EventId, NewsTelling, Register},
    reply::{Ignored, refusal},
};
use crate::{
    circuit_breaker::{CircuitBreakers, Target},
    clock::TimeAnchor,
    key_pool::{KeyPool, PoolSubject, Roster, Standing},
};

/// The events that are told with one probe.
pub(super) const TOLD: usize = 4;

/// The time after which an answer no longer contradicts an opening, at least; at most twice as long.
const ANSWERS: Duration = Duration::from_secs(5);

/// The difference by which the server's clock has gone back, and the time until it is asked for again.
const BACK: u64 = 1_000;
const BACK_AGAIN: Duration = Duration::from_secs(30);

/// The time between two logs of what is ignored.
const QUIET: Duration = Duration::from_secs(60);

/// All that an instance knows of the news.
pub(super) struct State {
    pub(super) keys: Option<KeyPool>,
    pub(super) parks: Option<KeyPool>,
    pub(super) breakers: Option<CircuitBreakers>,
    /// The things of these pools: nothing else is heard.
    pub(super) key_roster: Roster,
    pub(super) park_roster: Roster,
    pub(super) register: Register,
    /// The openings of this instance that were told, with their ends.
    pub(super) openings: HashMap<Target, Instant>,
    /// The last event that was read.
    pub(super) read: EventId,
    /// True once all of the stream was read.
    pub(super) is_caught_up: bool,
    /// True if a pool was set that has not heard the last words yet.
    pub(super) is_new_pool: bool,
    pub(super) probes: u64,
    pub(super) aged: Instant,
    /// The time at which the stream was last read anew because the server's clock went back.
    pub(super) went_back: Option<Instant>,
    pub(super) is_refused: bool,
    /// The time of the last log of what was ignored.
    pub(super) logged: Option<Instant>,
    pub(super) report: NewsReport,
}

/// The content of one event.
#[derive(Default)]
pub(super) struct NewsTold {
    pub(super) words: Vec<NewsTelling>,
    pub(super) openings: Vec<(Target, Instant)>,
}

impl State {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            keys: None,
            parks: None,
            breakers: None,
            key_roster: Roster::default(),
            park_roster: Roster::default(),
            register: Register::new(now),
            openings: HashMap::new(),
            read: EventId::default(),
            is_caught_up: false,
            is_new_pool: false,
            probes: 0,
            aged: now,
            went_back: None,
            is_refused: false,
            logged: None,
            report: NewsReport::default(),
        }
    }

    pub(super) fn shares_nothing(&self) -> bool {
        self.keys.is_none() && self.parks.is_none() && self.breakers.is_none()
    }

    /// Returns the pool that knows of a thing.
    fn pool(&self, subject: &PoolSubject) -> Option<&KeyPool> {
        match subject {
            PoolSubject::Key(_) => self.keys.as_ref(),
            PoolSubject::Part { .. } => self.parks.as_ref(),
        }
    }

    /// Returns whether a pool that is shared has a thing.
    fn has(&self, subject: &PoolSubject) -> bool {
        match subject {
            PoolSubject::Key(_) => self.keys.is_some() && self.key_roster.has(subject),
            PoolSubject::Part { .. } => self.parks.is_some() && self.park_roster.has(subject),
        }
    }

    /// Takes note of all that has changed in this instance.
    pub(super) fn notice(&mut self, now: Instant) {
        self.register.expire(now);
        let known = self.register.subjects();
        let (mut all, has_other_keys) = match &self.keys {
            Some(pool) => pool.keys_told(&known, &mut self.key_roster),
            None => Default::default(),
        };
        let (parks, has_other_projects) = match &self.parks {
            Some(pool) => pool.parks_told(&known, &mut self.park_roster, now),
            None => Default::default(),
        };
        all.extend(parks);
        if has_other_keys || has_other_projects {
            // The stream may tell of what has been added.
            self.read = EventId::default();
            self.went_back = None;
        }
        let gone: Vec<_> = known.into_iter().filter(|subject| !self.has(subject)).collect();
        self.register.forget(&gone);
        let is_new_pool = std::mem::take(&mut self.is_new_pool);
        for (subject, mut local) in all {
            if let Some(last) = self.register.last(&subject).filter(|_| is_new_pool) {
                // The pool was made after that.
                if !last.is_alike(&local) {
                    let learned = self.pool(&subject).and_then(|pool| pool.learn(&subject, last, now));
                    local = learned.unwrap_or(local);
                }
                self.register.taken_up(&subject, local);
            }
            self.register.noticed(&subject, local, is_new_pool, now);
        }
        if let Some(breakers) = self.breakers.as_ref().filter(|_| now - self.aged >= ANSWERS) {
            breakers.age_answers();
            self.aged = now;
        }
    }

    /// Returns what is to be told now, by event.
    pub(super) fn tellings(&mut self, anchor: TimeAnchor, now: Instant) -> Vec<(Vec<Fact>, NewsTold)> {
        // Others may have told it already.
        if !self.is_caught_up {
            return Vec::new();
        }
        self.openings.retain(|_, until| *until > now);
        let openings = self.breakers.iter().flat_map(|breakers| breakers.own_openings(anchor, now));
        let openings = openings.filter(|(scope, until, _)| self.openings.get(scope) != Some(until));
        let mut all: Vec<_> = openings
            .take(TOLD * MOST_FACTS)
            .map(|(scope, until, memory)| (Fact::Opening(memory), None, Some((scope, until))))
            .collect();
        for telling in self.register.due(now, TOLD * MOST_FACTS - all.len()) {
            let age = self.register.age(&telling, now);
            all.push((Fact::Standing(telling.subject.clone(), telling.standing, age), Some(telling), None));
        }
        let mut events = Vec::new();
        for (number, (fact, word, opening)) in all.into_iter().enumerate() {
            if number % MOST_FACTS == 0 {
                events.push((Vec::new(), NewsTold::default()));
            }
            let Some((facts, told)) = events.last_mut() else { break };
            facts.push(fact);
            told.words.extend(word);
            told.openings.extend(opening);
        }
        events
    }

    /// Takes note of the reply to an event that was told.
    pub(super) fn note_told(&mut self, content: NewsTold, reply: &Value) {
        let Some(id) = EventId::of(reply) else { return self.note_refused(reply) };
        if std::mem::take(&mut self.is_refused) {
            tracing::info!("the server takes news again");
        }
        self.report.told += (content.words.len() + content.openings.len()) as u64;
        for telling in &content.words {
            self.register.told(telling, id);
        }
        self.openings.extend(content.openings);
    }

    /// Takes note that the server has refused a command: one that is full, or whose user may not use streams.
    pub(super) fn note_refused(&mut self, reply: &Value) {
        if !std::mem::replace(&mut self.is_refused, true) {
            tracing::warn!("the server takes or gives no news, which are told again: {}", refusal(reply));
        }
    }

    /// Takes note of what could not be read, and logs it, in one line a minute at most.
    pub(super) fn note_ignored(&mut self, ignored: &Ignored, now: Instant) {
        let (events, facts) = (ignored.events, ignored.facts);
        self.report.ignored += (events + facts) as u64;
        if events + facts > 0 && self.logged.is_none_or(|at| now - at >= QUIET) {
            self.logged = Some(now);
            let why = ignored.why.unwrap_or("facts are broken, or of a later version");
            tracing::warn!(events, facts, "news of other instances are ignored: {why}");
        }
    }

    /// Takes up what another instance has told. `passed`: the milliseconds since then.
    pub(super) fn hear(&mut self, fact: Fact, id: EventId, passed: u64, anchor: TimeAnchor, now: Instant) {
        self.report.heard += 1;
        let is_taken_up = match fact {
            Fact::Opening(opening) => {
                self.breakers.as_ref().is_some_and(|breakers| breakers.told(&opening, anchor, now))
            }
            Fact::Standing(subject, standing, age) => {
                let age = age.saturating_add(passed);
                self.has(&subject)
                    && self.register.heard(&subject, standing, age, id, now, fastrand::f64())
                    && self.take_up(&subject, standing, now)
            }
        };
        self.report.taken_up += u64::from(is_taken_up);
    }

    fn take_up(&mut self, subject: &PoolSubject, standing: Standing, now: Instant) -> bool {
        let learned = self.pool(subject).and_then(|pool| pool.learn(subject, standing, now));
        if let Some(local) = learned {
            self.register.taken_up(subject, local);
        }
        learned.is_some()
    }

    /// Reads the stream anew if the server's clock has gone back: new events may have lower ids than those that were read.
    pub(super) fn go_back(&mut self, server: u64, now: Instant) {
        let is_back = self.read.0 > server.saturating_add(BACK);
        if is_back && self.went_back.is_none_or(|at| now - at >= BACK_AGAIN) {
            self.read = EventId::default();
            self.went_back = Some(now);
        }
    }
}
