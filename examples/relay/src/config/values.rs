//! Readers of single values. The error of each says what is wrong, and what would be right.

use std::{env, fmt, str::FromStr, time::Duration};

use tower_gemini::prices::Money;

use crate::config::toml::Value;

pub(crate) fn text(value: &Value<'_>) -> Result<String, String> {
    match value.text("a text, like \"a\"")? {
        "" => Err("is empty; it is a text, like \"a\"".to_owned()),
        text => Ok(text.to_owned()),
    }
}

pub(crate) fn boolean(value: &Value<'_>) -> Result<bool, String> {
    value.boolean("true or false, without quotes")
}

/// Reads one of several words, each of which has a meaning.
pub(crate) fn one_of<T: Copy>(value: &Value<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let right: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let right = right.join(", ");
    let text = value.text(&right)?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| format!("is {text:?}; it is one of {right}"))
}

// === times ===

/// Reads a time that is not zero.
pub(crate) fn duration(value: &Value<'_>) -> Result<Duration, String> {
    match duration_or_zero(value)? {
        Duration::ZERO => Err(format!(
            "{:?} is no time at all, and would end or repeat everything at once; take the line out for the default",
            value.text("")?
        )),
        duration => Ok(duration),
    }
}

/// Reads a time that may be zero.
pub(crate) fn duration_or_zero(value: &Value<'_>) -> Result<Duration, String> {
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
    humantime::parse_duration(text).map_err(|error| format!("{text:?} is not a duration ({error}); it is {RIGHT}"))
}

// === sizes ===

/// Reads a number of bytes that is not zero.
pub(crate) fn size(value: &Value<'_>) -> Result<usize, String> {
    let Size(bytes) = match value.integer("") {
        // A number of bytes is seldom meant: with 32, nothing would fit.
        Ok(number @ 1..) => return Err(unitless(number)),
        Ok(number) => number.to_string().parse()?,
        Err(_) => value.text(Size::RIGHT)?.parse()?,
    };
    Ok(bytes)
}

/// Says that a size has no unit, and what it could be.
fn unitless(number: impl fmt::Display) -> String {
    format!("is a number without a unit; write \"{number}MiB\" or \"{number}KiB\", or \"{number}B\" for bytes")
}

/// A number of bytes, as people write it.
struct Size(usize);

impl Size {
    const RIGHT: &str = "a number with a unit, like \"32MiB\", \"512KiB\" or \"10MB\"";
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &dyn fmt::Display| format!("{text:?} is not a size: {why}; it is {}", Self::RIGHT);
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        let number: usize = number.parse().map_err(|error| wrong(&error))?;
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" if number > 0 => return Err(unitless(number)),
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            unit => return Err(wrong(&format_args!("{unit:?} is not a unit"))),
        };
        match number.checked_mul(unit) {
            Some(0) => Err(wrong(&"no request would fit")),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(wrong(&"it is more than memory can hold")),
        }
    }
}

/// Writes a number of bytes as people do, such as `512 MiB`.
pub(crate) fn written_size(bytes: usize) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    match bytes {
        0..1_048_576 => format!("{bytes} bytes"),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

// === money ===

/// Reads dollars.
pub(crate) fn money(value: &Value<'_>) -> Result<Money, String> {
    const RIGHT: &str = "dollars, like 5 or 0.075";
    let digits = value.decimal(RIGHT)?;
    digits.parse().map_err(|_| format!("is {digits}; it is {RIGHT}"))
}

// === secrets ===

/// Returns whether a text has the form of a key of the Gemini API: of the older kind, or of the newer.
pub(crate) fn is_google_key(text: &str) -> bool {
    let made_of = |rest: &str, more: &[u8]| {
        rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || more.contains(&byte))
    };
    match (text.strip_prefix("AIza"), text.strip_prefix("AQ.")) {
        (Some(rest), _) => rest.len() >= 30 && made_of(rest, b""),
        (_, Some(rest)) => rest.len() >= 20 && made_of(rest, b"."),
        _ => false,
    }
}

