//! The base URL: scheme, authority, and a path that is put in front of every request's own.

use std::str::FromStr;

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::context::ConfigError;

/// A checked base URL.
#[derive(Clone, Debug)]
pub(super) struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    /// The path without the slash at its end, so that a request's path can follow; mostly empty.
    prefix: Box<str>,
    text: Box<str>,
}

impl BaseUrl {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the request's address at this base.
    pub(super) fn resolve(&self, uri: &Uri) -> Result<Uri, http::Error> {
        if uri.scheme() == Some(&self.scheme) && uri.authority() == Some(&self.authority) {
            return Ok(uri.clone());
        }
        let path = match uri.path_and_query() {
            // `OPTIONS *` is about the server itself, which is not the upstream.
            Some(path) if path != "*" => path.clone(),
            _ => PathAndQuery::from_static("/"),
        };
        let path = if self.prefix.is_empty() { path } else { format!("{}{path}", self.prefix).parse()? };
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path).build()
    }
}

impl FromStr for BaseUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let refuse = |why: &str| {
            let right = "it is https:// or http://, a host, and perhaps a port and a path";
            ConfigError::new(format!("{text:?} is not a base URL: {why}; {right}"))
        };
        let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| refuse(&error.to_string()))?;
        if uri.query().is_some() || text.contains('#') {
            return Err(refuse("what follows the path would be lost"));
        }
        let parts = uri.into_parts();
        let scheme = match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTPS || scheme == Scheme::HTTP => scheme,
            Some(scheme) => return Err(refuse(&format!("{scheme} is not supported"))),
            None => return Err(refuse("the scheme is missing")),
        };
        let Some(authority) = parts.authority.filter(|authority| !authority.host().is_empty()) else {
            return Err(refuse("the host is missing"));
        };
        if authority.as_str().contains('@') {
            return Err(refuse("credentials do not belong in it"));
        }
        let prefix = parts.path_and_query.as_ref().map_or("", |path| path.path().trim_end_matches('/')).into();
        let text = format!("{scheme}://{authority}{prefix}").into();
        Ok(Self { scheme, authority, prefix, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(base: &str, uri: &str) -> String {
        base.parse::<BaseUrl>().unwrap().resolve(&uri.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_path_goes_to_the_base() {
        assert_eq!(
            resolved("https://gemini.test", "/v1/models?pageSize=2"),
            "https://gemini.test/v1/models?pageSize=2"
        );
        assert_eq!(resolved("http://127.0.0.1:81/", "/v1/models"), "http://127.0.0.1:81/v1/models");
        assert_eq!(resolved("http://[::1]:81", "/"), "http://[::1]:81/");
    }

    #[test]
    fn a_foreign_address_goes_to_the_base() {
        assert_eq!(resolved("https://gemini.test", "http://evil.test:8080/v1?a=b"), "https://gemini.test/v1?a=b");
        assert_eq!(resolved("https://gemini.test", "http://gemini.test/v1"), "https://gemini.test/v1");
    }

    #[test]
    fn a_prefix_is_put_in_front_once() {
        assert_eq!(resolved("https://gate.test/gemini/", "/v1/models?a=b"), "https://gate.test/gemini/v1/models?a=b");
        assert_eq!(resolved("https://gate.test/gemini", "http://relay.test/v1"), "https://gate.test/gemini/v1");
        assert_eq!(resolved("https://gate.test/gemini", "https://GATE.test/gemini/v1"), "https://GATE.test/gemini/v1");
    }

    #[test]
    fn a_request_without_a_path_asks_for_the_root() {
        assert_eq!(resolved("https://gemini.test", "*"), "https://gemini.test/");
        assert_eq!(resolved("https://gate.test/gemini", "relay.test:443"), "https://gate.test/gemini/");
    }

    #[test]
    fn a_path_that_grows_too_long_is_an_error() {
        let base: BaseUrl = format!("https://gate.test/{}", "p".repeat(100)).parse().unwrap();
        let path = format!("/{}", "a".repeat(65_500)).parse().unwrap();
        assert!(base.resolve(&path).is_err());
    }

    #[test]
    fn what_is_no_base_url_is_refused_with_what_would_be_right() {
        for (text, why) in [
            ("", "empty"),
            ("generativelanguage.googleapis.com", "scheme is missing"),
            ("ftp://gemini.test", "ftp is not supported"),
            ("https://", "not a base URL"),
            ("https://user:secret@gemini.test", "credentials"),
            ("https://gemini.test/?key=AIza", "lost"),
            ("https://gemini.test/#part", "lost"),
            ("https://a region-aiplatform.googleapis.com", "not a base URL"),
        ] {
            let error = text.parse::<BaseUrl>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("https:// or http://"), "{text:?}: {error}");
        }
    }
}
