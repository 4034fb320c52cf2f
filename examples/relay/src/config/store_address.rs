//! The address of a store's server, as it is written in the settings.
//!
//! It may have a password. Nothing that is said of it repeats that, nor any text that could be a part of it by a slip.

use std::{fmt, str::FromStr};

use tower_gemini::redis_store::{RedisStore, RedisStoreError};

use crate::config::{toml::distance, upstream::is_private};

pub(crate) const RIGHT: &str = "a URL like \"redis://host:6379\", \"rediss://user:password@host\" (with TLS), \
                     \"redis+sentinel://host:26379,host2:26379/service\" or \"redis+cluster://host:6379,host2:6379\"";

/// The schemes that are told to whoever writes nearly one of them.
const SCHEMES: [&str; 9] = [
    "redis",
    "rediss",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
    "valkey",
    "valkeys",
    "unix",
];

/// The address of the server, with its password. It is shown without.
#[derive(Clone)]
pub(crate) struct StoreAddress {
    url: String,
    scheme: String,
    /// The hosts, without ports; none of a socket.
    hosts: Vec<String>,
    has_password: bool,
    /// The address without user and password.
    shown: String,
}

impl StoreAddress {
    /// Returns the whole address, with the password: for the store alone.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns that others on the way can read along, or that everybody may write.
    pub(crate) fn remark(&self) -> Option<String> {
        let host = self.hosts.iter().find(|host| !is_private(host))?;
        let (family, way) = self.scheme.split_at(self.scheme.find('+').unwrap_or(self.scheme.len()));
        let is_encrypted = matches!(family, "rediss" | "valkeys");
        let encrypted = if is_encrypted { format!("{family}{way}://") } else { format!("{family}s{way}://") };
        match (is_encrypted, self.has_password) {
            (true, true) => None,
            (false, true) => Some(format!(
                "the password goes to {host} unencrypted, for everybody on the way to read; write {encrypted} unless that is a \
                 network of your own"
            )),
            (_, false) => Some(format!(
                "there is no password, and whoever reaches {host} may change what is counted there; set one, with {encrypted}, \
                 unless that is a network of your own"
            )),
        }
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreAddress").field(&self.shown).finish()
    }
}

impl FromStr for StoreAddress {
    type Err = String;

    /// Reads an address that the store itself takes.
    fn from_str(text: &str) -> Result<Self, String> {
        let url = text.trim();
        RedisStore::builder(url).map(drop).map_err(|mistake| told(url, &mistake))?;
        // From here on it is right, so that each part stands in its place.
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let scheme = scheme.to_ascii_lowercase();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, places) = authority.rsplit_once('@').unwrap_or(("", authority));
        // Behind the path of a socket may stand a password.
        let path = path.split('?').next().unwrap_or_default();
        Ok(Self {
            url: url.to_owned(),
            hosts: places.split(',').filter(|place| !place.is_empty()).map(host).collect(),
            has_password: login.split_once(':').is_some_and(|(_, password)| !password.is_empty()),
            shown: format!("{scheme}://{places}{path}"),
            scheme,
        })
    }
}

/// Returns the host of `host:port` or `[v6]:port`.
fn host(place: &str) -> String {
    let end = if place.starts_with('[') { place.find(']') } else { place.find(':') };
    place[..end.unwrap_or(place.len())].trim_start_matches('[').to_owned()
}

