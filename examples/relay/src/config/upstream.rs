//! `upstream`: the server that answers.

use std::{fmt, net::IpAddr, str::FromStr};

use bytes::Bytes;
use http::{Uri, uri::Scheme};
use http_body_util::Empty;
use tower_gemini::{
    client::{Client, ClientBuilder, DEVELOPER_API},
    key_pool::Fingerprint,
};

use crate::config::{hidden::Hidden, toml::Value};

const RIGHT: &str = "it is a URL like \"https://generativelanguage.googleapis.com\", or \"emulator\"";

/// The server that answers. The default is Google's.
#[derive(Clone)]
pub(crate) enum Upstream {
    /// The emulator, in this process.
    Emulator,
    /// A server at an address, which is written there, too.
    Address(ClientBuilder, Box<Uri>),
}

impl Upstream {
    pub(crate) fn is_emulator(&self) -> bool {
        matches!(self, Self::Emulator)
    }

    /// Returns a text that tells it from others, with nothing of its address that may be secret.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Emulator => "emulator".to_owned(),
            Self::Address(client, _) => {
                // It has been built before.
                let address = client.clone().build::<Empty<Bytes>>().map(|client| client.base_url().to_owned());
                Fingerprint::of(address.unwrap_or_default()).to_string()
            }
        }
    }
}

impl Upstream {
    /// Returns everything about the address that works but may surprise.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let Self::Address(_, uri) = self else { return Vec::new() };
        let (host, path) = (uri.host().unwrap_or_default(), uri.path().trim_end_matches('/'));
        let mut remarks = Vec::new();
        if uri.scheme() == Some(&Scheme::HTTP) && !is_private(host) {
            remarks.push(format!(
                "the relay's keys and all prompts go to {host} unencrypted, for everybody on the way to read; write https:// \
                 unless that is a network of your own"
            ));
        }
        if !path.is_empty() {
            remarks.push(format!(
                "{path} is put in front of each call's own path, as gateways want it; take it out if {host} is the API itself"
            ));
        }
        remarks
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self::Address(Client::builder().base_url(DEVELOPER_API), Box::new(Uri::from_static(DEVELOPER_API)))
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "emulator" {
            return Ok(Self::Emulator);
        }
        // What stands there may be a secret, and the library's messages repeat an address.
        if text.contains(['@', '?', '#']) {
            return Err(format!("the address has more than a scheme, a host and a port: {RIGHT}"));
        }
        let wrong = |why: &dyn fmt::Display| Hidden::default().clean(&format!("{why}; or it is \"emulator\""));
        let client = Client::builder().base_url(text);
        client.clone().build::<Empty<Bytes>>().map_err(|error| wrong(&error))?;
        let uri: Uri = text.parse().map_err(|error| wrong(&error))?;
        if let Some(begun) = path_of_the_api(uri.path()) {
            return Err(format!(
                "the address ends before the path of the API: /{begun} comes with each call, and would be there twice; \
                 {RIGHT}"
            ));
        }
        let host = uri.host().unwrap_or_default();
        if uri.scheme() == Some(&Scheme::HTTP) && (host == "googleapis.com" || host.ends_with(".googleapis.com")) {
            return Err(format!(
                "the relay's keys would go to {host} for everybody on the way to read; write https://{host}"
            ));
        }
        Ok(Self::Address(client, Box::new(uri)))
    }
}

/// Finds the path of the API at the end of a path. A gateway's own path may have a version as well, before other parts.
fn path_of_the_api(path: &str) -> Option<&str> {
    let whole = path.trim_matches('/');
    let path = whole.strip_suffix("/models").unwrap_or(whole);
    path.rsplit('/').next().filter(|last| is_of_the_api(last))
}

/// Returns whether a segment of a path is one with which the paths of the API begin.
fn is_of_the_api(segment: &str) -> bool {
    let is_version = segment.strip_prefix('v').is_some_and(|rest| {
        let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
        rest.len() + 1 < segment.len() && (rest.is_empty() || rest.starts_with("alpha") || rest.starts_with("beta"))
    });
    is_version || segment == "upload" || segment == "openai"
}

/// Returns whether only this machine, or a network of its owner's, has a host of this name.
pub(crate) fn is_private(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b); // of carriers, RFC 6598
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified() || is_shared
        }
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Err(_) => {
            const LOCAL: [&str; 9] =
                ["localhost", "local", "internal", "lan", "home.arpa", "intranet", "corp", "test", "svc"];
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            !host.contains('.')
                || LOCAL.iter().any(|end| host.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')))
        }
    }
}

/// Reads `upstream`.
pub(crate) fn upstream(value: &Value<'_>) -> Result<Upstream, String> {
    value.text("\"emulator\", or a URL like \"https://generativelanguage.googleapis.com\"")?.parse()
}
