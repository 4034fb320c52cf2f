//! `upstream`: the server that answers.

use std::str::FromStr;

use bytes::Bytes;
use http_body_util::Empty;
use tower_gemini::{
    client::{Client, ClientBuilder, DEVELOPER_API},
    key_pool::Fingerprint,
};

use crate::config::toml::Value;

/// The server that answers. The default is Google's.
#[derive(Clone)]
pub(crate) enum Upstream {
    /// The emulator, in this process.
    Emulator,
    /// A server at an address.
    Address(ClientBuilder),
}

impl Upstream {
    pub(crate) fn is_emulator(&self) -> bool {
        matches!(self, Self::Emulator)
    }

    /// Returns a text that tells it from others, with nothing of its address that may be secret.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Emulator => "emulator".to_owned(),
            Self::Address(client) => {
                // It has been built before.
                let address = client.clone().build::<Empty<Bytes>>().map(|client| client.base_url().to_owned());
                Fingerprint::of(address.unwrap_or_default()).to_string()
            }
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self::Address(Client::builder().base_url(DEVELOPER_API))
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

/// Reads `upstream`.
pub(crate) fn upstream(value: &Value<'_>) -> Result<Upstream, String> {
    value.text("\"emulator\", or a URL like \"https://generativelanguage.googleapis.com\"")?.parse()
}
