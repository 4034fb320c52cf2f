//! `client_tokens` and `[[callers]]`: the tokens that open the relay, and what each caller may do.
//!
//! ```toml
//! client_tokens = ["env:RELAY_TOKEN"]   # callers without a name, a limit or a priority
//! [[callers]]
//! name = "batch-jobs"
//! tokens = ["env:JOBS_TOKEN"]
//! priority = "batch"
//! models = ["gemini-2.5-flash*"]
//! rpm = 60
//! money_per_day = 5.0
//! ```

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use tower_gemini::{
    caller_limit::{CallerDimension, CallerLimits, CallerLimitsBuilder, CallerQuota},
    context::Priority,
    prices::Prices,
};

use crate::config::{
    caller_models::{self, Models},
    caller_quota::{self, is_limited},
    diagnostics::Place,
    toml::{Section, Value},
    values::{is_google_key, one_of, secret},
};

pub(crate) const NAMES: &[&str] = &[
    "name",
    "token",
    "tokens",
    "priority",
    "models",
    "rpm",
    "tpm",
    "rpd",
    "tpd",
    "money_per_day",
    "money_per_month",
    "past",
];

const TOKENS: &str = "a list of what callers bring as their key, like [\"env:RELAY_TOKEN\"]";

/// The least characters of a token that nobody guesses: with 16 small letters and digits, 80 bits.
const LEAST_TOKEN: usize = 16;

/// The most characters of a caller's name: it is a label of metrics and a word in messages.
const LONGEST_NAME: usize = 64;

/// The digest of a token. Digests are compared, not tokens: the time of a comparison tells at most how much of two
/// digests agrees, and that says nothing about a token that is not known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token([u8; 32]);

impl Token {
    pub(crate) fn of(token: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Returns the digest.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

/// All callers that are known, by their tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Callers {
    by_token: HashMap<Token, Arc<CallerRules>>,
    /// Those with a name, in the file's order.
    named: Vec<Arc<CallerRules>>,
}

impl Callers {
    /// Returns whether nobody is known, and so everybody may call.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }

    /// Returns the caller that has a token.
    pub(crate) fn of(&self, token: &Token) -> Option<&Arc<CallerRules>> {
        self.by_token.get(token)
    }

    /// Returns all tokens, in no order.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.by_token.keys()
    }

    /// Returns the names of all callers, those of `client_tokens` included. One with several tokens is there for each.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_token.values().map(|caller| &caller.name)
    }

    /// Returns the callers of `[[callers]]`.
    pub(crate) fn named(&self) -> impl Iterator<Item = &CallerRules> {
        self.named.iter().map(|caller| &**caller)
    }

    /// Begins the limits of the callers. Callers without a name have none.
    pub(crate) fn limits(&self, prices: &Prices) -> CallerLimitsBuilder {
        let limits = CallerLimits::builder().prices(prices.clone());
        self.named().fold(limits, |limits, caller| limits.caller(&*caller.name, caller.quota.clone()))
    }

    /// Returns whether any caller is limited.
    pub(crate) fn are_limited(&self) -> bool {
        self.named().any(|caller| is_limited(&caller.quota))
    }

    /// Describes the callers in a line as layers are described, if there is any with a name.
    pub(crate) fn describe(&self) -> Option<String> {
        let callers: Vec<_> = self.named().map(CallerRules::describe).collect();
        (!callers.is_empty()).then(|| format!("{:<16}{}", "callers", callers.join("; ")))
    }
}

/// A caller, and what it may do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallerRules {
    /// The name in logs, metrics and queues: its own, or `token#1` for the first of `client_tokens`.
    pub(crate) name: Arc<str>,
    /// A flag: it has a name of its own, and one that others cannot have.
    pub(crate) is_named: bool,
    pub(crate) priority: Priority,
    /// The models that it may use. `None`: all.
    pub(crate) models: Option<Models>,
    pub(crate) quota: CallerQuota,
}

impl CallerRules {
    /// Makes the caller of `client_tokens` with this number. No name of `[[callers]]` can have a `#`.
    fn unnamed(number: usize) -> Self {
        Self {
            name: format!("token#{number}").into(),
            is_named: false,
            priority: Priority::default(),
            models: None,
            quota: CallerQuota::new(),
        }
    }

    /// Returns whether the caller has limits, or may use only some models.
    pub(crate) fn is_bounded(&self) -> bool {
        self.models.is_some() || is_limited(&self.quota)
    }

    fn describe(&self) -> String {
        let Self { name, priority, models, quota, .. } = self;
        let limits = CallerDimension::ALL.into_iter().filter_map(|dimension| {
            let of = dimension.as_str();
            Some(format!("{} {}", quota.get(dimension)?, of.strip_prefix("money ").unwrap_or(of)))
        });
        let models = models.as_ref().map(Models::to_string);
        let parts: Vec<_> = [priority.to_string()].into_iter().chain(models).chain(limits).collect();
        format!("{name} ({})", parts.join(", "))
    }
}

// === reading ===

/// Reads `client_tokens` and every `[[callers]]`. Money is counted by `prices`, where the file has them. No token may be
/// one of the relay's own `keys`.
pub(crate) fn read<'k>(
    file: &mut Section<'_>,
    keys: impl Iterator<Item = &'k str>,
    prices: Option<&Prices>,
) -> Callers {
    let mut reading = Reading { keys: keys.map(Token::of).collect(), ..Reading::default() };
    client_tokens(file, &mut reading);
    for section in file.sections("callers") {
        reading.caller(section, prices);
    }
    reading.callers
}