/// Returns what is wrong with a key or token that was meant to be read from somewhere, in the words of a shell or of
/// another program.
fn reference(noun: &str, text: &str) -> Option<String> {
    let is_name = |name: &str| {
        let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && name.bytes().all(is_of_it)
    };
    let inside = |begin: &str, end: &str| text.strip_prefix(begin)?.strip_suffix(end);
    let begins = |word: &str| {
        text.get(..word.len()).filter(|start| start.eq_ignore_ascii_case(word)).map(|_| &text[word.len()..])
    };
    let name = inside("${", "}")
        .or_else(|| inside("$(", ")"))
        .or_else(|| inside("{{", "}}"))
        .or_else(|| inside("<", ">"))
        .or_else(|| inside("%", "%"))
        .or_else(|| begins("$env:"))
        .or_else(|| begins("env:"))
        .or_else(|| begins("env."))
        .or_else(|| begins("process.env."))
        .or_else(|| begins("file:"))
        .or_else(|| text.strip_prefix('$').filter(|name| is_name(name)))?;
    // A name that is written as names of variables are is one; another one may be a secret.
    let name = name.trim().trim_start_matches("env.").trim_start_matches('$');
    let is_shown = is_name(name) && name.bytes().all(|byte| !byte.is_ascii_lowercase());
    let name = if is_shown { name } else { "NAME" };
    Some(format!(
        "the {noun} is taken as it is written, and this is a reference to one; write \"env:{name}\" for a variable"
    ))
}

/// Reads a key or a token (`noun`): `text` itself, or `env:` and the variable that holds it. The error never shows it.
pub(crate) fn secret(noun: &str, text: &str) -> Result<String, String> {
    let named = text.strip_prefix("env:");
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if named.is_some_and(|name| name.is_empty() || is_google_key(name) || !name.bytes().all(is_of_a_name)) {
        return Err(format!(
            "behind env: is no name of a variable; write \"env:NAME\", or the {noun} itself without env:"
        ));
    }
    if let Some(mistake) = named.is_none().then(|| reference(noun, text.trim())).flatten() {
        return Err(mistake);
    }
    let (secret, subject) = match named {
        None => (text.to_owned(), format!("the {noun}")),
        Some(name) => match env::var(name) {
            Ok(secret) => (secret, format!("the {noun} in the environment variable {name}")),
            Err(env::VarError::NotPresent) => {
                return Err(format!(
                    "the environment variable {name} is not set: `export {name}=…`, or write the {noun} itself"
                ));
            }
            Err(env::VarError::NotUnicode(_)) => {
                return Err(format!("the environment variable {name} holds something that is not text"));
            }
        },
    };
    let secret = secret.trim();
    if secret.is_empty() {
        return Err(format!("{subject} is empty"));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{subject} has blanks or characters in it that no {noun} has: {noun}s are letters, digits, - _ and ."
        ));
    }
    Ok(secret.to_owned())
}

// === names of models ===

/// The form of a model's name. Which models exist, only the upstream knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelName<'a> {
    /// `gemini-2.5-flash`
    Bare,
    /// `tunedModels/…` or `…/endpoints/…`: a model of one project.
    OfProject,
    /// `models/gemini-2.5-flash`: a bare name after a prefix.
    Prefixed(&'a str),
    Malformed,
}

impl<'a> ModelName<'a> {
    pub(crate) fn of(name: &'a str) -> Self {
        let well_formed = |name: &str, more: &[u8]| {
            let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte) || more.contains(&byte);
            !name.is_empty() && name.bytes().all(right)
        };
        if is_google_key(name) {
            return Self::Malformed;
        }
        match name.rsplit_once('/') {
            Some((collection, _)) if collection.ends_with("tunedModels") || collection.ends_with("endpoints") => {
                if well_formed(name, b"/") {
                    Self::OfProject
                } else {
                    Self::Malformed
                }
            }
            Some((_, bare)) if well_formed(bare, b"") => Self::Prefixed(bare),
            None if well_formed(name, b"") => Self::Bare,
            _ => Self::Malformed,
        }
    }

    /// Checks the name of a model or an agent (`agents/…`), or the beginning of one with a `*` behind it.
    pub(crate) fn or_beginning(name: &'a str) -> Result<(), String> {
        let beginning = name.strip_suffix('*').unwrap_or(name);
        // An agent is no model, but it is asked in the place of one.
        let bare = beginning.strip_prefix("agents/").unwrap_or(beginning);
        match Self::of(bare) {
            _ if beginning.contains('*') => Err(format!("{name:?}: a * stands at the end, like \"gemini-2.5-*\"")),
            _ if bare.is_empty() && name.ends_with('*') => Ok(()),
            Self::Bare | Self::OfProject => Ok(()),
            Self::Prefixed(bare) => Err(format!("{name:?}: a model is named without what stands before it: {bare:?}")),
            Self::Malformed => Err(format!(
                "{name:?} is not a model's name; it is one like \"gemini-2.5-flash\", or \"gemini-2.5-*\" for several"
            )),
        }
    }
}
