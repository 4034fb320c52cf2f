//! The time to come again, and how it is said. Pure: it is told the time.
//!
//! A stack that has spent its attempts must not see them multiplied by those of its callers, and there is no hint that
//! all of them read. Measured with the SDKs of November 2026 (requests for one call that is refused):
//!
//! | read by | hint | taken |
//! |---|---|---|
//! | openai (Python, Node) | `x-should-retry: false` | always; 1 request instead of 3 |
//! | openai (Node), @langchain/google | `Retry-After` | up to 60 s; Node is back in 0.5 s after a longer one |
//! | openai (Python) | `Retry-After` | up to 120 s; it gives up after a longer one |
//! | ai | `Retry-After` | below 60 s; otherwise it is back in 2 s, and again in 4 s |
//! | @langchain/google, @langchain/google-genai | "try again in N s" in the message of a 429 | up to 60 s; without either they give up |
//! | the same | "will reset at" in the message of a 429 | they give up at once |
//! | google-genai and @google/genai, interactions | `Retry-After` | four times in a row; however long (Python), 8 s at most (JavaScript) |
//! | the same, all else | none | they make 1 request |

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};

use crate::{
    call::Surface,
    clock,
    context::{Outcome, RetryAdvice},
    failure::{Failure, Fault, Kind, TimeoutKind},
    quota::until_pacific_midnight,
};

/// The header that stops OpenAI's clients, which no standard knows.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The header with a wait in milliseconds, which no standard knows either.
pub(super) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// The longest `Retry-After`. OpenAI's Node client and LangChain's take 60 s and ignore more, so that they would come
/// back at once. `ai` takes less than 60 s: of a longer wait it learns nothing, fails within 6 s, and does not hang for
/// two minutes that change nothing. The true time is in RetryInfo.
const LONGEST: Duration = Duration::from_secs(60);

/// The same for an interaction, where the wait is longer than that or has no end: Google's Python client would sleep for
/// four minutes before it told its user, and the one for JavaScript does not wait for longer than this anyway.
const LONGEST_OF_INTERACTIONS: Duration = Duration::from_secs(8);

/// The wait where nobody knows one: an outage of seconds is over by then, and `ai` comes back after twice this instead
/// of after 2 s and 4 s.
const UNKNOWN: Duration = Duration::from_secs(10);

/// The same for a quota: half of the minute in which it would be renewed.
const UNKNOWN_QUOTA: Duration = Duration::from_secs(30);

/// The hints for one failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hints {
    again: Again,
    /// The second since 1970 at which the wait begins.
    now: u64,
    surface: Surface,
    /// Set if nobody should try again by itself.
    is_final: bool,
    /// Set if the server has spent attempts for a quota whose end it can only guess: whoever reads a wait in words would
    /// have them spent again.
    is_spent: bool,
}

/// The time to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// Nothing is said: the failure does not pass with time, or nobody has to know.
    Unsaid,
    /// After a wait that is known.
    After(Duration),
    /// After a wait that nobody knows, of an outage.
    Perhaps,
    /// After a wait that nobody knows, of a quota. It is not said in words: LangChain makes seven requests of the one that
    /// it makes of a 429 without them. @langchain/google makes seven of `Retry-After` alone, unless words stop it.
    PerhapsQuota,
    /// One call may look then, for all others; the end is not known.
    Look(Duration),
    /// With a new day, after this time.
    NextDay(Duration),
    /// No wait helps, but the status is one that needs a hint.
    Never,
}

impl Hints {
    /// Chooses the hints for an answer of that status.
    pub(super) fn of(status: StatusCode, outcome: &Outcome, surface: Surface, now: SystemTime) -> Self {
        let again = Again::of(status, outcome, now);
        let is_resent = status == StatusCode::CONFLICT || passes_with_time(status);
        // A layer used alone has tried once: there its caller's retries are the only ones.
        let is_final = is_resent && (outcome.is_counted() || again.is_long() || !at_once_may_help(outcome));
        let is_spent = status == StatusCode::TOO_MANY_REQUESTS && outcome.attempts() > 0 && !is_told(outcome);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { again, now, surface, is_final, is_spent }
    }

