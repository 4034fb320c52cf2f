//! Reads the wait that an upstream asks for, in all the ways in which upstreams write it.
//!
//! Three places of one body may have it. The message has it to the nanosecond ("Please retry in 42.921954507s."), and
//! so has Code Assist's metadata (`quotaResetDelay`), while the Developer API cuts `RetryInfo.retryDelay` to whole
//! seconds. So a value with a fraction wins over one without, and the message wins among equals.

use std::time::Duration;

use super::json::Json;

/// The wait that an upstream asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    delay: Duration,
    exact: bool,
}

impl Hint {
    /// Makes a wait of exactly `delay`.
    #[must_use]
    pub const fn exact(delay: Duration) -> Self {
        Self { delay, exact: true }
    }

    /// Makes a wait that was cut to whole seconds, so that up to one more second may be needed.
    #[must_use]
    pub const fn truncated(delay: Duration) -> Self {
        Self { delay, exact: false }
    }

    /// Returns the wait as the upstream wrote it.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        self.delay
    }

    /// Returns a wait that is certainly long enough: one second more where the value was cut to whole seconds.
    #[must_use]
    pub const fn sufficient(&self) -> Duration {
        let cut = if self.exact { Duration::ZERO } else { Duration::from_secs(1) };
        self.delay.saturating_add(cut)
    }

    /// Returns whether the value is exact: false where it was cut to whole seconds.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.exact
    }
}

/// Makes a hint; `exact` is false where the delay was cut to whole seconds.
fn hint(delay: Duration, exact: bool) -> Hint {
    if exact { Hint::exact(delay) } else { Hint::truncated(delay) }
}

/// Returns the most exact of the three.
pub(super) fn best(message: Option<Hint>, reset: Option<Hint>, retry_info: Option<Hint>) -> Option<Hint> {
    let hints = [message, reset, retry_info];
    hints.into_iter().flatten().find(Hint::is_exact).or_else(|| hints.into_iter().flatten().next())
}

/// Reads a protobuf Duration in JSON (`"37s"`), one in Go's form (`"1h2m3.5s"`, `"138.127757ms"`), a number of seconds,
/// or `{"seconds": 37, "nanos": 5}`.
pub(super) fn from_json(value: &Json) -> Option<Hint> {
    match value {
        // A text needs its unit: digits alone may be a longer number that was cut.
        Json::Text(text) => {
            let (delay, exact, length) = leading(text)?;
            (length == text.len()).then(|| hint(delay, exact))
        }
        Json::Number(text) => {
            let number = Number::leading(text).filter(|number| number.length == text.len())?;
            Some(hint(number.times(SECOND), number.has_fraction))
        }
        Json::Object(object) => {
            let seconds = object.get("seconds").and_then(Json::as_u64);
            let nanos = object.get("nanos").and_then(Json::as_u64);
            seconds.or(nanos)?;
            let nanos = nanos.unwrap_or(0);
            let delay = Duration::from_secs(seconds.unwrap_or(0)).saturating_add(Duration::from_nanos(nanos));
            Some(hint(delay, nanos != 0))
        }
        _ => None,
    }
}

/// The words before a wait, in lower case.
const LEADS: [&str; 11] = [
    "retry in",
    "retry after",
    "reset after",
    "resets after",
    "reset in",
    "resets in",
    "try again in",
    "try again after",
    "available in",
    "available again in",
    "retry-after:",
];

/// Reads the wait that a message asks for. `lower` is the message in lower case.
pub(super) fn from_message(lower: &str) -> Option<Hint> {
    LEADS.iter().find_map(|lead| {
        // The first mention that is followed by a number, unlike "try again in a moment".
        memchr::memmem::find_iter(lower.as_bytes(), lead).find_map(|at| {
            let rest = lower.get(at + lead.len()..)?;
            let rest = rest.trim_start_matches([' ', '\u{a0}', ':', '~', '*', '`', '"']);
            let rest = rest.strip_prefix("about ").unwrap_or(rest);
            let (delay, exact, _) = leading(rest)?;
            Some(hint(delay, exact))
        })
    })
}

/// Reads a duration of one or more numbers with units at the start of `text`. Returns the duration, whether it has
/// parts below the second, and its length in bytes.
fn leading(text: &str) -> Option<(Duration, bool, usize)> {
    let mut total = Duration::ZERO;
    let mut exact = false;
    let mut end = 0;
    loop {
        let mut rest = &text[end..];
        if end > 0 {
            rest = rest.trim_start_matches([' ', ',']);
            rest = rest.strip_prefix("and ").unwrap_or(rest);
        }
        let Some(number) = Number::leading(rest) else {
            break;
        };
        let after = &rest[number.length..];
        let unit_text = after.trim_start_matches([' ', '\u{a0}']);
        let word = unit_text.find(|c: char| !c.is_alphabetic()).unwrap_or(unit_text.len());
        let Some(unit) = unit(&unit_text[..word]) else {
            break;
        };
        total = total.saturating_add(number.times(unit));
        exact |= number.has_fraction || unit < SECOND;
        end = text.len() - unit_text.len() + word;
    }
    (end > 0).then_some((total, exact, end))
}

