//! A [`QuotaStore`](crate::quota::QuotaStore) on Redis or Valkey: several processes share one quota (feature `redis`).
//!
//! Beyond one machine, each of several relays knows only what it has sent itself. Two that each keep to a limit send twice as
//! much together, and the upstream refuses half. To give each half of the limit wastes what one does not need while the other
//! one waits.
//!
//! All instances with one server and one prefix ask it before each call: one script decides on requests and tokens a minute and
//! requests a day at once, so that no minute, wherever it begins, has more than the limit, and 99 % of it can be used. The
//! server has one small key a project and model, and no service of ours.
//!
//! It never fails a call, and never takes more than the limit because the server is gone. While the server does not answer,
//! each instance takes its share of what was left; when it is back, it is told what was taken meanwhile.
//!
//! # When to use it
//!
//! Use it where several processes send calls for the same projects. One process alone needs none: the limiter counts for
//! itself. Several limiters of one process share a [`MemoryStore`](crate::quota::MemoryStore). A gateway's own counters mostly
//! fail open, or answer 500, when their Redis is down; this one goes on within the limit.
//!
//! # Example
//!
//! ```
//! use tower_gemini::quota::{Answer, Limits, Question, QuotaStore, Reply, Scope};
//! use tower_gemini::redis_store::{RedisStore, StoreState};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_gemini::redis_store::RedisStoreError> {
//! // No server is here: one of four instances has a fifth of the limit, and leaves as much to each of the others.
//! let store = RedisStore::builder("redis://127.0.0.1:1")?.connect();
//! let scope = Scope::new("p1", "gemini-2.5-flash");
//! let question = Question::new(1, 250).limits(Limits::new().requests_per_minute(10));
//! # tokio::time::pause();
//! # tokio::task::yield_now().await;
//! tokio::time::sleep(std::time::Duration::from_secs(2)).await;
//! for expected in [true, true, false] {
//!     let answer = match store.take(&scope, question) {
//!         Reply::Now(answer) => answer,
//!         Reply::Later(answer) => answer.await,
//!         _ => unreachable!("a reply comes now or later"),
//!     };
//!     assert_eq!(matches!(answer, Answer::Granted(_)), expected);
//! }
//! assert!(matches!(store.report().state, StoreState::Away { .. }));
//! # Ok(())
//! # }
//! ```
//!
//! # The server
//!
//! | key | contents |
//! |---|---|
//! | `PREFIX:quota:PROJECT/MODEL` | the charges of the last minute by half seconds, the day's requests, and whether the upstream has closed the scope: 1.1 KiB |
//! | `PREFIX:instances` | the names of the instances, by the time at which they were last seen |
//! | `PREFIX:news` | about 1,000 events, of which most have 160 to 240 bytes, where [news](SharedNews) are shared |
//! | `PREFIX:overflow` | the charges of the projects and models beyond the first 16,384, and of those with names of more than 512 bytes, together |
//!
//! Redis from 6.2 and Valkey are known to work. Set `maxmemory-policy` to `noeviction`, or give it a server of its own: an
//! evicted key is told again, but not before somebody has missed it. Persistence is not needed. A user needs the commands
//! EVAL, EVALSHA, SCRIPT LOAD, GETRANGE, SETRANGE, DEL, PEXPIRE, TIME, EXISTS, ZADD, ZCARD, ZREM, ZREMRANGEBYSCORE and ZSCORE, for
//! news XADD and XRANGE, and may be denied INFO.
//!
//! In a Cluster each key is on one node, and the nodes' clocks need not agree. One slot that moves costs a call or two.
//!
//! # What is shared, and how fresh it is
//!
//! | what | fresh |
//! |---|---|
//! | the requests and tokens of the last minute, the requests of the day | at each call; with a lease, at most half a second old |
//! | a scope that the upstream has closed, and its end | at each call that asks; an instance that knows of a closing reads its end within 0.3 s, of the 64 scopes that were used last |
//! | one look of all at a closed scope | at each call |
//! | the number of instances | 3 s; a smaller one is believed after a minute |
//! | dead keys, blocks of projects, open breakers, where they are switched on | 0.6 s: see [`SharedNews`] |
//! | the limits of callers in requests a minute and a day and in input tokens a minute, where their [`CallerLimits`](crate::caller_limit::CallerLimits) have the store | as the first line |
//! | fair turns, paces, callers' tokens a day and money | not shared |
//!
//! # Leases
//!
//! From 600 requests a minute on, an instance takes more than one call's quota at a time: what it has needed in the last half
//! second, for the rest of the server's current half second, at most a tenth of the limit, and less where little is left. What
//! it does not need is given back. Most calls then need no way to the server.
//!
//! # Failure
//!
//! A call waits 20 ms for the server, and half as long again for an answer that is only just late. With the first that does not
//! come, or is an error, the instance takes its share: `0.8 × (limit − seen) / instances`, where `seen` is what all have charged as last seen, at most 0.3 s before, and
//! grows old as charges do. The share begins 0.4 s after the loss and has its size after 1.6 s, so that an answer or a look that
//! comes late can still tell of a burst of the others. For what nobody can tell, `seen` has the largest step of the totals from one
//! answer to the next in the last second, and each question that was not answered as one of each of the others. It looks at the server about every 250 ms, and comes back with the first answer in time, or the
//! third if that was no good a moment ago; for 1.5 s after that, a call has to fit into its share *and* on the server, because
//! others may still be away.
//!
//! | what happens | what instances do |
//! |---|---|
//! | the server does not answer, or is slower than the time of a call | they take their shares |
//! | it is killed or stopped, and comes back | the same, and tell it their last minute or what it missed |
//! | it is flushed, or evicts a key | who has charges there notices with its next call or look, and tells them; nothing is granted for a second |
//! | it is another one, or a replica that was promoted | the contents are made anew from what all tell; in a Cluster, or where INFO is denied, what a replica or old data lacks is not missed |
//! | it is flushed, or evicts a key, and an instance asks that has no charges there | that one may take up to the limit until it looks, or another tells: 0.3 s |
//! | an instance starts meanwhile, or has not asked for a scope within a minute | it takes its share without having seen what the others have charged |
//! | its memory is full | they take their shares until it writes again |
//! | its clock is set forward, by more than 0.25 s | they take their shares until its contents are made anew from what all tell; not in a Cluster |
//! | its clock goes back | a step of a second is waited out; after a longer one, all charges count anew |
//! | one instance alone is cut off | it takes its share, of which the others do not know: there may be that much too many, once |
//! | the server is lost less than 0.3 s after a burst | who has not asked since does not know of it: the fifth that no share has is for that |
//!
//! A question has a deadline in the server's own time, so that a server that was stopped charges nothing for calls that have
//! long gone elsewhere.
//!
//! # Metrics
//!
//! [`Observe`](crate::observe::Observe) says `tower_gemini.store.` and:
//!
//! | name | reading |
//! |---|---|
//! | `connected` | 1 while the server counts, else 0 with the `reason` |
//! | `instances`, `share`, `scopes` | the instances, this one's part while the server is away, the projects and models |
//! | `evicts` | 1 if the server may evict keys |
//! | `takes` | the questions, by `result` |
//! | `decided_locally` | those that went by the `share` or a `lease` |
//! | `failures` | those that were `late` on the server, `timed_out` or `failed` |
//! | `leases`, `retold`, `outages`, `corrections_dropped` | as in [`StoreCounts`] |
//! | `overshoot` | the upstream's refusals for quota in spite of a grant, by how much of the limit was used, in percent |
//!
//! # Defaults
//!
//! Prefix `tower-gemini`; a random name; 20 ms a call; a look about every 250 ms; leases; 4 instances unless seen.
//!
//! # Errors
//!
//! [`RedisStore::builder`] refuses what is no address. All else is no error but a state: see [`RedisStore::report`]. One line
//! is logged when the server is lost, and one when it is back; a warning if it may evict keys.
//!
//! # Cancellation
//!
//! A question that is dropped before its answer gives back what the answer takes. The store's task ends with its last handle.
//!
//! # Readiness
//!
//! No method waits or blocks.

mod address;
mod ask;
mod builder;
mod driver;
mod error;
mod handle;
mod health;
mod lease;
mod ledger;
mod link;
mod news;
mod observe;
mod patience;
mod probe;
mod registry;
mod report;
mod scope;
mod script;
mod server_clock;
mod share;
mod shared;
#[cfg(test)]
mod sim;

pub use self::{
    builder::RedisStoreBuilder,
    error::RedisStoreError,
    handle::RedisStore,
    news::{NewsReport, SharedNews},
    report::{AwayReason, Overshoot, StoreCounts, StoreOutage, StoreReport, StoreState},
};
