//! The current state of a store, for pages and programs.

use std::time::Duration;

/// The current state of a [`RedisStore`](super::RedisStore), and its counts since it was made.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StoreReport {
    /// The state of the connection.
    pub state: StoreState,
    /// The last time without the server that is over, that of the start included: its end is the time since which the store
    /// has been connected, if it is.
    pub last_outage: Option<StoreOutage>,
    /// The name of this instance.
    pub instance: Box<str>,
    /// The server's hosts, without any password.
    pub address: Box<str>,
    /// The server's name and version, such as `valkey 8.1.8`, once it has been reached.
    pub server: Option<Box<str>>,
    /// The instances that share the quota: those that the server has seen in the last 3 seconds, or those assumed before.
    pub instances: u32,
    /// The part of each quota that this instance has while the server does not answer, of what the others have left.
    pub share: f64,
    /// The projects and models that are counted.
    pub scopes: usize,
    /// The counts since the store was made.
    pub counts: StoreCounts,
    /// The setting of the server that puts the counts in danger: it may evict keys when its memory is full.
    pub eviction: Option<Box<str>>,
    /// The refusals of the upstream for quota in spite of a grant.
    pub overshoot: Overshoot,
}

/// The state of the connection to the server.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum StoreState {
    /// The server answers in time, and counts for all.
    Connected,
    /// It does not, and the instance takes no more than its share.
    Away {
        /// The time since when.
        since: Duration,
        /// The reason.
        reason: AwayReason,
    },
}

/// A time without the server that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreOutage {
    /// The first reason that was found.
    pub reason: AwayReason,
    /// The time that it lasted.
    pub lasted: Duration,
    /// The time since its end.
    pub ended: Duration,
}

impl Default for StoreState {
    fn default() -> Self {
        Self::Away { since: Duration::ZERO, reason: AwayReason::Starting }
    }
}

/// The reason why the server does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwayReason {
    /// It has not been reached yet.
    Starting,
    /// It cannot be reached.
    Unreachable,
    /// It has closed the connection.
    Disconnected,
    /// It has not answered in time.
    TimedOut,
    /// It is full: no write is done.
    OutOfMemory,
    /// It takes no writes: it is a replica.
    ReadOnly,
    /// It is loading its data, or busy with a script.
    Busy,
    /// It has refused the name or the password, or does not allow a command.
    Denied,
    /// Its clock was set forward: charges are over there that still count.
    Clock,
    /// It has answered with another error.
    Error,
}

impl AwayReason {
    /// Returns the reason in a word or three, for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "not reached yet",
            Self::Unreachable => "unreachable",
            Self::Disconnected => "connection closed",
            Self::TimedOut => "no answer in time",
            Self::OutOfMemory => "out of memory",
            Self::ReadOnly => "read-only",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Clock => "clock set forward",
            Self::Error => "error",
        }
    }
}

/// The counts of a store since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCounts {
    /// The questions.
    pub takes: u64,
    /// Those that were granted.
    pub granted: u64,
    /// Those that did not fit, or whose scope was closed.
    pub refused: u64,
    /// Those that were decided by the instance's own share.
    pub shared: u64,
    /// Those that were granted from a lease, without the way to the server.
    pub leased: u64,
    /// The leases.
    pub leases: u64,
    /// Those that the server had too late, and charged nothing for.
    pub late: u64,
    /// Those that the server did not answer in time.
    pub timed_out: u64,
    /// Those that failed otherwise.
    pub failed: u64,
    /// The corrections and closings that were dropped, because too many waited for the server: what they would have given
    /// back counts until its minute is over.
    pub corrections_dropped: u64,
    /// The scopes whose charges were told to the server, because it had not, or no longer, known them.
    pub retold: u64,
    /// The times that the server was lost.
    pub outages: u64,
}

/// The refusals of the upstream for quota in spite of a grant, by how full the minute was: they tell how far the shared count
/// and the upstream's are apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overshoot {
    /// The events of each band: the first with at most 50 % of the fullest dimension's limit used, then at most 80, 90, 95, 99
    /// and 100 %, and the last with more or with no limit known.
    pub counts: [u64; 7],
}

impl Overshoot {
    /// The upper ends of the bands, in percent of the limit. The last band has none.
    pub const BANDS: [u64; 6] = [50, 80, 90, 95, 99, 100];
}