const SECOND: u64 = 1_000_000_000;

/// Returns the nanoseconds of a unit.
fn unit(word: &str) -> Option<u64> {
    Some(match word {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" | "millisecond" | "milliseconds" | "msec" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600 * SECOND,
        "d" | "day" | "days" => 86_400 * SECOND,
        _ => return None,
    })
}

/// A decimal number, with or without a fraction.
struct Number {
    whole: u64,
    /// The fraction, in billionths.
    fraction: u64,
    has_fraction: bool,
    length: usize,
}

impl Number {
    fn leading(text: &str) -> Option<Self> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole_digits = digits(text);
        if whole_digits == 0 {
            return None;
        }
        // A number with too many digits is over any cap.
        let whole = text[..whole_digits].parse().unwrap_or(u64::MAX);
        let fraction_digits = text[whole_digits..].strip_prefix('.').map_or(0, digits);
        if fraction_digits == 0 {
            return Some(Self { whole, fraction: 0, has_fraction: false, length: whole_digits });
        }
        let start = whole_digits + 1;
        let billionths = text[start..start + fraction_digits].bytes().chain(std::iter::repeat(b'0')).take(9);
        let fraction = billionths.fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
        Some(Self { whole, fraction, has_fraction: true, length: start + fraction_digits })
    }

    /// Returns the duration of this many units of `nanos` nanoseconds.
    fn times(&self, nanos: u64) -> Duration {
        let whole = u128::from(self.whole) * u128::from(nanos);
        let fraction = u128::from(self.fraction) * u128::from(nanos) / 1_000_000_000;
        let total = whole + fraction;
        let seconds = u64::try_from(total / 1_000_000_000).unwrap_or(u64::MAX);
        // The remainder of a division by a billion fits.
        Duration::new(seconds, (total % 1_000_000_000) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Option<(f64, bool)> {
        from_message(&text.to_lowercase()).map(|hint| (hint.delay().as_secs_f64(), hint.is_exact()))
    }

    #[test]
    fn messages_say_it_in_many_ways() {
        for (text, seconds, exact) in [
            ("Please retry in 42.921954507s.", 42.921954507, true),
            ("Please retry in 900.2ms.", 0.9002, true),
            ("Please retry in 17h3m12.5s.", 61_392.5, true),
            ("Your quota will reset after 26s.", 26.0, false),
            ("Your quota will reset after 0s.", 0.0, false),
            ("limits. Resets in 9h22m20s.", 33_740.0, false),
            ("Resets in 2d1h.", 176_400.0, false),
            ("try again in 1h2m3.5s", 3_723.5, true),
            ("Try again in 30 seconds", 30.0, false),
            ("try again in 1 minute and 5 seconds.", 65.0, false),
            ("retry after 2 min, 3 sec", 123.0, false),
            ("Please try again in about 20 minutes", 1_200.0, false),
            ("try again in a moment, or retry after 5s", 5.0, false),
        ] {
            assert_eq!(message(text), Some((seconds, exact)), "{text}");
        }
        for text in
            ["", "Please try again later.", "retry in", "retry in s", "try again in 5 parsecs", "reset after -1s"]
        {
            assert_eq!(message(text), None, "{text}");
        }
    }

    #[test]
    fn durations_in_json_take_every_form() {
        let text = |text: &str| from_json(&Json::Text(text.to_owned())).map(|hint| (hint.delay(), hint.is_exact()));
        assert_eq!(text("37s"), Some((Duration::from_secs(37), false)));
        assert_eq!(text("37.5s"), Some((Duration::from_millis(37_500), true)));
        assert_eq!(text("0.000000001s"), Some((Duration::from_nanos(1), true)));
        assert_eq!(text("0.0000000019s"), Some((Duration::from_nanos(1), true)));
        assert_eq!(text("161h39m41.300432511s"), Some((Duration::new(581_981, 300_432_511), true)));
        assert_eq!(text("138.127757ms"), Some((Duration::from_nanos(138_127_757), true)));
        assert_eq!(from_json(&Json::Number("12".to_owned())), Some(Hint::truncated(Duration::from_secs(12))));
        for rubbish in ["", "s", "37", "-3s", "1e9s", "NaN", "5 s later", "½s"] {
            assert_eq!(text(rubbish), None, "{rubbish}");
        }
        // Absurd, but no overflow.
        assert!(text("99999999999999999999999999d").is_some());
        assert!(text("18446744073709551615d18446744073709551615d").is_some());
    }

    #[test]
    fn a_fraction_wins_then_the_message() {
        let (cut, exact) = (Hint::truncated(Duration::from_secs(38)), Hint::exact(Duration::from_millis(38_863)));
        let other = Hint::truncated(Duration::from_secs(5));
        assert_eq!(best(Some(exact), None, Some(cut)), Some(exact));
        assert_eq!(best(Some(cut), Some(exact), None), Some(exact));
        assert_eq!(best(Some(cut), None, Some(other)), Some(cut));
        assert_eq!(best(None, None, Some(other)), Some(other));
        assert_eq!(best(None, None, None), None);
    }
}
