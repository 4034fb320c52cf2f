//! The last failures that callers have seen, and the history of all calls, kept for `/status`.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tower::BoxError;
use tower_gemini::{
    Error, Outcome,
    call::ServiceTier,
    clock,
    failure::{Failure, Fault, Kind},
};

use crate::show::history::{End, History, Hour, Lately};

/// The number of failures that are kept, those that repeat each other counted once. The oldest of the caller and kind
/// that have most of them goes first, so that one caller cannot drive out the others'.
pub(crate) const KEPT: usize = 100;

/// The time for which failures are news.
const NEWS: Duration = Duration::from_secs(300);

/// The time within which repetitions are counted together.
const STEP: Duration = Duration::from_secs(10);

/// The length, in bytes, at which texts are cut.
const LONGEST: usize = 600;

/// A ring of failures with a history of calls, and the layer that fills both. It belongs right inside
/// `ErrorResponseLayer`: there a failure is still an error, and every layer that could do something about it has done so.
#[derive(Clone)]
pub(crate) struct Failures(Arc<Ring>);

struct Ring {
    /// The layer whose refusals are the relay's own.
    admission: &'static str,
    secrets: RwLock<Vec<String>>,
    records: Mutex<VecDeque<FailureRecord>>,
    /// Locked once for each call, when it has ended.
    history: Mutex<History>,
}

/// One failure, and how often it was repeated. Nothing in it is secret: texts are cleaned before they are kept.
#[derive(Clone, Debug)]
pub(crate) struct FailureRecord {
    pub(crate) time: SystemTime,
    pub(crate) at: Instant,
    /// The calls that have failed like that.
    pub(crate) calls: Calls,
    /// The name of the caller, if it has one.
    pub(crate) caller: Option<String>,
    pub(crate) model: String,
    pub(crate) fault: Fault,
    pub(crate) kind: Kind,
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) attempts: u32,
    /// The fingerprint of the key that was used last.
    pub(crate) key: Option<String>,
    /// The answer had begun before it failed.
    pub(crate) in_the_answer: bool,
    /// The relay's own admission has refused the call: neither the upstream nor a key of the relay has to do with it.
    pub(crate) at_admission: bool,
}

impl FailureRecord {
    /// Returns whether it is the caller's own fault.
    pub(crate) fn is_by_caller(&self) -> bool {
        let code = StatusCode::from_u16(self.code).unwrap_or_default();
        is_by_caller(self.fault, self.kind, self.at_admission, code)
    }

    /// Returns whether a person would say the same of both.
    fn repeats(&self, other: &Self) -> bool {
        self.is_akin(other)
            && (&self.model, self.fault, self.code) == (&other.model, other.fault, other.code)
            && self.in_the_answer == other.in_the_answer
    }

    /// Returns whether both have one kind and one caller.
    fn is_akin(&self, other: &Self) -> bool {
        (self.kind, self.at_admission, &self.caller) == (other.kind, other.at_admission, &other.caller)
    }
}

/// A count of calls, and of those that are news.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) all: u64,
    /// The beginnings of steps, and the calls of each.
    news: VecDeque<(Instant, u64)>,
}

impl Calls {
    fn one(now: Instant) -> Self {
        Self { all: 1, news: VecDeque::from([(now, 1)]) }
    }

    fn add(&mut self, now: Instant) {
        self.all += 1;
        self.news.retain(|(step, _)| now.saturating_duration_since(*step) <= NEWS);
        match self.news.back_mut() {
            Some((step, calls)) if now.saturating_duration_since(*step) < STEP => *calls += 1,
            _ => self.news.push_back((now, 1)),
        }
    }

    /// Returns the number of calls that are news.
    pub(crate) fn lately(&self, now: Instant) -> u64 {
        let news = self.news.iter().filter(|(step, _)| now.saturating_duration_since(*step) <= NEWS);
        news.map(|(_, calls)| calls).sum()
    }
}

/// Adds a failure to those that are kept.
fn keep(records: &mut VecDeque<FailureRecord>, mut record: FailureRecord) {
    if let Some(same) = records.iter().position(|known| known.repeats(&record)).and_then(|at| records.remove(at)) {
        let now = record.at;
        record.calls = same.calls;
        record.calls.add(now);
    } else if records.len() >= KEPT {
        let akin = |of: &FailureRecord| records.iter().filter(|other| other.is_akin(of)).count();
        // Of equals, the oldest.
        let most = records.iter().map(akin).enumerate().rev().max_by_key(|(_, akin)| *akin);
        if let Some((at, _)) = most {
            records.remove(at);
        }
    }
    records.push_back(record);
}

