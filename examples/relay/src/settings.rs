//! The relay's settings: what they are, how they are read, and what is said of a wrong one.
//!
//! Everything that can be wrong is found at the start, all of it at once, and each mistake names its line and what would
//! be right. What is read is what is used: a URL has become a client, a table of retries a policy.

use std::{fmt, fs, net::SocketAddr, path::Path, str::FromStr, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use toml::Table;
use tower_gemini::{
    circuit_breaker::CircuitBreakers,
    client::{Client, ClientBuilder, DEVELOPER_API},
    model_fallback::ModelFallbackLayer,
    rate_limit::{Limiter, LimiterBuilder},
    replay::ReplayLayer,
    retry::{OnOpen, RetryPolicy},
    timeout::TimeoutLayer,
};

use crate::{
    breaker,
    door::{Rules, Token},
    fallback,
    keys::{self, Keys},
    limits,
    precheck::{self, Precheck},
    toml_file::{Mistakes, Section, Value},
};

/// All settings, as the relay uses them.
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: Upstream,
    pub(crate) max_body: usize,
    /// How long the head of a request may take.
    pub(crate) header_timeout: Duration,
    /// Who comes in, and how many.
    pub(crate) door: Rules,
    /// How long it goes on accepting once it was told to end.
    pub(crate) lame_duck: Duration,
    /// How long calls in flight may take once the relay was told to end.
    pub(crate) drain: Duration,
    pub(crate) keys: Keys,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Timeouts,
    pub(crate) limits: LimiterBuilder,
    /// `None`: calls go to a model that is down, too.
    pub(crate) breaker: Option<CircuitBreakers>,
    pub(crate) precheck: Precheck,
    pub(crate) fallback: ModelFallbackLayer,
    /// What is not wrong but may surprise.
    pub(crate) remarks: Vec<String>,
    /// The file as it was read: what was learned stays where the section is the same that it was learned under.
    pub(crate) file: Table,
}

/// Who answers.
#[derive(Clone)]
pub(crate) enum Upstream {
    /// The emulator, in this very process.
    Emulator,
    /// Whoever has that address.
    Address(ClientBuilder),
}

impl Upstream {
    pub(crate) fn is_emulator(&self) -> bool {
        matches!(self, Self::Emulator)
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "emulator" {
            return Ok(Self::Emulator);
        }
        let client = Client::builder().base_url(text);
        match client.clone().build::<Empty<Bytes>>() {
            Ok(_) => Ok(Self::Address(client)),
            Err(error) => Err(format!("{error}; or it is \"emulator\"")),
        }
    }
}

/// What is said on the command line or in the environment, and holds in place of what the file says.
#[derive(Clone, Default)]
pub(crate) struct Instead {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) upstream: Option<Upstream>,
}

pub(crate) struct Timeouts {
    pub(crate) total: Duration,
    pub(crate) attempt: Duration,
    pub(crate) first_event: Duration,
    pub(crate) idle: Duration,
}

/// The names of each section, `""` being the top level.
const NAMES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "listen",
            "upstream",
            "max_body",
            "default_project",
            "client_tokens",
            "max_concurrent_per_caller",
            "max_concurrent",
            "max_queued",
            "header_timeout",
            "body_timeout",
            "unread_timeout",
            "lame_duck",
            "drain",
            "keys",
            "fallback",
            "retry",
            "timeout",
            "limits",
            "breaker",
            "precheck",
        ],
    ),
    ("keys", &["name", "key", "project", "weight"]),
    ("fallback", &["\"gemini-2.5-pro\" or any other model", "sticky", "strip", "larger"]),
    ("fallback.larger", &["\"gemini-2.5-pro\" or any other model"]),
    ("retry", &["max_attempts", "persistent", "base_delay", "max_delay", "on_open"]),
    ("timeout", &["total", "attempt", "first_event", "idle"]),
    ("precheck", &["enabled", "on_unknown_model", "max_output", "count_tokens"]),
    ("breaker", &["enabled", "mode", "open", "max_open"]),
    ("limits", &["default", "\"gemini-2.5-flash\" or any other model"]),
    ("limits.default", &["rpm", "tpm", "rpd", "pacing", "burst", "max_wait"]),
];

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8787);

/// nginx's `client_header_timeout` and `client_body_timeout` are 60 s each, hyper's own is 30 s.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Twice nginx's `send_timeout`: that one sees each write, this one only when a whole piece, which may be a picture, is gone.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Kubernetes waits 30 s before it kills.
const DRAIN: Duration = Duration::from_secs(25);

