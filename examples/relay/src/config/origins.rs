//! `allowed_origins`: the pages that may call the relay from a browser.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::toml::Section;

const RIGHT: &str = "a list of origins, like [\"https://app.example.com\", \"http://localhost:5173\"], or [\"*\"]";

/// The form of one origin.
const FORM: &str = "a scheme and a host, and a port if it is not the scheme's own, like \"https://app.example.com\" or \
                    \"http://localhost:5173\"";

/// The most characters of an origin that a refusal repeats: the longest name of a host has 253.
const LONGEST: usize = 280;

/// The origins whose pages may call the relay and read its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origins {
    /// Nothing is set. Where no token is wanted, these are all of them, as at the API itself, and none where one is.
    Unset { wants_token: bool },
    /// All of them, as it was set.
    Any,
    /// These, as browsers write them.
    Listed(Vec<String>),
}

impl Origins {
    /// Returns whether pages of an origin may call.
    pub(crate) fn allow(&self, origin: &[u8]) -> bool {
        match self {
            Self::Unset { wants_token } => !wants_token,
            Self::Any => true,
            Self::Listed(origins) => origins.iter().any(|allowed| allowed.as_bytes() == origin),
        }
    }

    /// Says that pages of an origin may not call, and where that is decided.
    pub(crate) fn refusal_of(origin: &[u8]) -> String {
        let origin: String = String::from_utf8_lossy(origin).chars().take(LONGEST).collect();
        format!("pages of {origin} may not call this relay: its setting allowed_origins does not name them")
    }

    /// Returns whether somebody has decided which pages may call.
    pub(crate) fn are_set(&self) -> bool {
        !matches!(self, Self::Unset { .. })
    }

    /// Returns a line for people, in the form of those of the layers, if somebody has decided which pages may call.
    pub(crate) fn describe(&self) -> Option<String> {
        let origins = match self {
            Self::Unset { .. } => return None,
            Self::Any => "every origin".to_owned(),
            Self::Listed(origins) if origins.is_empty() => "no other origin".to_owned(),
            Self::Listed(origins) => origins.join(", "),
        };
        Some(format!("pages           of {origins} may call"))
    }
}

/// Reads `allowed_origins`. Without it, pages may call a relay that wants no token: everybody may.
pub(crate) fn read(file: &mut Section<'_>, wants_token: bool) -> Origins {
    let Some((list, place)) = file.get_placed("allowed_origins", |value| value.texts(RIGHT)) else {
        return Origins::Unset { wants_token };
    };
    let is_alone = list.len() == 1;
    let mut origins = Vec::new();
    for (origin, at) in list {
        match origin.and_then(|origin| parse(&origin)) {
            Ok(None) if is_alone => return Origins::Any,
            Ok(None) => file.mistake(
                place.clone(),
                "allowed_origins: \"*\" stands for every origin; write it alone, or take it out",
            ),
            Ok(Some(origin)) => origins.push(origin),
            Err(mistake) => file.mistake(at, format!("allowed_origins: {mistake}")),
        }
    }
    Origins::Listed(origins)
}

/// Reads one origin; `None` stands for all of them. A browser sends an origin in one form only, and one that is written
/// in another way would never be met: it is refused, with the right form.
fn parse(text: &str) -> Result<Option<String>, String> {
    if text == "*" {
        return Ok(None);
    }
    if text == "null" {
        return Err(
            "\"null\" is the origin of every page that was opened as a file, and of sandboxed frames of any site: \
                    serve the page over HTTP, or write [\"*\"]"
                .to_owned(),
        );
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("{text:?} has no scheme; an origin is {FORM}"));
    };
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
        return Err(format!("{text:?} begins with no scheme; an origin is {FORM}"));
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    let right =
        format!("{scheme}://{}", authority_as_sent(&scheme, authority).map_err(|why| format!("{text:?} {why}"))?);
    if text == right {
        return Ok(Some(right));
    }
    let why = if rest.len() > authority.len() {
        "has a path, and an origin has none"
    } else {
        "is not written as browsers send it"
    };
    Err(format!("{text:?} {why}: write {right:?}"))
}