    /// Returns the wait of RetryInfo for an event of a stream that has begun, which has no other hint.
    pub(super) fn retry_info_of_event(failure: &Failure, outcome: &Outcome) -> Option<Duration> {
        outcome.retry_after().filter(|_| passes_with_time(failure.code()))
    }

    /// Writes the headers.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        if let Some(wait) = self.header() {
            headers.insert(RETRY_AFTER, clock::in_seconds(wait));
        }
        if self.is_final {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
    }

    /// Returns the wait of RetryInfo: the true one, where it is known.
    pub(super) fn retry_info(self) -> Option<Duration> {
        match self.again {
            Again::After(wait) | Again::Look(wait) | Again::NextDay(wait) => Some(wait),
            Again::Unsaid | Again::Perhaps | Again::PerhapsQuota | Again::Never => None,
        }
    }

    /// Adds the time to a message, in words, once. `None`: there is none to say, or the message says it.
    pub(super) fn told(self, message: &str) -> Option<Told<'_>> {
        let message = message.trim_end();
        // LangChain reads the first time in a message.
        (self.has_words() && !is_said(message)).then_some(Told { message, hints: self })
    }

    fn has_words(self) -> bool {
        match self.again {
            Again::Unsaid | Again::Never => false,
            Again::PerhapsQuota => self.is_spent,
            Again::Perhaps | Again::After(_) | Again::Look(_) | Again::NextDay(_) => true,
        }
    }

    /// Says the time so that those who read messages take it for a wait only where it is a short one.
    fn write_words(self, begins_sentence: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (t, i) = if begins_sentence { ("T", "I") } else { ("t", "i") };
        match (self.again, self.header()) {
            (Again::Unsaid | Again::Never, _) => Ok(()),
            (Again::PerhapsQuota, _) => write!(f, "{i}t will reset at a time that the upstream does not say"),
            (Again::Perhaps, _) => write!(f, "{t}ry again in {} s", UNKNOWN.as_secs()),
            (Again::After(wait), Some(seconds)) if is_short(wait) && !self.is_spent => {
                write!(f, "{t}ry again in {seconds} s")
            }
            (Again::After(wait), _) => {
                write!(f, "{i}t will reset at {} UTC, {} from now", self.after(wait), Long(wait))
            }
            (Again::Look(wait), _) => {
                write!(f, "{i}t will reset at {} UTC at the earliest, {} from now", self.after(wait), Long(wait))
            }
            (Again::NextDay(wait), _) => {
                let (time, long) = (self.after(wait), Long(wait));
                write!(f, "{t}he quota will reset at {time} UTC, midnight Pacific, {long} from now")
            }
        }
    }

    /// Returns the time of the day after a wait, to the next full minute.
    fn after(self, wait: Duration) -> MinuteOfDay {
        MinuteOfDay(self.now.saturating_add(wait.as_secs()).div_ceil(60) % (24 * 60))
    }

    /// Returns the whole seconds of `Retry-After`: rounded up, because too late is better than too early, but not past the
    /// longest; and never 0.
    fn header(self) -> Option<u64> {
        let longest = if self.surface == Surface::Interactions { LONGEST_OF_INTERACTIONS } else { LONGEST };
        let wait = match self.again {
            Again::Unsaid => return None,
            Again::Perhaps => UNKNOWN,
            Again::PerhapsQuota => UNKNOWN_QUOTA,
            Again::After(wait) if is_short(wait) => wait.min(LONGEST),
            Again::After(_) | Again::Never => longest,
            Again::Look(wait) | Again::NextDay(wait) => wait.min(longest),
        };
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }
}