impl Settings {
    /// Without a file: the emulator answers, so that a first try needs no key.
    pub(crate) fn built_in(instead: &Instead) -> Self {
        Self {
            listen: instead.listen.unwrap_or(LISTEN),
            upstream: Upstream::Emulator,
            max_body: ReplayLayer::MAX_BODY,
            header_timeout: HEADER_TIMEOUT,
            door: Rules {
                tokens: Vec::new(),
                per_caller: None,
                in_all: None,
                queued: 0,
                wait: TimeoutLayer::TOTAL,
                body_timeout: BODY_TIMEOUT,
                unread_timeout: UNREAD_TIMEOUT,
            },
            lame_duck: Duration::ZERO,
            drain: DRAIN,
            keys: Keys::demo(),
            retry: RetryPolicy::default(),
            timeout: Timeouts::default(),
            limits: Limiter::builder(),
            breaker: Some(CircuitBreakers::new()),
            precheck: Precheck::default(),
            fallback: ModelFallbackLayer::disabled(),
            remarks: Vec::new(),
            file: Table::new(),
        }
    }

    /// Reads a file. The error is for people: one line for each mistake.
    pub(crate) fn load(path: &Path, instead: &Instead) -> Result<Self, String> {
        let name = path.display();
        let bytes = fs::read(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("{name}:{line}: is no UTF-8, which TOML has to be")
        })?;
        Self::parse(&text, instead).map_err(|mistakes| mistakes.of(&name.to_string(), &text))
    }

    fn parse(text: &str, instead: &Instead) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        let Some(mut file) = Section::file(text, NAMES, &mut mistakes) else { return Err(mistakes) };

        let listen = file.get("listen", address, &mut mistakes).unwrap_or(LISTEN);
        let listen = instead.listen.unwrap_or(listen);
        let upstream = file.get("upstream", upstream, &mut mistakes);
        let upstream = instead.upstream.clone().or(upstream);
        let max_body = file.get("max_body", size, &mut mistakes).unwrap_or(ReplayLayer::MAX_BODY);
        let header_timeout = file.get("header_timeout", duration, &mut mistakes).unwrap_or(HEADER_TIMEOUT);
        let lame_duck = file.get("lame_duck", duration_or_none, &mut mistakes).unwrap_or_default();
        let drain = file.get("drain", duration_or_none, &mut mistakes).unwrap_or(DRAIN);
        let retry = file.section("retry", &mut mistakes);
        let retry = retry.map_or_else(RetryPolicy::default, |section| retry_policy(section, &mut mistakes));
        let timeout = file.section("timeout", &mut mistakes);
        let timeout = timeout.map_or_else(Timeouts::default, |section| Timeouts::read(section, &mut mistakes));
        let door = rules(&mut file, timeout.total, &mut mistakes);
        let mut remarks = Vec::new();
        let limits = file.section("limits", &mut mistakes);
        let limits = limits.map(|section| limits::read(section, timeout.total, &mut mistakes, &mut remarks));
        let limits = limits.unwrap_or_else(Limiter::builder);
        let breaker = file.section("breaker", &mut mistakes);
        let breaker =
            breaker.map_or_else(|| Some(CircuitBreakers::new()), |section| breaker::read(section, &mut mistakes));
        let precheck = file.section("precheck", &mut mistakes);
        let precheck = precheck.map_or_else(Precheck::default, |section| precheck::read(section, &mut mistakes));
        let fallback = file.section("fallback", &mut mistakes);
        let fallback =
            fallback.map_or_else(ModelFallbackLayer::disabled, |section| fallback::read(section, &mut mistakes));
        let keys_at = file.end();
        let spanned = |value: &Value<'_>| Ok((plain_text(value)?, value.span()));
        let default_project = file.get("default_project", spanned, &mut mistakes);
        let sections = file.sections("keys", &mut mistakes);
        let given = sections.len();
        let keys = keys::read(sections, default_project, &mut mistakes, &mut remarks);
        file.finish(&mut mistakes);

        // A wrong upstream has been complained of; it need not make a missing key look wrong too.
        let emulator = matches!(upstream, Some(Upstream::Emulator));
        let upstream = upstream.unwrap_or_else(|| Upstream::Address(Client::builder().base_url(DEVELOPER_API)));
        if given == 0 && !emulator {
            mistakes.add(
                keys_at,
                "there is no [[keys]], and this upstream needs one: add a line `[[keys]]` and below it \
                 `key = \"env:GEMINI_API_KEY\"`, or set upstream = \"emulator\"",
            );
        }
        let keys = if given == 0 { Keys::demo() } else { keys };
        mistakes.none()?;
        let file = text.parse().unwrap_or_default(); // it has been parsed already
        Ok(Self {
            listen,
            upstream,
            max_body,
            header_timeout,
            door,
            lame_duck,
            drain,
            keys,
            retry,
            timeout,
            limits,
            breaker,
            precheck,
            fallback,
            remarks,
            file,
        })
    }
}