/// Returns a host and its port as browsers send them.
fn authority_as_sent(scheme: &str, authority: &str) -> Result<String, String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host = host_as_sent(host)?;
    let Some(port) = port else { return Ok(host) };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let Some(port) = port.parse::<u16>().ok().filter(|port| digits && *port > 0) else {
        return Err(format!("has {port:?} for its port; a port is a number from 1 to 65535"));
    };
    match (scheme, port) {
        ("http", 80) | ("https", 443) => Ok(host),
        _ => Ok(format!("{host}:{port}")),
    }
}

fn host_as_sent(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Err(format!("has no host; an origin is {FORM}"));
    }
    if host.contains('@') {
        return Err(format!("has a user's name before its host; an origin is {FORM}"));
    }
    if host.contains('*') {
        return Err("has a wildcard in it; write each origin by itself, or [\"*\"] for every one".to_owned());
    }
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr =
            inside.parse().map_err(|_| format!("has no IPv6 address in its brackets: {inside:?}"))?;
        return Ok(format!("[{address}]"));
    }
    if !host.is_ascii() {
        return Err("has letters that browsers encode; write its host in the form that begins with xn--".to_owned());
    }
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if let Some(wrong) = host.bytes().find(|byte| !is_host(*byte)) {
        return Err(format!("has {:?} in its host; an origin is {FORM}", char::from(wrong)));
    }
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_address = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    if is_address && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("has {host:?} for its host, which is no IPv4 address"));
    }
    Ok(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_taken_as_browsers_send_it() {
        for origin in [
            "https://app.example.com",
            "http://localhost:5173",
            "http://127.0.0.1",
            "http://[::1]:3000",
            "https://xn--bcher-kva.example",
            "https://a.example:8443",
            "chrome-extension://abcdefghijklmnop",
            "tauri://localhost",
        ] {
            assert_eq!(parse(origin), Ok(Some(origin.to_owned())));
        }
        assert_eq!(parse("*"), Ok(None));
    }

    #[test]
    fn an_origin_that_no_browser_would_send_is_refused_with_the_right_one() {
        for (wrong, says) in [
            ("https://app.example.com/", "path, and an origin has none: write \"https://app.example.com\""),
            ("https://app.example.com/chat?x", "write \"https://app.example.com\""),
            ("https://App.Example.com", "write \"https://app.example.com\""),
            ("HTTPS://app.example.com", "write \"https://app.example.com\""),
            ("https://app.example.com:443", "write \"https://app.example.com\""),
            ("http://localhost:080", "write \"http://localhost\""),
            ("http://localhost:03000", "write \"http://localhost:3000\""),
            ("http://[0:0:0:0:0:0:0:1]:3000", "write \"http://[::1]:3000\""),
            ("app.example.com", "has no scheme"),
            ("localhost:3000", "has no scheme"),
            ("//app.example.com", "has no scheme"),
            ("://app.example.com", "begins with no scheme"),
            ("1a://app.example.com", "begins with no scheme"),
            ("https://", "has no host"),
            ("https://:80", "has no host"),
            ("https://me@app.example.com", "user's name"),
            ("https://*.example.com", "wildcard"),
            ("https://bücher.example", "xn--"),
            ("https://app example", "' ' in its host"),
            ("https://a,https://b", "',' in its host"),
            ("http://localhost:", "port"),
            ("http://localhost:70000", "port"),
            ("http://localhost:0", "port"),
            ("http://localhost:+80", "port"),
            ("http://127.1:3000", "no IPv4 address"),
            ("http://[::g]", "no IPv6 address"),
            ("null", "sandboxed frames"),
            ("", "has no scheme"),
        ] {
            let mistake = parse(wrong).expect_err(wrong);
            assert!(mistake.contains(says), "{wrong}: {mistake}");
        }
    }

    #[test]
    fn only_what_is_listed_is_allowed() {
        let listed = Origins::Listed(vec!["https://a.example".to_owned()]);
        for (origin, allowed) in [
            ("https://a.example", true),
            ("https://a.example.evil.example", false),
            ("https://b.a.example", false),
            ("http://a.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(listed.allow(origin.as_bytes()), allowed, "{origin}");
            assert!(Origins::Any.allow(origin.as_bytes()));
            assert!(Origins::Unset { wants_token: false }.allow(origin.as_bytes()));
            assert!(!Origins::Unset { wants_token: true }.allow(origin.as_bytes()));
        }
    }
}