/// Adds the scheme that was meant to the store's own words, which do not repeat the address.
fn told(url: &str, mistake: &RedisStoreError) -> String {
    let scheme = url.split_once("://").filter(|_| mistake.is_scheme()).map(|(scheme, _)| scheme.to_ascii_lowercase());
    let meant = scheme.and_then(|scheme| match &*scheme {
        "tcp" | "http" => Some("redis"),
        "tls" | "ssl" | "https" | "redis+tls" | "redis+ssl" => Some("rediss"),
        other => {
            SCHEMES.into_iter().min_by_key(|known| distance(known, other)).filter(|known| distance(known, other) <= 4)
        }
    });
    meant.map_or_else(|| mistake.to_string(), |meant| format!("did you mean {meant}://? {mistake}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_user_and_password() {
        for (text, shown, has_password) in [
            ("redis://valkey", "redis://valkey", false),
            (" redis://valkey:6379/2\n", "redis://valkey:6379/2", false),
            ("rediss://me:secret-of-mine@cache.example:6380/0", "rediss://cache.example:6380/0", true),
            ("redis://:secret-of-mine@[::1]:6379", "redis://[::1]:6379", true),
            ("redis://me@10.0.0.1", "redis://10.0.0.1", false),
            ("valkeys://h:1", "valkeys://h:1", false),
            ("unix:///run/valkey.sock", "unix:///run/valkey.sock", false),
            ("unix:///run/valkey.sock?pass=secret-of-mine", "unix:///run/valkey.sock", false),
            ("REDIS://me:a@secret-of-mine@h", "redis://h", true),
            (
                "redis+sentinel://me:secret-of-mine@a:26379,b:26379/mymaster/1",
                "redis+sentinel://a:26379,b:26379/mymaster/1",
                true,
            ),
            ("rediss+cluster://:secret-of%2Fmine@a,b:7001", "rediss+cluster://a,b:7001", true),
        ] {
            let address: StoreAddress = text.parse().unwrap_or_else(|mistake| panic!("{text}: {mistake}"));
            assert_eq!((address.to_string(), address.has_password), (shown.to_owned(), has_password), "{text}");
            assert_eq!(address.url.to_lowercase(), text.trim().to_lowercase());
            assert!(!format!("{address:?} {address}").contains("mine"), "{address:?}");
        }
    }

    #[test]
    fn a_wrong_address_is_refused_with_what_would_be_right_and_without_its_password() {
        for (text, says) in [
            ("valkey:6379", "the scheme is missing"),
            (":secret-of-mine@valkey", "the scheme is missing"),
            ("valky://:secret-of-mine@h", "did you mean valkey://?"),
            ("reddis://h", "did you mean redis://?"),
            ("https://h", "did you mean rediss://?"),
            ("redis+sentinal://h/m", "did you mean redis+sentinel://?"),
            ("redis-cluster://h", "did you mean redis+cluster://?"),
            ("secret-of-mine-and-more://h", "this is not the address of a Redis or Valkey: the scheme is unknown"),
            ("redis://:secret-of-mine", "a host is missing"),
            ("redis://:secret/of-mine@h", "is written as %2F"),
            ("redis://:secret-100%-of-mine@h", "is written as %25"),
            ("redis://h/mine", "the database is no number"),
            ("redis+sentinel://a,b", "as /mymaster"),
        ] {
            let mistake = text.parse::<StoreAddress>().unwrap_err();
            assert!(mistake.contains(says) && mistake.contains("it is redis://"), "{text}: {mistake}");
            assert!(!mistake.contains("mine"), "{text}: {mistake}");
        }
    }

    #[test]
    fn a_host_is_told_apart_from_its_port_and_public_ones_are_remarked_on() {
        for (text, remark) in [
            ("redis://:p@8.8.8.8:1", Some("write rediss://")),
            ("valkey+sentinel://:p@10.0.0.1,8.8.8.8:26379/m", Some("write valkeys+sentinel://")),
            ("redis+cluster://[2001:4860:4860::8888]:7", Some("reaches 2001:4860:4860::8888 may change")),
            ("rediss://8.8.8.8", Some("set one, with rediss://")),
            ("rediss://:p@8.8.8.8", None),
            ("redis://[::1]:7", None),
            ("unix:///run/valkey.sock", None),
        ] {
            let said = text.parse::<StoreAddress>().unwrap().remark();
            assert_eq!(said.is_some(), remark.is_some(), "{text}: {said:?}");
            assert!(said.zip(remark).is_none_or(|(said, remark)| said.contains(remark)), "{text}");
        }
    }
}