impl Timeouts {
    fn read(mut section: Section<'_>, mistakes: &mut Mistakes) -> Self {
        let default = Self::default();
        let total = section.get("total", duration, mistakes).unwrap_or(default.total);
        let mut within = |name, default: Duration| {
            let read = section.get(name, |value| Ok((duration(value)?, value.span())), mistakes);
            let Some((limit, span)) = read else { return default.min(total) };
            if limit > total {
                mistakes.add(
                    span,
                    format!(
                        "{name} is {}, longer than total, which is {}: it could never run out; make it shorter, or \
                         total longer",
                        humantime::format_duration(limit),
                        humantime::format_duration(total),
                    ),
                );
            }
            limit
        };
        let attempt = within("attempt", default.attempt);
        // Whoever sets how long an attempt may take, and nothing else, means streams as well.
        let first_event = within("first_event", default.first_event.min(attempt));
        let idle = section.get("idle", duration, mistakes).unwrap_or(default.idle);
        section.finish(mistakes);
        Self { total, attempt, first_event, idle }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            total: TimeoutLayer::TOTAL,
            attempt: TimeoutLayer::ATTEMPT,
            first_event: TimeoutLayer::FIRST_CONTENT,
            idle: TimeoutLayer::IDLE,
        }
    }
}

/// Who comes in, and how many: top-level settings.
fn rules(file: &mut Section<'_>, total: Duration, mistakes: &mut Mistakes) -> Rules {
    let lists = file.get("client_tokens", |value| Ok((value.texts(TOKENS)?, value.span())), mistakes);
    let mut tokens = Vec::new();
    if let Some((list, place)) = lists {
        if list.is_empty() {
            mistakes
                .add(place, "client_tokens: is empty, and so nobody could call; take the line out to let everybody in");
        }
        for (place, token) in list {
            match token.and_then(|token| keys::secret("token", &token)) {
                Ok(token) => tokens.push(Token::of(token)),
                Err(what) => mistakes.add(place, format!("client_tokens: {what}")),
            }
        }
    }
    let per_caller = file.get("max_concurrent_per_caller", calls, mistakes);
    let in_all = file.get("max_concurrent", calls, mistakes);
    let queued = file.get("max_queued", |value| Ok((calls_or_none(value)?, value.span())), mistakes);
    if let (Some((_, place)), None) = (&queued, in_all) {
        mistakes.add(place.clone(), "max_queued: nobody waits where max_concurrent is not set; set it, too");
    }
    let queued = queued.map(|(queued, _)| queued).or(in_all).unwrap_or(0);
    let body_timeout = file.get("body_timeout", duration, mistakes).unwrap_or(BODY_TIMEOUT);
    let unread_timeout = file.get("unread_timeout", duration, mistakes).unwrap_or(UNREAD_TIMEOUT);
    Rules { tokens, per_caller, in_all, queued, wait: total, body_timeout, unread_timeout }
}

const TOKENS: &str = "a list of what callers bring as their key, like [\"env:RELAY_TOKEN\"]";

fn calls(value: &Value<'_>) -> Result<usize, String> {
    match calls_or_none(value)? {
        0 => Err("is 0, and so no call would ever go; it is a whole number from 1, like 100".to_owned()),
        calls => Ok(calls),
    }
}

fn calls_or_none(value: &Value<'_>) -> Result<usize, String> {
    const RIGHT: &str = "a whole number of calls, like 100";
    let number = value.integer(RIGHT)?;
    usize::try_from(number).map_err(|_| format!("is {number}; it is {RIGHT}"))
}

fn retry_policy(mut section: Section<'_>, mistakes: &mut Mistakes) -> RetryPolicy {
    let persistent = section.get("persistent", boolean, mistakes).unwrap_or(false);
    let mut policy = if persistent { RetryPolicy::persistent() } else { RetryPolicy::default() };
    if let Some(attempts) = section.get("max_attempts", count, mistakes) {
        policy = policy.max_attempts(attempts);
    }
    let spanned = |value: &Value<'_>| Ok((duration(value)?, value.span()));
    let base = section.get("base_delay", spanned, mistakes);
    let max = section.get("max_delay", spanned, mistakes);
    if let Some(place) = max.as_ref().or(base.as_ref()).map(|(_, place)| place.clone()) {
        let least = base.as_ref().map_or(Duration::from_millis(500), |(base, _)| *base);
        let default = Duration::from_secs(if persistent { 8 } else { 20 });
        let most = max.as_ref().map_or(default, |(max, _)| *max);
        if most < least {
            let [least, most] = [least, most].map(humantime::format_duration);
            mistakes.add(place, format!("max_delay is {most}, less than base_delay, which is {least}"));
        }
    }
    if let Some((base, _)) = base {
        policy = policy.base_delay(base);
    }
    if let Some((max, _)) = max {
        policy = policy.max_delay(max);
    }
    if let Some(on_open) = section.get("on_open", on_open, mistakes) {
        policy = policy.on_open(on_open);
    }
    section.finish(mistakes);
    policy
}

