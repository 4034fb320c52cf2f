//! Top-level settings of access: which callers and pages may call, how many calls at a time, and how slow a caller may be.

use std::time::Duration;

use tower_gemini::prices::Prices;

use crate::config::{
    callers::{self, Callers},
    origins::{self, Origins},
    toml::{Section, Value},
    values::{boolean, duration},
};

/// nginx's `client_body_timeout` is 60 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Twice nginx's `send_timeout`: that one sees each write, this one sees only when a whole piece, which may be a
/// picture, has been sent.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(120);

/// The rules for callers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Access {
    /// The callers whose tokens open the relay. If there are none, it is open to everybody.
    pub(crate) callers: Callers,
    /// The origins whose pages may call.
    pub(crate) origins: Origins,
    /// A flag: callers do not see each other's files, caches and batches.
    pub(crate) separate: bool,
    /// The most calls that one caller may have under way.
    pub(crate) per_caller: Option<usize>,
    /// The most calls that all callers together may have under way.
    pub(crate) total: Option<usize>,
    /// The most calls beyond `total` that wait.
    pub(crate) queued: usize,
    /// The longest time that a call waits in the queue.
    pub(crate) max_wait: Duration,
    /// The longest time between two pieces of a request's body.
    pub(crate) body_timeout: Duration,
    /// The longest time for which a caller may read nothing of an answer that has more.
    pub(crate) unread_timeout: Duration,
}

impl Access {
    /// Reads the rules from the top level of the file. `total_timeout` is the longest time that a call may take at all,
    /// `keys` are the relay's own, and `prices` are those by which callers' money is counted.
    pub(crate) fn read<'k>(
        file: &mut Section<'_>,
        total_timeout: Duration,
        keys: impl Iterator<Item = &'k str>,
        prices: Option<&Prices>,
    ) -> Self {
        let callers = callers::read(file, keys, prices);
        let origins = origins::read(file, !callers.is_empty());
        let shared_files = file.get_placed("shared_files", boolean);
        if let (Some((false, place)), true) = (&shared_files, callers.is_empty()) {
            file.mistake(
                place.clone(),
                "shared_files: no callers are told apart; set [[callers]] or client_tokens, too",
            );
        }
        let separate = shared_files.map_or(callers.named().next().is_some(), |(shared, _)| !shared);
        let per_caller = file.get_placed("max_concurrent_per_caller", calls);
        let total = file.get("max_concurrent", calls);
        let queued = file.get_placed("max_queued", calls_or_zero);
        if let (Some((_, place)), None) = (&queued, total) {
            file.mistake(place.clone(), "max_queued: no call waits where max_concurrent is not set; set it, too");
        }
        let queued = queued.map(|(queued, _)| queued).or(total).unwrap_or(0);
        if let (Some((of_caller, place)), Some(total)) = (&per_caller, total)
            && *of_caller > total.saturating_add(queued)
        {
            let remark = format!(
                "max_concurrent_per_caller has no effect: it is {of_caller}, and all callers together have at most {total} \
                 calls under way (max_concurrent) and {queued} that wait (max_queued)"
            );
            file.remark_at(place.clone(), remark);
        }
        let body_timeout = file.get_placed("body_timeout", duration);
        if let Some((limit, place)) = body_timeout.as_ref().filter(|(limit, _)| *limit > total_timeout) {
            let [limit, total] = [*limit, total_timeout].map(humantime::format_duration);
            let remark =
                format!("body_timeout is {limit}, longer than [timeout] total, {total}, by which most calls end");
            file.remark_at(place.clone(), remark);
        }
        Self {
            callers,
            origins,
            separate,
            per_caller: per_caller.map(|(calls, _)| calls),
            total,
            queued,
            max_wait: total_timeout,
            body_timeout: body_timeout.map_or(BODY_TIMEOUT, |(limit, _)| limit),
            unread_timeout: file.get("unread_timeout", duration).unwrap_or(UNREAD_TIMEOUT),
        }
    }
}

fn calls(value: &Value<'_>) -> Result<usize, String> {
    match calls_or_zero(value)? {
        0 => Err("is 0, and so no call would ever go; it is a whole number from 1, like 100".to_owned()),
        calls => Ok(calls),
    }
}

fn calls_or_zero(value: &Value<'_>) -> Result<usize, String> {
    const RIGHT: &str = "a whole number of calls, like 100";
    let number = value.integer(RIGHT)?;
    usize::try_from(number).map_err(|_| format!("is {number}; it is {RIGHT}"))
}
