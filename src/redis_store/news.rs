//! The news: what instances tell each other of what they have learned.
//!
//! # What is told
//!
//! | what | told | taken up by others | until |
//! |---|---|---|---|
//! | a key that is disabled, after refusals or by hand | at the next probe: within 0.3 s | at their next: within 0.6 s | it is enabled, by a [check](KeyPool::recheck) or by hand, wherever that is |
//! | a key that is enabled again | the same | the same | |
//! | a block of a project in the key pool that lasts for 5 s or more, its looks, and its end | the same | the same; their first look is at least 1 s later, so that mostly one of them looks | it ends, an answer ends it, or it is lifted, wherever that is |
//! | a breaker that opens by itself | the same | the same, unless their own calls were answered in the last 5 to 10 s | its time is over; then each instance probes for itself, with one call |
//! | the blocks of the limiter | no: the store closes and opens the scope itself, for all, with the next call | | |
//!
//! Shorter blocks are over before others gain by them. A breaker that closes is told to nobody: whoever is open finds out by a
//! probe of its own, because an answer there says nothing of the network here. A breaker that is held open or closed by
//! [force](CircuitBreakers::force_open) is the program's own matter.
//!
//! An instance whose own network is down has its breakers open time and again. It closes nothing for the others: who gets
//! answers does not believe that the upstream is down, and who is open, probing or recovering goes by what it sees.
//!
//! A limiter needs no news. The store keeps a closed scope where the charges are, and each call asks it. Two things go by
//! what an instance knows without a call: the choice of a project, which the blocks of the key pool decide that are told
//! here; and reports, which show the closed scopes from the probe.
//!
//! # The last word
//!
//! Each thing has a last word: what was found last, by whomever. An instance keeps what it has found itself later than the
//! others, and tells them; what it has heard it does not tell again, as long as that is on the stream. The time of finding
//! is told as an age, and the server's time stands for all clocks. So words may be lost, late, or told twice.
//!
//! The stream has about 1,000 events, a key of its own and no number to agree on. What falls off its end, or is lost when the
//! server is flushed, is evicted or restarted empty, is told again by one of those who know it, within 4 s. An instance that
//! starts reads the whole stream first; what it has kept over a restart counts as older than that.
//!
//! # Costs
//!
//! Each probe reads what is new, and every eighth looks at the oldest event. At most 4 events of 16 facts are told with one
//! probe, and 128 are read. An instance knows at most 4,096 things.

mod event;
mod register;

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use redis::{Cmd, Value};
use tokio::time::{Instant, timeout};

use self::{
    event::{Fact, MOST_FACTS},
    register::{EventId, Register, Telling},
};
use super::{builder::StoreSettings, link::Link};
use crate::{
    circuit_breaker::{CircuitBreakers, Target},
    clock::{TimeAnchor, wall},
    key_pool::{KeyPool, PoolSubject, Roster, Standing},
    sync::Mutex,
};

/// The events that the stream has at most, or some more: the server trims whole blocks.
const KEPT: usize = 1_000;

/// The events that are told with one probe.
const TOLD: usize = 4;

/// The events that are read with one probe.
const READ: usize = 128;

/// The time after which a stream is deleted that nobody has asked for: a day's block lasts for 25 hours.
const EXPIRES: Duration = Duration::from_secs(26 * 3_600);

/// The probes after which the oldest event is looked at.
const LOOK: u64 = 8;

/// The time after which an answer no longer contradicts an opening, at least; at most twice as long.
const ANSWERS: Duration = Duration::from_secs(5);

/// The difference by which the server's clock has gone back, and the time until it is asked for again.
const BACK: u64 = 1_000;
const BACK_AGAIN: Duration = Duration::from_secs(30);

/// The knowledge that instances tell each other over a [store](crate::redis_store): keys that are disabled, blocks of projects,
/// and open breakers. Each is shared only if it is switched on here.
///
/// A cheap handle: all clones are the same. It belongs to one store, and ends with that. It holds the pool and the breakers.
#[derive(Clone)]
pub struct SharedNews {
    shared: Arc<Shared>,
}

struct Shared {
    /// The name of this instance, by which it knows its own events.
    name: Box<str>,
    state: Mutex<State>,
}

struct State {
    keys: Option<KeyPool>,
    parks: Option<KeyPool>,
    breakers: Option<CircuitBreakers>,
    /// What these pools have: nothing else is heard.
    key_roster: Roster,
    park_roster: Roster,
    register: Register,
    /// The openings of this instance that were told, with their ends.
    openings: HashMap<Target, Instant>,
    /// The last event that was read.
    read: EventId,
    /// True once all of the stream was read.
    is_caught_up: bool,
    /// True if a pool was set that has not heard the last words yet.
    is_new_pool: bool,
    probes: u64,
    aged: Instant,
    /// The time at which the stream was last read anew because the server's clock went back.
    went_back: Option<Instant>,
    is_refused: bool,
    report: NewsReport,
}