// === kinds of values: each says what it is, and what would be right ===

fn address(value: &Value<'_>) -> Result<SocketAddr, String> {
    const RIGHT: &str =
        "an IP address and a port, like \"127.0.0.1:8787\" or \"[::1]:8787\"; port 0 takes any free one";
    let text = value.text(RIGHT)?;
    text.parse().map_err(|_| format!("{text:?} is no address to listen on; it is {RIGHT}"))
}

fn upstream(value: &Value<'_>) -> Result<Upstream, String> {
    value.text("\"emulator\", or a URL like \"https://generativelanguage.googleapis.com\"")?.parse()
}

pub(crate) fn plain_text(value: &Value<'_>) -> Result<String, String> {
    match value.text("a text, like \"a\"")? {
        "" => Err("is empty; it is a text, like \"a\"".to_owned()),
        text => Ok(text.to_owned()),
    }
}

pub(crate) fn boolean(value: &Value<'_>) -> Result<bool, String> {
    value.boolean("true or false, without quotes")
}

fn count(value: &Value<'_>) -> Result<u32, String> {
    const RIGHT: &str = "a whole number from 1, the first attempt included, like 8";
    match value.integer(RIGHT)? {
        number @ 1.. => u32::try_from(number).map_err(|_| format!("{number} is too many; it is {RIGHT}")),
        number => Err(format!("is {number}; it is {RIGHT}")),
    }
}

fn on_open(value: &Value<'_>) -> Result<OnOpen, String> {
    const RIGHT: &str = "\"wait\" (for the circuit to close or the limiter to admit, within the deadline) or \"fail\"";
    match value.text(RIGHT)? {
        "wait" => Ok(OnOpen::Wait),
        "fail" => Ok(OnOpen::Fail),
        other => Err(format!("is {other:?}; it is {RIGHT}")),
    }
}

pub(crate) fn duration(value: &Value<'_>) -> Result<Duration, String> {
    match duration_or_none(value)? {
        Duration::ZERO => Err(format!(
            "{:?} is no time at all, and would end or repeat everything at once; take the line out for the default",
            value.text("")?
        )),
        duration => Ok(duration),
    }
}

/// The same, where no time at all makes sense.
pub(crate) fn duration_or_none(value: &Value<'_>) -> Result<Duration, String> {
    const RIGHT: &str = "a text with units, like \"500ms\", \"20s\" or \"4m 45s\"";
    if let Ok(number) = value.integer("") {
        return Err(match number {
            1.. => format!("is a number without a unit; write \"{number}s\" for seconds, or \"{number}ms\""),
            _ => format!("is {number}; it is {RIGHT}"),
        });
    }
    let text = value.text(RIGHT)?;
    if text.trim_start().starts_with('-') {
        return Err(format!("{text:?} is negative; it is {RIGHT}"));
    }
    humantime::parse_duration(text).map_err(|error| format!("{text:?} is no duration ({error}); it is {RIGHT}"))
}

fn size(value: &Value<'_>) -> Result<usize, String> {
    let Size(bytes) = match value.integer("") {
        Ok(number) => number.to_string().parse()?,
        Err(_) => value.text(Size::RIGHT)?.parse()?,
    };
    Ok(bytes)
}

/// Bytes, as people write them.
struct Size(usize);

impl Size {
    const RIGHT: &str = "a number with a unit, like \"32MiB\", \"512KiB\" or \"10MB\"";
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &dyn fmt::Display| format!("{text:?} is no size: {why}; it is {}", Self::RIGHT);
        let text_ = text.trim();
        let digits = text_.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text_.split_at(digits);
        let number: usize = number.parse().map_err(|error| wrong(&error))?;
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            unit => return Err(wrong(&format_args!("{unit:?} is no unit"))),
        };
        match number.checked_mul(unit) {
            Some(0) => Err(wrong(&"no request would fit")),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(wrong(&"it is more than memory can hold")),
        }
    }
}
