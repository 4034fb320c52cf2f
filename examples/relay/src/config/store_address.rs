//! The address of a store's server, as it is written in the settings.
//!
//! It may have a password. Nothing that is said of it repeats that, nor any text that could be a part of it by a slip.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use tower_gemini::redis_store::RedisStore;

use crate::config::{toml::distance, upstream::is_private};

pub(crate) const RIGHT: &str = "it is a URL like \"redis://host:6379\", \"rediss://user:password@host\" (with TLS), \
                     \"redis+sentinel://host:26379,host2:26379/service\" or \"redis+cluster://host:6379,host2:6379\"";

/// The address of the server, with its password. It is shown without.
#[derive(Clone)]
pub(crate) struct StoreAddress {
    url: String,
    scheme: Scheme,
    /// The hosts, without ports.
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
        let encrypted = self.scheme.encrypted();
        match (self.scheme.is_encrypted(), self.has_password) {
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

/// The way to the server that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Single {
        tls: bool,
    },
    Sentinel {
        tls: bool,
    },
    Cluster {
        tls: bool,
    },
    /// A socket of this machine.
    Unix,
}

impl Scheme {
    const ALL: [(&str, Self); 9] = [
        ("redis", Self::Single { tls: false }),
        ("rediss", Self::Single { tls: true }),
        ("redis+sentinel", Self::Sentinel { tls: false }),
        ("rediss+sentinel", Self::Sentinel { tls: true }),
        ("redis+cluster", Self::Cluster { tls: false }),
        ("rediss+cluster", Self::Cluster { tls: true }),
        ("valkey", Self::Single { tls: false }),
        ("valkeys", Self::Single { tls: true }),
        ("unix", Self::Unix),
    ];

    fn of(name: &str) -> Result<Self, String> {
        if let Some((_, scheme)) = Self::ALL.iter().find(|(known, _)| *known == name) {
            return Ok(*scheme);
        }
        let meant = match name {
            "tcp" | "http" => Some("redis"),
            "tls" | "ssl" | "https" | "redis+tls" | "redis+ssl" => Some("rediss"),
            other => {
                let near = |(known, _): &&(&'static str, Self)| distance(known, other);
                Self::ALL.iter().min_by_key(near).filter(|known| near(known) <= 4).map(|(known, _)| *known)
            }
        };
        let meant = meant.map(|meant| format!(": did you mean {meant}://?")).unwrap_or_default();
        // More than a few letters may be a secret in the wrong place.
        let is_name =
            name.len() <= 16 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let what = if is_name {
            format!("{name}:// is no address of such a server")
        } else {
            "this is no address of such a server".to_owned()
        };
        Err(format!("{what}{meant}; {RIGHT}"))
    }

    const fn is_encrypted(self) -> bool {
        match self {
            Self::Single { tls } | Self::Sentinel { tls } | Self::Cluster { tls } => tls,
            Self::Unix => true,
        }
    }

    /// Returns the beginning of such an address with TLS.
    const fn encrypted(self) -> &'static str {
        match self {
            Self::Single { .. } | Self::Unix => "rediss://",
            Self::Sentinel { .. } => "rediss+sentinel://",
            Self::Cluster { .. } => "rediss+cluster://",
        }
    }
}

impl StoreAddress {
    /// Returns an address that the store itself takes, too.
    fn checked(
        url: String,
        scheme: Scheme,
        hosts: Vec<String>,
        has_password: bool,
        shown: String,
    ) -> Result<Self, String> {
        // Its message does not repeat the address.
        RedisStore::builder(&url).map(drop).map_err(|error| error.to_string())?;
        Ok(Self { url, scheme, hosts, has_password, shown })
    }
}