/// The numbers of what was told and heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewsReport {
    /// The facts that this instance has told.
    pub told: u64,
    /// The facts of others that it has read.
    pub heard: u64,
    /// Those of them that have changed something here.
    pub taken_up: u64,
    /// The events and facts that could not be read: broken, or of another version.
    pub ignored: u64,
    /// The things of which there is a last word.
    pub known: usize,
}

/// The commands of one probe, and what has to be known to take their replies. Dropped without them, it has told nothing: it is
/// told again.
struct Asked {
    /// The commands, all of one key.
    commands: Vec<Cmd>,
    told: Vec<Told>,
    looks: bool,
}

/// The content of one event.
#[derive(Default)]
struct Told {
    words: Vec<Telling>,
    openings: Vec<(Target, Instant)>,
}

impl SharedNews {
    /// Creates news that shares nothing yet.
    pub fn new() -> Self {
        let now = Instant::now();
        let state = State {
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
            report: NewsReport::default(),
        };
        let name = format!("{:016x}", fastrand::u64(..)).into();
        Self { shared: Arc::new(Shared { name, state: Mutex::new(state) }) }
    }

    /// Sets the pool whose keys are disabled and enabled together with those of the others; `None`: none any more. A key is
    /// told by its fingerprint. To be called after [`restore`](KeyPool::restore): what the pool knows by then counts as older than
    /// all that others tell. Default: none.
    pub fn share_keys(&self, pool: impl Into<Option<KeyPool>>) {
        let mut state = self.shared.state.lock();
        (state.keys, state.is_new_pool) = (pool.into(), true);
    }

    /// Sets the pool whose projects are blocked together with those of the same name of the others; `None`: none any more.
    /// Default: none.
    pub fn share_parks(&self, pool: impl Into<Option<KeyPool>>) {
        let mut state = self.shared.state.lock();
        (state.parks, state.is_new_pool) = (pool.into(), true);
    }

    /// Sets the breakers that open together with those of the others; `None`: none any more. Default: none.
    pub fn share_breakers(&self, breakers: impl Into<Option<CircuitBreakers>>) {
        self.shared.state.lock().breakers = breakers.into();
    }

    /// Returns the numbers of what was told and heard.
    pub fn report(&self) -> NewsReport {
        let state = self.shared.state.lock();
        NewsReport { known: state.register.len(), ..state.report }
    }

    /// Tells and hears the news. `server`: the server's time of this moment, in milliseconds since 1970.
    ///
    /// It has a round trip of its own, whose failure says nothing of the store: what was not told is told with the next one.
    pub(super) async fn exchange(&self, link: &Link, settings: &StoreSettings, server: u64) {
        let asked = self.ask(&format!("{}:news", settings.prefix));
        if asked.commands.is_empty() {
            return;
        }
        let replies = timeout(settings.call_timeout, link.call_all(&asked.commands)).await;
        if let Ok(Ok(replies)) = replies {
            self.take(asked, &replies, server);
        }
    }

    /// Returns the commands that the next probe sends along, on the stream of that key, in whatever order they reach the
    /// server. None where nothing is shared.
    fn ask(&self, key: &str) -> Asked {
        let (now, at, anchor) = (Instant::now(), millis(wall()), TimeAnchor::read());
        let mut state = self.shared.state.lock();
        if state.shares_nothing() {
            return Asked { commands: Vec::new(), told: Vec::new(), looks: false };
        }
        state.notice(now);
        let mut commands = Vec::new();
        let mut told = Vec::new();
        for (facts, content) in state.tellings(anchor, now) {
            let text = event::write(&self.shared.name, at, &facts, anchor, now);
            let mut add = redis::cmd("XADD");
            add.arg(key).arg("MAXLEN").arg("~").arg(KEPT).arg("*").arg("e").arg(text);
            commands.push(add);
            told.push(content);
        }
        let looks = state.probes.is_multiple_of(LOOK) || !told.is_empty();
        state.probes += 1;
        if looks {
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(key).arg(EXPIRES.as_millis() as u64);
            let mut oldest = redis::cmd("XRANGE");
            oldest.arg(key).arg("-").arg("+").arg("COUNT").arg(1);
            commands.extend([expire, oldest]);
        }
        let mut new = redis::cmd("XRANGE");
        new.arg(key).arg(state.read.next().to_string()).arg("+").arg("COUNT").arg(READ);
        commands.push(new);
        Asked { commands, told, looks }
    }

