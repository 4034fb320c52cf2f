//! The news: what instances tell each other of what they have learned. [`SharedNews`] says what, and how fresh it is.

mod event;
mod register;
mod reply;
mod state;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use redis::{Cmd, Value};
use tokio::time::{Instant, timeout};

use self::{
    reply::{Ignored, events},
    state::{NewsTold, State},
};
use super::{builder::StoreSettings, link::Link};
use crate::{
    circuit_breaker::CircuitBreakers,
    clock::{TimeAnchor, wall},
    key_pool::KeyPool,
    sync::Mutex,
};

/// The events that the stream has at most, or some more: the server trims whole blocks.
const KEPT: usize = 1_000;

/// The events that are read with one probe.
const READ: usize = 128;

/// The time after which a stream is deleted that nobody has asked for: a day's block lasts for 25 hours.
const EXPIRES: Duration = Duration::from_secs(26 * 3_600);

/// The probes after which the oldest event is looked at.
const LOOK: u64 = 8;

/// The knowledge that instances tell each other over a [store](crate::redis_store): keys that are disabled, blocks of projects,
/// and open breakers. Each is shared only if it is switched on here.
///
/// A cheap handle: all clones are the same. It belongs to one store, and ends with that. It holds the pool and the breakers.
///
/// # What is told
///
/// | what | told | taken up by others | until |
/// |---|---|---|---|
/// | a key that is disabled, after refusals or by hand | at the next probe: within 0.3 s | at their next: within 0.6 s | it is enabled, by a [check](KeyPool::recheck) or by hand, wherever that is |
/// | a key that is enabled again | the same | the same | |
/// | a block of a project in the key pool that lasts for 5 s or more, its looks, and its end | the same | the same; their first look is at least 1 s later, so that mostly one of them looks | it ends, an answer ends it, or it is lifted, wherever that is |
/// | a breaker that opens by itself | the same | the same, unless their own calls were answered in the last 5 to 10 s | its time is over; then each instance probes for itself, with one call |
/// | the blocks of the limiter | no: the store closes and opens the scope itself, for all, with the next call | | |
///
/// Shorter blocks are over before others gain by them. A breaker that closes is told to nobody: whoever is open finds out by a
/// probe of its own, because an answer there says nothing of the network here. A breaker that is held open or closed by
/// [force](CircuitBreakers::force_open) is the program's own matter.
///
/// An instance whose own network is down has its breakers open time and again. It closes nothing for the others: who gets
/// answers does not believe that the upstream is down, and who is open, probing or recovering goes by what it sees.
///
/// A limiter needs no news. The store keeps a closed scope where the charges are, and each call asks it. Two things go by
/// what an instance knows without a call: the choice of a project, which the blocks of the key pool decide that are told
/// here; and reports, which show the closed scopes from the probe.
///
/// # The last word
///
/// Each thing has a last word: what was found last, by whomever. An instance keeps what it has found itself later than the
/// others, and tells them; what it has heard it does not tell again, as long as that is on the stream. The time of finding
/// is told as an age, and the server's time stands for all clocks. So words may be lost, late, or told twice.
///
/// The stream has about 1,000 events, a key of its own and no number to agree on. What falls off its end, or is lost when the
/// server is flushed, is evicted or restarted empty, is told again by one of those who know it, within 5 s. An instance that
/// starts reads the whole stream first, in 2.5 s at most; what it has kept over a restart counts as older than that.
///
/// Whoever may write to the server can take keys out: it needs a password where others reach it. A key is told by its
/// fingerprint, and no event has anything that is secret.
///
/// # Costs
///
/// Each probe reads what is new, and every eighth looks at the oldest event. At most 4 events of 16 facts are told with one
/// probe, and 128 are read. An instance knows at most 4,096 things. The event of one key has 160 bytes, that of a block 240. On
/// Redis 7.0 a read takes 9 to 13 µs of the server's time and an event 14 to 23, so that 100 instances, each of which probes four
/// times a second, take less than a percent of it.
#[derive(Clone)]
pub struct SharedNews {
    shared: Arc<Shared>,
}

struct Shared {
    /// The name of this instance, by which it knows its own events.
    name: Box<str>,
    state: Mutex<State>,
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
struct NewsAsked {
    /// The commands, all of one key.
    commands: Vec<Cmd>,
    told: Vec<NewsTold>,
    looks: bool,
}

impl SharedNews {
    /// Creates news that shares nothing yet.
    pub fn new() -> Self {
        let name = format!("{:016x}", fastrand::u64(..)).into();
        Self { shared: Arc::new(Shared { name, state: Mutex::new(State::new(Instant::now())) }) }
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
        let key = format!("{}:news", settings.prefix);
        let mut asked = self.ask(&key);
        if asked.commands.is_empty() {
            return;
        }
        if link.is_cluster() {
            // The clock of the stream's node is another one.
            let mut time = redis::cmd("EVAL");
            time.arg("local time = redis.call('TIME') return time[1] * 1000 + math.floor(time[2] / 1000)")
                .arg(1)
                .arg(key);
            asked.commands.push(time);
        }
        let replies = timeout(settings.call_timeout, link.call_all(&asked.commands)).await;
        let Ok(Ok(mut replies)) = replies else { return };
        let mut server = server;
        if link.is_cluster() {
            let _ = asked.commands.pop();
            match replies.pop() {
                Some(Value::Int(time)) => server = u64::try_from(time).unwrap_or(server),
                _ => return,
            }
        }
        self.take(asked, &replies, server);
    }

    /// Returns the commands that the next probe sends along, on the stream of that key, in whatever order they reach the
    /// server. None where nothing is shared.
    fn ask(&self, key: &str) -> NewsAsked {
        let (now, at, anchor) = (Instant::now(), millis(wall()), TimeAnchor::read());
        let mut state = self.shared.state.lock();
        if state.shares_nothing() {
            return NewsAsked { commands: Vec::new(), told: Vec::new(), looks: false };
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
        NewsAsked { commands, told, looks }
    }

    /// Takes the replies to these commands, an error of the server's among them. `server`: the server's time in
    /// milliseconds since 1970 when it replied.
    fn take(&self, asked: NewsAsked, replies: &[Value], server: u64) {
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
        if let Some(oldest) = look.and_then(events) {
            let oldest = oldest.first().map(|(id, _)| *id);
            state.register.oldest(oldest, now, fastrand::f64);
        }
        // After that: a Cluster may have looked before it took them.
        for (content, reply) in asked.told.into_iter().zip(adds) {
            state.note_told(content, reply);
        }
        let Some(events) = events(new) else { return state.note_refused(new) };
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
        state.note_ignored(&ignored, now);
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