impl Failures {
    /// Makes an empty ring. `admission` is the name of the layer whose refusals are the relay's own.
    pub(crate) fn new(admission: &'static str) -> Self {
        Self(Arc::new(Ring {
            admission,
            secrets: RwLock::default(),
            records: Mutex::default(),
            history: Mutex::new(History::new(Instant::now())),
        }))
    }

    /// Hides these secrets, and those that were hidden before, wherever a text repeats them.
    pub(crate) fn hide<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let mut hidden = self.0.secrets.write();
        for secret in secrets {
            // A shorter one would be found in every text.
            if secret.len() >= 8 && !hidden.iter().any(|known| known == secret) {
                hidden.push(secret.to_owned());
            }
        }
    }

    /// Returns the failures, the newest first.
    pub(crate) fn latest(&self) -> Vec<FailureRecord> {
        self.0.records.lock().iter().rev().cloned().collect()
    }

    /// Returns the last hour of all calls, and that of the models that are used most.
    ///
    /// One hour takes 7 µs to add up (measured, of 60 minutes with all buckets) and 25 of them 220 µs: calls that end
    /// meanwhile wait for one at most.
    pub(crate) fn history(&self, now: Instant) -> (Hour, Vec<(String, Lately, Hour)>) {
        let (hour, names) = {
            let history = self.0.history.lock();
            (history.hour(now), history.followed())
        };
        let model = |name: String| {
            let (lately, hour) = self.0.history.lock().model(&name, now)?;
            Some((name, lately, hour))
        };
        (hour, names.into_iter().filter_map(model).collect())
    }

    /// Cleans a text from any source, so that it may be shown: it has no key in it, and is not too long.
    pub(crate) fn clean(&self, text: &str) -> String {
        // A failure of the library has nothing in its message that looks like a key of Google's.
        let text = Failure::local(Kind::BadRequest, text).message().to_owned();
        let mut text = self.0.secrets.read().iter().fold(text, |text, secret| text.replace(secret.as_str(), "[key]"));
        if text.len() > LONGEST {
            text.truncate((0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
            text.push('…');
            // A truncated text keeps the room that it had, and a hundred of them are kept.
            text.shrink_to_fit();
        }
        text
    }

    /// Returns whether the relay's own admission made the error.
    pub(super) fn is_own(&self, error: &BoxError) -> bool {
        Error::find(&**error).is_some_and(|error| error.layer() == self.0.admission)
    }

    /// Keeps the failure of a call, if it has one.
    pub(super) fn record(&self, model: &str, caller: Option<&str>, outcome: &Outcome, at_admission: bool) {
        let Some(failure) = outcome.failure() else { return };
        let now = Instant::now();
        let record = FailureRecord {
            time: clock::wall(),
            at: now,
            calls: Calls::one(now),
            caller: caller.map(str::to_owned),
            model: self.clean(model),
            fault: failure.fault(),
            kind: failure.kind(),
            code: failure.code().as_u16(),
            message: self.clean(message(failure, outcome)),
            attempts: outcome.attempts(),
            key: outcome.key().map(str::to_owned),
            in_the_answer: failure.is_after_commit(),
            at_admission,
        };
        keep(&mut self.0.records.lock(), record);
    }

    /// Counts a call that has ended.
    pub(super) fn count(&self, model: &str, end: End, tier: Option<ServiceTier>, at_admission: bool) {
        let now = Instant::now();
        // A name is known when somebody has judged a call to it, and a caller's mistake may be the name itself.
        let is_known = !at_admission && !matches!(end, End::Failed(Fault::Caller) | End::Left);
        {
            let mut history = self.0.history.lock();
            history.add(end, tier, now);
            if model.is_empty() || history.add_to(model, end, tier, now) || !is_known {
                return;
            }
        }
        // A name that had to be cleaned is followed by the clean one.
        let name = self.clean(model);
        let mut history = self.0.history.lock();
        if !history.add_to(&name, end, tier, now) {
            history.follow(name, end, tier, now);
        }
    }
}

/// Returns whether a failure is the caller's own fault, whichever layer has found it. Of what the relay's own admission
/// refuses, only a relay that is full is nobody's.
pub(crate) fn is_by_caller(fault: Fault, kind: Kind, at_admission: bool, code: StatusCode) -> bool {
    match at_admission {
        true => code != StatusCode::SERVICE_UNAVAILABLE,
        false => {
            fault == Fault::Caller
                || matches!(kind, Kind::BodyTooLarge | Kind::BadRequest | Kind::RequestBody | Kind::CallerLimited)
        }
    }
}

/// Returns the message to show. An API that refuses a request may quote the part that it did not understand, and that
/// is the caller's alone.
fn message<'a>(failure: &'a Failure, outcome: &Outcome) -> &'a str {
    let quotes_nothing = matches!(
        failure.kind(),
        Kind::ContextTooLong | Kind::ModelNotFound | Kind::LocationUnsupported | Kind::IpBlocked | Kind::OutputLimit
    );
    match failure.fault() == Fault::Caller && outcome.was_sent() && !quotes_nothing {
        true => "(not shown: the API's words may quote the request; the caller has got them)",
        false => failure.message(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::history::FOLLOWED;

    fn failed(caller: &str, model: &str, kind: Kind, at: Instant) -> FailureRecord {
        FailureRecord {
            time: clock::wall(),
            at,
            calls: Calls::one(at),
            caller: Some(caller.to_owned()),
            model: model.to_owned(),
            fault: Fault::Local,
            kind,
            code: 429,
            message: at.elapsed().as_secs().to_string(),
            attempts: 0,
            key: None,
            in_the_answer: false,
            at_admission: false,
        }
    }

    #[test]
    fn a_failure_that_is_repeated_is_kept_once_and_counted() {
        let (mut records, start) = (VecDeque::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for nth in 0..60 {
            keep(&mut records, failed("a", "m", Kind::CallerLimited, at(nth * 10)));
            keep(&mut records, failed("b", "m", Kind::CallerLimited, at(nth * 10)));
        }
        assert_eq!(records.len(), 2);
        let calls = &records[0].calls;
        assert_eq!((calls.all, calls.lately(at(590)), calls.lately(at(900))), (60, 31, 0));
        assert!(calls.news.len() <= 31);
        assert_eq!(records[0].at, at(590), "the last counts");
    }

    #[test]
    fn one_caller_drives_out_its_own_failures_alone() {
        let (mut records, now) = (VecDeque::new(), Instant::now());
        keep(&mut records, failed("a", "m", Kind::ServerError, now));
        for nth in 0..300 {
            keep(&mut records, failed("b", &format!("m{nth}"), Kind::CallerLimited, now));
        }
        assert_eq!(records.len(), KEPT);
        assert_eq!((&*records[0].model, &*records[1].model, &*records[99].model), ("m", "m201", "m299"));
    }

    #[test]
    fn hostile_names_are_followed_clean_short_and_no_more_than_the_map_takes() {
        let failures = Failures::new("admission");
        failures.hide(["a-secret-of-the-relay"]);
        let count = |model: &str, end: End, at_admission: bool| {
            failures.count(model, end, Some(ServiceTier::Standard), at_admission);
            let names = failures.0.history.lock().followed();
            assert!(names.len() <= FOLLOWED && names.iter().all(|name| name.len() <= LONGEST + '…'.len_utf8()));
            assert!(names.iter().all(|name| !name.contains("a-secret") && !name.contains("AIza")), "{names:?}");
            names
        };
        let failed = End::Failed(Fault::Service);
        for (end, at_admission) in [(End::Failed(Fault::Caller), false), (End::Left, false), (failed, true)] {
            assert!(count("nobody-knows", end, at_admission).is_empty(), "{end:?}");
        }
        let key = format!("AIza{}", "x".repeat(35));
        for name in ["x".repeat(100_000), "a-secret-of-the-relay".to_owned(), key] {
            count(&name, failed, false);
            // The same again is the same model.
            assert_eq!(count(&name, failed, false), count(&name, failed, false));
        }
        assert_eq!(failures.0.history.lock().followed().len(), 3);
        for nth in 0..1_000 {
            count(&format!("invented-{nth}"), failed, false);
        }
        assert_eq!(failures.history(Instant::now()).1.len(), FOLLOWED);
    }
}