    /// Takes the replies to these commands, an error of the server's among them. `server`: the server's time in
    /// milliseconds since 1970 when it replied.
    fn take(&self, asked: Asked, replies: &[Value], server: u64) {
        let (now, wall) = (Instant::now(), wall());
        if replies.len() != asked.commands.len() || replies.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        let (adds, others) = replies.split_at(asked.told.len());
        let (new, look) = match others {
            [_, oldest, new] if asked.looks => (new, Some(oldest)),
            [new] => (new, None),
            _ => return,
        };
        if let Some(oldest) = look.and_then(self::events) {
            let oldest = oldest.first().map(|(id, _)| *id);
            state.register.oldest(oldest, now, fastrand::f64);
        }
        // After that: a Cluster may have looked before it took them.
        for (content, reply) in asked.told.into_iter().zip(adds) {
            state.note_told(content, reply);
        }
        let Some(events) = events(new) else { return };
        let is_all = events.len() < READ;
        let mut ignored = Ignored::default();
        for (id, text) in events {
            state.read = state.read.max(id);
            match text.ok_or("it has no text").and_then(event::read) {
                Ok(event) if event.from == self.shared.name => {}
                Ok(event) => {
                    ignored.facts += event.ignored;
                    // The teller's clock now: it said `at` when the server's said the event's id.
                    let passed = server.saturating_sub(id.0);
                    let theirs =
                        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(event.at.saturating_add(passed)));
                    let anchor = TimeAnchor::of(theirs.unwrap_or(wall), now);
                    for fact in event.facts(anchor, now) {
                        state.hear(fact, id, passed, anchor, now);
                    }
                }
                Err(why) => ignored.add(why),
            }
        }
        state.is_caught_up |= is_all;
        state.go_back(server, now);
        state.report.ignored += (ignored.events + ignored.facts) as u64;
        drop(state);
        ignored.log();
    }
}

impl State {
    fn shares_nothing(&self) -> bool {
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
    fn notice(&mut self, now: Instant) {
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
    fn tellings(&mut self, anchor: TimeAnchor, now: Instant) -> Vec<(Vec<Fact>, Told)> {
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
                events.push((Vec::new(), Told::default()));
            }
            let Some((facts, told)) = events.last_mut() else { break };
            facts.push(fact);
            told.words.extend(word);
            told.openings.extend(opening);
        }
        events
    }

    /// Takes note of the reply to an event that was told.
    fn note_told(&mut self, content: Told, reply: &Value) {
        let Some(id) = EventId::of(reply) else {
            if !std::mem::replace(&mut self.is_refused, true) {
                tracing::warn!("the server takes no news, which are told again: {}", refusal(reply));
            }
            return;
        };
        if std::mem::take(&mut self.is_refused) {
            tracing::info!("the server takes news again");
        }
        self.report.told += (content.words.len() + content.openings.len()) as u64;
        for telling in &content.words {
            self.register.told(telling, id);
        }
        self.openings.extend(content.openings);
    }

    /// Takes up what another instance has told. `passed`: the milliseconds since then.
    fn hear(&mut self, fact: Fact, id: EventId, passed: u64, anchor: TimeAnchor, now: Instant) {
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
    fn go_back(&mut self, server: u64, now: Instant) {
        let is_back = self.read.0 > server.saturating_add(BACK);
        if is_back && self.went_back.is_none_or(|at| now - at >= BACK_AGAIN) {
            self.read = EventId::default();
            self.went_back = Some(now);
        }
    }
}

/// The events that could not be read.
#[derive(Default)]
struct Ignored {
    events: usize,
    facts: usize,
    why: Option<&'static str>,
}

impl Ignored {
    fn add(&mut self, why: &'static str) {
        self.events += 1;
        self.why.get_or_insert(why);
    }

    /// Logs them, in one line for all of a probe.
    fn log(&self) {
        let (events, facts) = (self.events, self.facts);
        if events + facts > 0 {
            let why = self.why.unwrap_or("facts are broken, or of a later version");
            tracing::warn!(events, facts, "news of other instances are ignored: {why}");
        }
    }
}

impl EventId {
    /// Returns the id after this one.
    fn next(self) -> Self {
        Self(self.0, self.1.saturating_add(1))
    }

    /// Reads the id in a reply.
    fn of(reply: &Value) -> Option<Self> {
        let text = match reply {
            Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
            Value::SimpleString(text) => text,
            _ => return None,
        };
        let (time, number) = text.split_once('-')?;
        Some(Self(time.parse().ok()?, number.parse().ok()?))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// Returns the events of a reply, each with its text where it has one. `None`: it is no list of events.
fn events(reply: &Value) -> Option<Vec<(EventId, Option<&[u8]>)>> {
    let Value::Array(events) = reply else { return None };
    Some(events.iter().filter_map(event).collect())
}

fn event(event: &Value) -> Option<(EventId, Option<&[u8]>)> {
    let Value::Array(parts) = event else { return None };
    let [id, fields] = parts.as_slice() else { return None };
    let text = match fields {
        Value::Array(fields) => match fields.as_slice() {
            [_, Value::BulkString(text), ..] => Some(text.as_slice()),
            _ => None,
        },
        _ => None,
    };
    Some((EventId::of(id)?, text))
}

/// Returns the code of a refusal, which is all that is said of it.
fn refusal(reply: &Value) -> String {
    match reply {
        Value::ServerError(error) => error.code().to_owned(),
        _ => "an answer of another sort".to_owned(),
    }
}

fn millis(wall: SystemTime) -> u64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Default for SharedNews {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SharedNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report();
        f.debug_struct("SharedNews").field("name", &self.shared.name).field("report", &report).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