impl FromStr for StoreAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = |why: &str| format!("{why}; {RIGHT}");
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(
                "the address has blanks or characters that are no ASCII: in a password they are written as %20 and the like",
            ));
        }
        let Some((name, rest)) = text.split_once("://") else {
            return Err(wrong("the address has no scheme, as redis://"));
        };
        let name = name.to_ascii_lowercase();
        let scheme = Scheme::of(&name)?;
        if scheme == Scheme::Unix {
            return match rest.starts_with('/') && !rest.contains(['?', '#', '@']) {
                true => Self::checked(format!("unix://{rest}"), scheme, Vec::new(), false, format!("unix://{rest}")),
                false => Err(wrong("behind unix:// stands the path of a socket, from / on")),
            };
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if path.contains('@') {
            return Err(wrong("a / ? or # in a user or a password is written as %2F, %3F or %23"));
        }
        if path.contains(['?', '#']) {
            return Err(wrong("the address has something behind ? or #, where nothing is set"));
        }
        let (credentials, hosts_text) =
            authority.rsplit_once('@').map_or((None, authority), |(of, hosts)| (Some(of), hosts));
        if !credentials.is_none_or(has_whole_escapes) {
            return Err(wrong("a % in a user or a password is written as %25"));
        }
        let has_password =
            credentials.is_some_and(|of| of.split_once(':').is_some_and(|(_, password)| !password.is_empty()));
        let hosts = hosts_text.split(',').map(host).collect::<Option<Vec<_>>>();
        let Some(hosts) = hosts else {
            return Err(wrong("the address has no host, or a host with a port that is none"));
        };
        if hosts.len() > 1 && matches!(scheme, Scheme::Single { .. }) {
            return Err(wrong("the address has several hosts, which only redis+sentinel:// and redis+cluster:// have"));
        }
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let is_number = |part: &str| part.parse::<u16>().is_ok();
        match (scheme, &parts[..]) {
            (Scheme::Single { .. } | Scheme::Cluster { .. }, []) | (Scheme::Unix, _) => {}
            (Scheme::Single { .. }, [number]) if is_number(number) => {}
            (Scheme::Single { .. }, _) => {
                return Err(wrong("behind the host stands the number of a database, or nothing"));
            }
            (Scheme::Cluster { .. }, _) => {
                return Err(wrong("a cluster has one database: nothing stands behind its hosts"));
            }
            (Scheme::Sentinel { .. }, [_]) => {}
            (Scheme::Sentinel { .. }, [_, number]) if is_number(number) => {}
            (Scheme::Sentinel { .. }, []) => {
                return Err(wrong("behind the sentinels' hosts stands the service that they watch, as /mymaster"));
            }
            (Scheme::Sentinel { .. }, _) => {
                return Err(wrong("behind the service stands the number of a database, or nothing"));
            }
        }
        let shown = format!("{name}://{hosts_text}{path}");
        Self::checked(format!("{name}://{rest}"), scheme, hosts, has_password, shown)
    }
}

/// Returns the host of `host:port`, if both may be one.
fn host(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (
                address,
                port.strip_prefix(':').or_else(|| port.is_empty().then_some("0")).filter(|port| !port.is_empty())?,
            )
        }
        None => text.split_once(':').unwrap_or((text, "0")),
    };
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let is_host = !host.is_empty() && host.bytes().all(is_of_a_name);
    // 0 stands for none, and is no port that anybody listens on.
    let has_port = port == "0" && !text.ends_with(":0") || port.parse::<u16>().is_ok_and(|port| port > 0);
    (is_host && has_port).then(|| host.to_owned())
}

/// Returns whether each `%` begins the number of a character.
fn has_whole_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit))
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
            ("valkey:6379", "no scheme"),
            (":secret-of-mine@valkey", "no scheme"),
            ("valky://:secret-of-mine@h", "valky:// is no address of such a server: did you mean valkey://?"),
            ("unix://valkey.sock", "from / on"),
            ("unix:///run/valkey.sock?pass=secret-of-mine", "from / on"),
            ("reddis://h", "did you mean redis://?"),
            ("https://h", "did you mean rediss://?"),
            ("redis+sentinal://h/m", "did you mean redis+sentinel://?"),
            ("redis-cluster://h", "did you mean redis+cluster://?"),
            ("secret-of-mine-and-more://h", "this is no address of such a server; it is a URL like"),
            ("redis://", "no host"),
            ("redis://:secret-of-mine", "no host, or a host with a port that is none"),
            ("redis://h:0", "a port that is none"),
            ("redis://h:65536", "a port that is none"),
            ("redis://[::1", "no host"),
            ("redis://[::1]x", "no host"),
            ("redis://a b", "%20"),
            ("redis://:secret/of-mine@h", "is written as %2F"),
            ("redis://:secret#of-mine@h", "is written as %2F, %3F or %23"),
            ("redis://:secret-100%-of-mine@h", "is written as %25"),
            ("redis://h/mine", "the number of a database"),
            ("redis://h/1/2", "the number of a database"),
            ("redis://h?protocol=resp3", "behind ? or #"),
            ("rediss://h#insecure", "behind ? or #"),
            ("redis://a,b", "several hosts"),
            ("redis+cluster://a,b/1", "one database"),
            ("redis+sentinel://a,b", "as /mymaster"),
            ("redis+sentinel://a/m/n", "the number of a database"),
        ] {
            let mistake = text.parse::<StoreAddress>().unwrap_err();
            assert!(mistake.contains(says) && mistake.contains("it is a URL like"), "{text}: {mistake}");
            assert!(!mistake.contains("mine"), "{text}: {mistake}");
        }
    }
}
