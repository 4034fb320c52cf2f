//! Secrets that no message about a settings file repeats, wherever in the file they stand.

use std::{env, fmt};

use toml::{Table, Value};
use tower_gemini::failure::{Failure, Kind};

/// The text in place of a secret.
const HIDDEN: &str = "[hidden]";

/// The least characters of a secret that is looked for: a shorter one would be found in every text.
const LEAST: usize = 8;

/// The least characters of a word that is taken for a secret by its looks.
const LEAST_UNKNOWN: usize = 24;

/// The keys and tokens of a file.
#[derive(Clone, Default)]
pub(crate) struct Hidden(Vec<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hidden").finish_non_exhaustive()
    }
}

impl Hidden {
    /// Collects the keys and tokens of a file, of the variables that it names as well, whether or not they are right.
    pub(crate) fn of(file: &str) -> Self {
        let file: Table = file.parse().unwrap_or_default();
        let in_tables = |name: &str, members: &[&str]| {
            // One with single brackets is a mistake, of which the message says nothing secret either.
            let tables = match file.get(name) {
                Some(Value::Array(tables)) => tables.as_slice(),
                Some(table) => std::slice::from_ref(table),
                None => &[],
            };
            let values = tables
                .iter()
                .filter_map(Value::as_table)
                .flat_map(|table| members.iter().filter_map(|member| table.get(*member)));
            values.flat_map(texts).collect::<Vec<_>>()
        };
        let mut all = in_tables("keys", &["key"]);
        all.extend(in_tables("callers", &["token", "tokens"]));
        all.extend(["client_tokens", "operator_token"].iter().filter_map(|name| file.get(*name)).flat_map(texts));
        let mut secrets: Vec<_> = all.into_iter().filter_map(resolved).collect();
        // Of an address, the rest is no secret.
        let addresses = in_tables("store", &["redis"]).into_iter().filter_map(resolved);
        secrets.extend(addresses.filter_map(|address| password(&address).map(str::to_owned)));
        secrets.retain(|secret| secret.len() >= LEAST);
        // One may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// Returns a message without these secrets, and without words that look like some.
    pub(crate) fn clean(&self, message: &str) -> String {
        let message = self.0.iter().fold(message.to_owned(), |message, secret| message.replace(secret, HIDDEN));
        // A failure of the library has nothing in its message that looks like a key of Google's.
        let message = Failure::local(Kind::BadRequest, message).message().to_owned();
        let mut clean = String::with_capacity(message.len());
        let mut rest = &*message;
        while let Some(start) = rest.find(is_of_a_word) {
            let end = rest[start..].find(|c| !is_of_a_word(c)).map_or(rest.len(), |length| start + length);
            clean.push_str(&rest[..start]);
            clean.push_str(if looks_secret(&rest[start..end]) { HIDDEN } else { &rest[start..end] });
            rest = &rest[end..];
        }
        clean + rest
    }
}

/// Returns a secret that is written in the file, or stands in the variable that it names.
fn resolved(text: String) -> Option<String> {
    match text.strip_prefix("env:").map(env::var) {
        Some(secret) => secret.ok().map(|secret| secret.trim().to_owned()),
        None => Some(text),
    }
}

/// Returns the password in a URL.
fn password(text: &str) -> Option<&str> {
    let (credentials, _) = text.split_once("://")?.1.rsplit_once('@')?;
    Some(credentials.split_once(':')?.1)
}

/// Returns the texts of a value: itself, or those of a list.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_+=".contains(c)
}

/// Returns whether a word is made as no name is: long, of small and large letters and of digits.
fn looks_secret(word: &str) -> bool {
    let has = |is: fn(&u8) -> bool| word.bytes().any(|byte| is(&byte));
    word.len() >= LEAST_UNKNOWN && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_names_are_not() {
        let hidden = Hidden::of(
            "client_tokens = [\"token-one\", 2, \"t\"]\n[[keys]]\nkey = \"key-of-a\"\n[[callers]]\ntokens = [\"token-two\"]\n\
             token = \"token-one-more\"\n",
        );
        let single = Hidden::of(
            "operator_token = \"of-operators\"\n[keys]\nkey = \"key-of-a\"\n[store]\nredis = \"redis://me:pass@word@valkey:6379\"\n",
        );
        assert_eq!(single.clean("key-of-a, of-operators"), "[hidden], [hidden]");
        assert_eq!(single.clean("redis://me:pass@word@valkey:6379"), "redis://me:[hidden]@valkey:6379");
        for (message, clean) in [
            ("\"key-of-a\" and token-one, t", "\"[hidden]\" and [hidden], t"),
            ("token-one-more", "[hidden]"),
            ("aZ3bY4cX5dW6eV7fU8gT9hS0 is", "[hidden] is"),
            ("(sk-proj-aZ3bY4cX5dW6eV7fU8gT)", "([hidden])"),
            ("AIzaSyD-made-up-0123456789abcdefghijklm!", "[redacted]!"),
            ("the variable GEMINI_API_KEY_OF_PROJECT_1 is", "the variable GEMINI_API_KEY_OF_PROJECT_1 is"),
            ("gemini-2.5-flash-preview-native-audio-dialog", "gemini-2.5-flash-preview-native-audio-dialog"),
            ("max_concurrent_per_caller is ünïcode", "max_concurrent_per_caller is ünïcode"),
        ] {
            assert_eq!(hidden.clean(message), clean);
        }
    }
}
