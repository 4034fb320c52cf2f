//! The events on the stream, as text: what one instance tells in one go.
//!
//! Times in it are those of the teller's wall clock, and so is `at`, the time of telling. The server gives each event its own
//! time as its id, so that the reader knows how long ago that was, and no two clocks have to agree.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::{
    circuit_breaker::OpeningMemory,
    clock::TimeAnchor,
    key_pool::{Fingerprint, PoolSubject, Standing, StandingMemory},
};

/// The version of the form. What is added later is in a new kind of fact, which older readers pass over.
const VERSION: u32 = 1;

/// The most facts of one event.
pub(super) const MOST_FACTS: usize = 16;

/// The longest event that is read: one of as many facts with the longest names is shorter.
const LONGEST: usize = 32 * 1024;

/// One thing that is told.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum FactText {
    Key {
        key: Box<str>,
        /// The milliseconds since it was found.
        age: u64,
        #[serde(flatten)]
        standing: StandingMemory,
    },
    Park {
        project: Box<str>,
        part: Box<str>,
        #[serde(default, skip_serializing_if = "str::is_empty")]
        model: Box<str>,
        age: u64,
        #[serde(flatten)]
        standing: StandingMemory,
    },
    Open(OpeningMemory),
}

#[derive(Serialize, Deserialize)]
struct EventText<F> {
    version: u32,
    from: Box<str>,
    /// The milliseconds from 1970 to the time of telling.
    at: u64,
    facts: Vec<F>,
}

/// One thing to tell.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    /// The standing of a thing of the pool, and the milliseconds since it was found.
    Standing(PoolSubject, Standing, u64),
    Opening(OpeningMemory),
}

/// An event that was read.
#[derive(Debug)]
pub(super) struct NewsEvent {
    /// The name of the instance that has told it.
    pub(super) from: Box<str>,
    pub(super) at: u64,
    facts: Vec<FactText>,
    /// The number of facts that are of a kind that is not known, or broken.
    pub(super) ignored: usize,
}

impl std::fmt::Debug for FactText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key { .. } => "Key",
            Self::Park { .. } => "Park",
            Self::Open(_) => "Open",
        })
    }
}

/// Writes an event of at most [`MOST_FACTS`] facts. `anchor` is this instance's.
pub(super) fn write(from: &str, at: u64, facts: &[Fact], anchor: TimeAnchor, now: Instant) -> String {
    let facts = facts.iter().take(MOST_FACTS).filter_map(|fact| FactText::of(fact, anchor, now)).collect();
    let event = EventText::<FactText> { version: VERSION, from: from.into(), at, facts };
    // Nothing in it can fail: no map has keys that are not text.
    serde_json::to_string(&event).unwrap_or_default()
}

/// Reads an event.
///
/// # Errors
///
/// The reason for which it cannot be read, without any of its text.
pub(super) fn read(text: &[u8]) -> Result<NewsEvent, &'static str> {
    if text.len() > LONGEST {
        return Err("it is too long");
    }
    let event: EventText<&RawValue> = serde_json::from_slice(text).map_err(|_| "it is no event")?;
    if event.version != VERSION {
        return Err("it is of another version");
    }
    if event.from.len() > 64 {
        return Err("the name of its instance is too long");
    }
    let facts: Vec<FactText> =
        event.facts.iter().take(MOST_FACTS).filter_map(|fact| serde_json::from_str(fact.get()).ok()).collect();
    let ignored = event.facts.len() - facts.len();
    Ok(NewsEvent { from: event.from, at: event.at, facts, ignored })
}

impl NewsEvent {
    /// Returns its facts. `anchor` is the teller's, as of now. Those that are over are left out.
    pub(super) fn facts(&self, anchor: TimeAnchor, now: Instant) -> impl Iterator<Item = Fact> {
        self.facts.iter().filter_map(move |fact| fact.fact(anchor, now))
    }
}

impl FactText {
    /// Returns the text of a fact; `None`: it is over.
    fn of(fact: &Fact, anchor: TimeAnchor, now: Instant) -> Option<Self> {
        Some(match fact {
            Fact::Standing(PoolSubject::Key(fingerprint), standing, age) => {
                Self::Key { key: fingerprint.to_string().into(), age: *age, standing: standing.memory(anchor, now)? }
            }
            Fact::Standing(PoolSubject::Part { project, part, model }, standing, age) => Self::Park {
                project: (&**project).into(),
                part: part.as_str().into(),
                model: (&**model).into(),
                age: *age,
                standing: standing.memory(anchor, now)?,
            },
            Fact::Opening(opening) => Self::Open(opening.clone()),
        })
    }

    fn fact(&self, anchor: TimeAnchor, now: Instant) -> Option<Fact> {
        let (subject, standing, age) = match self {
            Self::Key { key, age, standing } => (PoolSubject::Key(Fingerprint::parse(key)?), standing, *age),
            Self::Park { project, part, model, age, standing } => {
                (PoolSubject::part(project, part, model)?, standing, *age)
            }
            Self::Open(opening) => return Some(Fact::Opening(opening.clone())),
        };
        let standing = Standing::told(&subject, standing, anchor, now)?;
        Some(Fact::Standing(subject, standing, age))
    }
}