impl Again {
    fn of(status: StatusCode, outcome: &Outcome, now: SystemTime) -> Self {
        let needs_hint = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        let never = if needs_hint { Self::Never } else { Self::Unsaid };
        if !passes_with_time(status) {
            return Self::Unsaid;
        }
        let Some(failure) = outcome.failure() else { return Self::unknown(status, needs_hint) };
        if outcome.is_own_key_refused() || failure.kind() == Kind::KeysDisabled {
            return never;
        }
        // A layer knows of another project or model that is free then.
        if let Some(RetryAdvice::After(wait)) = outcome.retry() {
            // The time of the next look at what no wait brings back.
            let is_look = !is_short(wait) && matches!(failure.kind(), Kind::QuotaZero | Kind::QuotaSpend);
            // The rest that this side gives to a quota of which nobody knows more.
            let is_rest = matches!(failure.kind(), Kind::QuotaUnknown | Kind::QuotaMinute | Kind::QuotaTokensMinute)
                && failure.hint().is_none();
            if !is_look && !is_rest {
                return Self::After(wait);
            }
        }
        let hint = failure.hint().map(|hint| hint.delay());
        match (failure.kind(), hint) {
            (Kind::QuotaZero, _) => never,
            // The pool answers so where its projects cannot pay: its operator has to act.
            (Kind::KeysExhausted, _) if status == StatusCode::SERVICE_UNAVAILABLE => never,
            // A day's quota does not come back in the seconds that a proxy, or a minute's quota beside it, asks for.
            (Kind::QuotaDay | Kind::QuotaGrounding, None) => Self::NextDay(until_pacific_midnight(now)),
            _ if matches!(failure.fault(), Fault::Caller | Fault::Key) => never,
            (_, Some(wait)) if failure.is_lasting() => Self::Look(wait),
            (_, Some(wait)) => Self::After(wait),
            (Kind::QuotaSpend, None) => never,
            (_, None) => Self::unknown(status, needs_hint),
        }
    }

    fn unknown(status: StatusCode, needs_hint: bool) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::PerhapsQuota,
            _ if needs_hint => Self::Perhaps,
            _ => Self::Unsaid,
        }
    }

    /// Returns whether the wait is longer than clients wait.
    fn is_long(self) -> bool {
        match self {
            Self::Unsaid | Self::Perhaps | Self::PerhapsQuota => false,
            Self::After(wait) => !is_short(wait),
            Self::Look(_) | Self::NextDay(_) | Self::Never => true,
        }
    }
}

/// Removes an upstream's own hints. Clients believe `x-should-retry` and milliseconds before anything else, whatever the
/// status.
pub(super) fn remove(status: StatusCode, headers: &mut HeaderMap) {
    headers.remove(SHOULD_RETRY);
    headers.remove(RETRY_AFTER_MS);
    if !passes_with_time(status) {
        headers.remove(RETRY_AFTER);
    }
}

/// Returns whether clients wait that long. The margin that the limiter leaves after a minute makes no other wait of it.
fn is_short(wait: Duration) -> bool {
    wait.as_secs() <= LONGEST.as_secs()
}

/// Returns whether the upstream itself has said when a quota is back.
fn is_told(outcome: &Outcome) -> bool {
    outcome.failure().is_some_and(|failure| failure.fault() != Fault::Local && failure.hint().is_some())
}

/// Returns whether a failure of that status may be over after some time, so that a time to come again may be said. What
/// the pool remembers of a model that is closed for a project is no reason for its caller to come again.
pub(super) fn passes_with_time(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error()
}

/// Returns whether the same call may succeed at once, so that a client may try by itself. The total clock has run out
/// only after all the time that the server gives to a call.
fn at_once_may_help(outcome: &Outcome) -> bool {
    outcome.failure().is_none_or(|failure| {
        !matches!(failure.fault(), Fault::Caller | Fault::Key)
            && !matches!(failure.kind(), Kind::KeysDisabled | Kind::Timeout(TimeoutKind::Total))
    })
}

/// A message, and the time in words behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    message: &'a str,
    hints: Hints,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)?;
        match self.message.chars().last() {
            Some('.' | '!' | '?') => {
                f.write_str(" ")?;
                self.hints.write_words(true, f)?;
                f.write_str(".")
            }
            Some(_) => {
                f.write_str("; ")?;
                self.hints.write_words(false, f)
            }
            None => self.hints.write_words(false, f),
        }
    }
}