#[derive(Default)]
struct Reading {
    callers: Callers,
    names: HashSet<String>,
    /// The relay's own keys, as if they were tokens.
    keys: HashSet<Token>,
}

impl Reading {
    /// Adds the token of a caller, unless another one has it.
    ///
    /// Returns whether the token is too short.
    fn token(&mut self, token: &str, caller: &Arc<CallerRules>) -> Result<bool, String> {
        let text = secret("token", token)?;
        if is_google_key(&text) {
            return Err(
                "the token is a key of the Gemini API, with which the caller could go past the relay, and the \
                        relay's operator could call as the caller; give it one that is made up: `openssl rand -hex 24`"
                    .to_owned(),
            );
        }
        if *text == *caller.name {
            return Err(
                "the token is the caller's name, which everybody may read; `openssl rand -hex 24` makes one".to_owned()
            );
        }
        let token = Token::of(&text);
        if self.keys.contains(&token) {
            return Err("the token is also a key of [[keys]], with which the caller could go past the relay; give it \
                        one of its own"
                .to_owned());
        }
        match self.callers.by_token.get(&token) {
            Some(other) if other.is_named => {
                let same = if other.name == caller.name { "this caller, too" } else { &*other.name };
                Err(format!("the token is also that of {same}; each token belongs to one caller, once"))
            }
            Some(_) => Err("the token is also one of client_tokens; each token belongs to one caller, once".to_owned()),
            None => {
                self.callers.by_token.insert(token, caller.clone());
                Ok(text.len() < LEAST_TOKEN)
            }
        }
    }

    /// Reads one `[[callers]]`.
    fn caller(&mut self, mut section: Section<'_>, prices: Option<&Prices>) {
        let has_token = section.has("token") || section.has("tokens");
        let name = section.require_placed("name", "name = \"jobs\"", name);
        let token = section.get_placed("token", |value| {
            value.text("the token itself, or \"env:\" and the name of a variable that holds it").map(str::to_owned)
        });
        let tokens = section.get_placed("tokens", |value| value.texts(TOKENS));
        let priority = section.get("priority", priority).unwrap_or_default();
        let models = section.get_placed("models", |value| value.texts(caller_models::RIGHT));
        let models = models.and_then(|(list, place)| caller_models::read(&section, list, place));
        let quota = caller_quota::read(&mut section, models.as_ref(), prices);
        let (name, place) = name.unwrap_or_else(|| (String::new(), section.place()));
        if !name.is_empty() && !self.names.insert(name.clone()) {
            section.mistake(place, format!("name: another caller is called {name:?}; give each its own"));
        }
        let rules = CallerRules { name: name.into(), is_named: true, priority, models, quota };
        let rules = Arc::new(rules);
        self.callers.named.push(rules.clone());

        match (&token, &tokens) {
            (Some(_), Some((_, place))) => {
                section.mistake(place.clone(), "tokens: there is token as well; write all of them into tokens");
            }
            (None, None) if !has_token => section.mistake(
                section.place(),
                "[[callers]] has no token; it is token = \"env:JOBS_TOKEN\", or tokens = [\"env:A\", \"env:B\"]",
            ),
            (None, Some((list, place))) if list.is_empty() => {
                section.mistake(place.clone(), "tokens: is empty, and so the caller could not call; give it one");
            }
            _ => {}
        }
        if let Some((token, place)) = token {
            report(&section, place, "token", self.token(&token, &rules));
        }
        for (token, place) in tokens.into_iter().flat_map(|(tokens, _)| tokens) {
            report(&section, place, "tokens", token.and_then(|token| self.token(&token, &rules)));
        }
        section.finish();
    }
}

fn client_tokens(file: &mut Section<'_>, reading: &mut Reading) {
    let Some((list, place)) = file.get_placed("client_tokens", |value| value.texts(TOKENS)) else { return };
    if list.is_empty() {
        file.mistake(place, "client_tokens: is empty, and so nobody could call; take the line out to let everybody in");
    }
    for (number, (token, place)) in (1..).zip(list) {
        let caller = Arc::new(CallerRules::unnamed(number));
        report(file, place, "client_tokens", token.and_then(|token| reading.token(&token, &caller)));
    }
}

/// Reports a mistake in a token, or that it is too short.
fn report(section: &Section<'_>, place: Place, setting: &str, is_short: Result<bool, String>) {
    match is_short {
        Ok(false) => {}
        Ok(true) => section.remark_at(
            place,
            format!(
                "{setting}: the token has fewer than {LEAST_TOKEN} characters, and can be guessed; \
                 `openssl rand -hex 24` makes one"
            ),
        ),
        Err(mistake) => section.mistake(place, format!("{setting}: {mistake}")),
    }
}

fn name(value: &Value<'_>) -> Result<String, String> {
    const RIGHT: &str = "a name of letters, digits and - _ . @, like \"jobs\"";
    let name = value.text(RIGHT)?;
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    match name {
        _ if name.len() > LONGEST_NAME => Err(format!("has {} characters; {LONGEST_NAME} are the most", name.len())),
        _ if is_google_key(name) => {
            Err(format!("is a key of the Gemini API, which everybody would read; it is {RIGHT}"))
        }
        _ if name.is_empty() || !name.bytes().all(right) => Err(format!("is {name:?}; it is {RIGHT}")),
        _ => Ok(name.to_owned()),
    }
}

fn priority(value: &Value<'_>) -> Result<Priority, String> {
    let all = [Priority::Interactive, Priority::Normal, Priority::Batch];
    one_of(value, &all.map(|priority| (priority.as_str(), priority)))
}
