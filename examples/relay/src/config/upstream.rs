//! `upstream`: the server that answers.

use std::str::FromStr;

use bytes::Bytes;
use http_body_util::Empty;
use tower_gemini::client::{Client, ClientBuilder, DEVELOPER_API};

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