/// A time of the day, as its minutes since midnight.
struct MinuteOfDay(u64);

impl fmt::Display for MinuteOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A long time, in a unit that a person would choose.
struct Long(Duration);

impl fmt::Display for Long {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..=119 => write!(f, "about {} s", seconds.max(1)),
            120..=7_199 => write!(f, "about {} min", seconds.div_ceil(60)),
            _ => write!(f, "about {} h", seconds.div_ceil(3_600)),
        }
    }
}

/// Returns whether a message says already when to try again, in the words that LangChain reads: "try again in 5 s", "retry
/// after 5 s".
fn is_said(message: &str) -> bool {
    let goes_on = |after: &str, words: &str| {
        let time = after.split_at_checked(words.len()).filter(|(begin, _)| begin.eq_ignore_ascii_case(words));
        time.is_some_and(|(_, time)| time.trim_start().starts_with(|first: char| first.is_ascii_digit()))
    };
    // The rarest letter of both.
    memchr::memchr2_iter(b'y', b'Y', message.as_bytes()).any(|at| {
        let (before, after) = (&message.as_bytes()[..at], &message[at + 1..]);
        let ends_in =
            |word: &[u8]| before.len() >= word.len() && before[before.len() - word.len()..].eq_ignore_ascii_case(word);
        ends_in(b"tr") && goes_on(after, " again in ") || ends_in(b"retr") && goes_on(after, " after ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::GaveUp;

    impl Hints {
        fn words(self) -> Option<String> {
            self.add_to("")
        }

        fn add_to(self, message: &str) -> Option<String> {
            self.told(message).map(|told| told.to_string())
        }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failure(kind: Kind, hint: Option<u64>) -> Failure {
        let failure = Failure::local(kind, "no");
        hint.map_or(failure.clone(), |hint| failure.with_hint(secs(hint)))
    }

    /// A second before midnight in California.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + secs(1_795_247_999)
    }

    #[test]
    #[allow(clippy::type_complexity, reason = "a row of the table")]
    fn each_failure_says_when_to_come_again_as_far_as_clients_can_use_it() {
        use Kind::*;
        // Status, kind, hint; `Retry-After`, RetryInfo, the end of the message, and whether nobody should try by itself.
        let table: [(u16, Kind, Option<u64>, Option<u64>, Option<u64>, Option<&str>, bool); 20] = [
            (503, Overloaded, None, Some(10), None, Some("try again in 10 s"), false),
            (503, CircuitOpen, Some(7), Some(7), Some(7), Some("try again in 7 s"), false),
            (503, CircuitOpen, Some(0), Some(1), Some(0), Some("try again in 1 s"), false),
            (504, Timeout(TimeoutKind::Attempt), None, Some(10), None, Some("try again in 10 s"), false),
            (504, Timeout(TimeoutKind::Total), None, Some(10), None, Some("try again in 10 s"), true),
            (429, QuotaUnknown, None, Some(30), None, None, false),
            (429, QuotaMinute, Some(60), Some(60), Some(60), Some("try again in 60 s"), false),
            (
                429,
                RateLimited,
                Some(61),
                Some(60),
                Some(61),
                Some("it will reset at 08:01 UTC, about 61 s from now"),
                true,
            ),
            (
                429,
                RateLimited,
                Some(4_000),
                Some(60),
                Some(4_000),
                Some("it will reset at 09:07 UTC, about 67 min from now"),
                true,
            ),
            (
                429,
                QuotaDay,
                Some(40_000),
                Some(60),
                Some(40_000),
                Some("it will reset at 19:07 UTC, about 12 h from now"),
                true,
            ),
            (429, QuotaZero, Some(5), Some(60), None, None, true),
            (429, QuotaSpend, None, Some(60), None, None, true),
            (503, KeysDisabled, None, Some(60), None, None, true),
            (500, ServerError, None, None, None, None, false),
            (502, BadGateway, Some(3), Some(3), Some(3), Some("try again in 3 s"), false),
            (501, Unimplemented, None, None, None, None, true),
            (503, ContextTooLong, Some(3), Some(60), None, None, true),
            (400, QuotaMinute, Some(3), None, None, None, false),
            (404, ModelClosed, Some(3), None, None, None, false),
            (409, Conflict, Some(3), None, None, None, true),
        ];
        for (status, kind, hint, header, info, words, is_final) in table {
            let outcome = Outcome::default().with_failure(failure(kind, hint));
            let hints = Hints::of(StatusCode::from_u16(status).unwrap(), &outcome, Surface::Developer, now());
            assert_eq!(hints.header(), header, "{status} {kind}");
            assert_eq!(hints.retry_info(), info.map(secs), "{status} {kind}");
            assert_eq!(hints.words().as_deref(), words, "{status} {kind}");
            assert_eq!(hints.is_final, is_final, "{status} {kind}");
        }
    }

    #[test]
    fn a_guess_is_not_told_as_a_time_after_attempts_were_spent() {
        let table = [
            // Kind, hint, advice, attempts; `Retry-After`, RetryInfo, words.
            (
                Kind::QuotaUnknown,
                None,
                Some(2),
                8,
                30,
                None,
                Some("it will reset at a time that the upstream does not say"),
            ),
            (
                Kind::QuotaMinute,
                None,
                Some(60),
                1,
                30,
                None,
                Some("it will reset at a time that the upstream does not say"),
            ),
            (Kind::Capacity, None, None, 8, 30, None, Some("it will reset at a time that the upstream does not say")),
            (Kind::QuotaUnknown, None, Some(2), 0, 30, None, None),
            (Kind::QuotaMinute, Some(42), Some(9), 3, 9, Some(9), Some("try again in 9 s")),
            (Kind::QuotaMinute, Some(42), None, 3, 42, Some(42), Some("try again in 42 s")),
            (Kind::RateLimited, Some(9), None, 0, 9, Some(9), Some("try again in 9 s")),
            (Kind::KeysExhausted, Some(9), None, 2, 9, Some(9), Some("it will reset at 08:01 UTC, about 9 s from now")),
        ];
        for (kind, hint, advice, attempts, header, info, words) in table {
            let outcome = Outcome::default().with_failure(failure(kind, hint)).with_attempts(attempts);
            let outcome = match advice {
                Some(wait) => outcome.with_retry(RetryAdvice::After(secs(wait))),
                None => outcome,
            };
            let hints = Hints::of(StatusCode::TOO_MANY_REQUESTS, &outcome, Surface::Developer, now());
            assert_eq!((hints.header(), hints.retry_info()), (Some(header), info.map(secs)), "{kind} {attempts}");
            assert_eq!(hints.words().as_deref(), words, "{kind} {attempts}");
        }
    }

    #[test]
    fn the_limiters_minute_with_its_margin_is_a_minute() {
        for (millis, words, is_final) in
            [(60_200, "try again in 60 s", false), (61_000, "it will reset at 08:01 UTC, about 61 s from now", true)]
        {
            let failure = failure(Kind::RateLimited, None).with_hint(Duration::from_millis(millis));
            let outcome = Outcome::default().with_failure(failure);
            let hints = Hints::of(StatusCode::TOO_MANY_REQUESTS, &outcome, Surface::Developer, now());
            assert_eq!((hints.header(), hints.words().as_deref(), hints.is_final), (Some(60), Some(words), is_final));
            assert_eq!(hints.retry_info(), Some(Duration::from_millis(millis)), "the true one");
        }
    }

    #[test]
    fn a_days_quota_is_back_with_the_day() {
        let outcome = Outcome::default().with_failure(failure(Kind::QuotaDay, None));
        let hints = Hints::of(StatusCode::TOO_MANY_REQUESTS, &outcome, Surface::Developer, now());
        assert_eq!(hints.words().unwrap(), "the quota will reset at 08:00 UTC, midnight Pacific, about 1 s from now");
        assert_eq!((hints.retry_info(), hints.is_final), (Some(secs(1)), true));
        // Another project is free before.
        let outcome = outcome.with_retry(RetryAdvice::After(secs(20)));
        let hints = Hints::of(StatusCode::TOO_MANY_REQUESTS, &outcome, Surface::Developer, now());
        assert_eq!(hints, Hints { again: Again::After(secs(20)), is_final: false, ..hints });
    }

    #[test]
    fn an_interaction_does_not_wait_for_what_is_too_far_away() {
        for (kind, hint, expected) in [
            (Kind::RateLimited, Some(20), 20),
            (Kind::RateLimited, Some(61), 8),
            (Kind::QuotaDay, Some(40_000), 8),
            (Kind::QuotaZero, None, 8),
            (Kind::KeysDisabled, None, 8),
        ] {
            let outcome = Outcome::default().with_failure(failure(kind, hint));
            let hints = Hints::of(StatusCode::TOO_MANY_REQUESTS, &outcome, Surface::Interactions, now());
            assert_eq!(hints.header(), Some(expected), "{kind}");
        }
    }

    #[test]
    fn a_refusal_that_lasts_is_no_short_wait() {
        let lasting = failure(Kind::RateLimited, Some(42)).into_lasting();
        let hints = Hints::of(
            StatusCode::TOO_MANY_REQUESTS,
            &Outcome::default().with_failure(lasting),
            Surface::Developer,
            now(),
        );
        assert_eq!((hints.header(), hints.is_final), (Some(42), true));
        assert!(!is_said(&hints.words().unwrap()), "no client takes it for a wait");
    }

    #[test]
    fn a_layer_that_retries_has_had_its_say() {
        let table =
            [(503, Kind::Overloaded), (500, Kind::ServerError), (429, Kind::RateLimited), (409, Kind::Conflict)];
        for (status, kind) in table {
            let status = StatusCode::from_u16(status).unwrap();
            let alone = Outcome::default().with_failure(failure(kind, Some(1)));
            assert_eq!(Hints::of(status, &alone, Surface::Developer, now()).is_final, kind == Kind::Conflict, "{kind}");
            // A refusal is no attempt, and the limiter gives a reason of its own, whether or not anybody retries.
            let refused = alone.clone().with_gave_up(GaveUp::Wait);
            assert_eq!(
                Hints::of(status, &refused, Surface::Developer, now()).is_final,
                kind == Kind::Conflict,
                "{kind}"
            );
            for attempts in [0, 1, 8] {
                assert!(
                    Hints::of(status, &alone.clone().with_attempts(attempts), Surface::Developer, now()).is_final,
                    "{kind}"
                );
            }
        }
        let wrong = Outcome::default().with_failure(failure(Kind::InvalidRequest, None)).with_attempts(1);
        assert!(
            !Hints::of(StatusCode::BAD_REQUEST, &wrong, Surface::Developer, now()).is_final,
            "nobody tries again anyway"
        );
    }

    #[test]
    fn a_message_says_the_time_once() {
        let hints = Hints {
            again: Again::After(secs(5)),
            now: 0,
            surface: Surface::Developer,
            is_final: false,
            is_spent: false,
        };
        for (message, expected) in [
            ("the model is busy", Some("the model is busy; try again in 5 s")),
            ("The model is busy.\n", Some("The model is busy. Try again in 5 s.")),
            ("Please retry in 4.2s.", Some("Please retry in 4.2s. Try again in 5 s.")),
            ("Please try again later.", Some("Please try again later. Try again in 5 s.")),
            ("", Some("try again in 5 s")),
            ("Please try again in 30 seconds.", None),
            ("Retry after 9s", None),
        ] {
            assert_eq!(hints.add_to(message).as_deref(), expected, "{message}");
        }
        assert_eq!(Hints { again: Again::Never, ..hints }.add_to("no"), None);
    }
}
