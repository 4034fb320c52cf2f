//! `[store]`: the server on which several relays count one quota, and what else they tell each other over it.
//!
//! The address may have a password. Nothing that is said of the settings repeats it, nor any text that could be a part of it
//! by a slip.

use std::{env, fmt, num::NonZeroU32, str::FromStr};

use crate::config::{
    diagnostics::Place,
    toml::{Section, Value, distance},
    upstream::is_private,
    values::boolean,
};

pub(crate) const NAMES: &[&str] = &["redis", "prefix", "share", "instances", "leases"];

/// The words of `share`.
const WORDS: [&str; 4] = ["quota", "parks", "keys", "breakers"];

/// The longest prefix of the store's keys: each question carries it.
const LONGEST_PREFIX: usize = 64;

const RIGHT: &str = "it is a URL like \"redis://host:6379\", \"rediss://user:password@host\" (with TLS), \
                     \"redis+sentinel://host:26379,host2:26379/service\" or \"redis+cluster://host:6379,host2:6379\"; or \"env:\" \
                     and the name of a variable that holds it";

/// The settings of the store that several relays share.
#[derive(Clone, Debug)]
pub(crate) struct StoreSettings {
    pub(crate) address: StoreAddress,
    pub(crate) shares: Shares,
    /// The beginning of the names of all that is on the server. `None`: the store's own.
    pub(crate) prefix: Option<String>,
    /// The number of relays before the server has told it. `None`: the store's own.
    pub(crate) instances: Option<NonZeroU32>,
    /// A flag: with high limits a relay takes some calls at a time.
    pub(crate) leases: bool,
}

/// The knowledge that relays share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) quota: bool,
    pub(crate) parks: bool,
    pub(crate) keys: bool,
    pub(crate) breakers: bool,
}

impl Shares {
    const ALL: Self = Self { quota: true, parks: true, keys: true, breakers: true };

    const fn each(self) -> [bool; 4] {
        [self.quota, self.parks, self.keys, self.breakers]
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared: Vec<_> = WORDS.into_iter().zip(self.each()).filter(|(_, is)| *is).map(|(word, _)| word).collect();
        f.write_str(&shared.join(", "))
    }
}

impl StoreSettings {
    fn at(address: StoreAddress) -> Self {
        Self { address, shares: Shares::ALL, prefix: None, instances: None, leases: true }
    }

    /// Reads `[store]`. `address` stands in place of the file's own.
    pub(crate) fn read(file: &mut Section<'_>, address: Option<&StoreAddress>) -> Option<Self> {
        let Some(mut section) = file.section("store") else { return address.cloned().map(Self::at) };
        let given = match address {
            // It is not looked at: the variable that it names may be missing where another address is given.
            Some(address) => section.get("redis", |_| Ok(())).map_or(Some(()), Some).map(|()| (address.clone(), None)),
            None => {
                let right =
                    "redis = \"redis://host:6379\", or \"env:\" and the name of a variable that holds the address";
                section.require_placed("redis", right, of_value).map(|(address, place)| (address, Some(place)))
            }
        };
        let shares = section.get("share", shares);
        if shares.is_some_and(|shares| !shares.quota) {
            section.remark_on_effect(&["instances", "leases"], "share has no \"quota\"");
        }
        let prefix = section.get("prefix", prefix);
        let instances = section.get("instances", instances);
        let leases = section.get("leases", boolean).unwrap_or(true);
        if let Some((address, place)) = &given {
            remark_on_address(&section, address, place.clone());
        }
        section.finish();
        let (address, _) = given?;
        Some(Self { address, shares: shares.unwrap_or(Shares::ALL), prefix, instances, leases })
    }

    /// Describes the store in a line, as the layers are described.
    pub(crate) fn describe(&self) -> String {
        let mut line = format!("{:<16}{}, for {}", "shared store", self.address, self.shares);
        if let Some(prefix) = &self.prefix {
            line.push_str(&format!("; its names begin with {prefix:?}"));
        }
        if let Some(instances) = self.instances.filter(|_| self.shares.quota) {
            line.push_str(&format!("; {instances} relays until it tells how many there are"));
        }
        if self.shares.quota && !self.leases {
            line.push_str("; without leases");
        }
        line
    }
}

/// Says that others on the way can read along, or that everybody may write.
fn remark_on_address(section: &Section<'_>, address: &StoreAddress, place: Option<Place>) {
    let Some(host) = address.hosts.iter().find(|host| !is_private(host)) else { return };
    let remark = match (address.scheme.is_encrypted(), address.has_password) {
        (true, true) => return,
        (false, true) => format!(
            "redis: the password goes to {host} unencrypted, for everybody on the way to read; write {} unless that is a \
             network of your own",
            address.scheme.encrypted()
        ),
        (_, false) => format!(
            "redis: there is no password, and whoever reaches {host} may change what is counted there; set one, with {}, \
             unless that is a network of your own",
            address.scheme.encrypted()
        ),
    };
    match place {
        Some(place) => section.remark_at(place, remark),
        None => section.remark(remark),
    }
}

fn of_value(value: &Value<'_>) -> Result<StoreAddress, String> {
    let text = value.text(RIGHT)?;
    let Some(name) = text.strip_prefix("env:") else { return text.parse() };
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_of_a_name) {
        return Err("behind env: is no name of a variable; write \"env:NAME\"".to_owned());
    }
    let address = env::var(name)
        .map_err(|_| format!("the environment variable {name} is not set, or not text: `export {name}=redis://…`"))?;
    address.parse().map_err(|mistake| format!("in the environment variable {name}: {mistake}"))
}

fn shares(value: &Value<'_>) -> Result<Shares, String> {
    const RIGHT: &str = "a list with any of \"quota\", \"parks\", \"keys\", \"breakers\"";
    let mut chosen = [false; WORDS.len()];
    for (text, _) in value.texts(RIGHT)? {
        let text = text?;
        match WORDS.iter().position(|word| *word == text) {
            Some(at) => chosen[at] = true,
            None => {
                let nearest =
                    WORDS.iter().min_by_key(|word| distance(word, &text)).filter(|word| distance(word, &text) <= 3);
                let meant = nearest.map(|word| format!(": did you mean {word:?}?")).unwrap_or_default();
                return Err(format!("{text:?} is nothing that relays share{meant}; it is {RIGHT}"));
            }
        }
    }
    match chosen {
        [false, false, false, false] => Err("is empty, and so nothing is shared: take [store] out".to_owned()),
        [quota, parks, keys, breakers] => Ok(Shares { quota, parks, keys, breakers }),
    }
}

fn prefix(value: &Value<'_>) -> Result<String, String> {
    const RIGHT: &str = "the beginning of the names on the server, like \"team-a\": letters, digits, - _ . and :";
    let text = value.text(RIGHT)?;
    let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    match text {
        "" => Err(format!("is empty; it is {RIGHT}")),
        text if text.len() > LONGEST_PREFIX => Err(format!("has more than {LONGEST_PREFIX} characters; it is {RIGHT}")),
        text if !text.bytes().all(is_of_it) => Err(format!("{text:?} has other characters; it is {RIGHT}")),
        text => Ok(text.to_owned()),
    }
}

fn instances(value: &Value<'_>) -> Result<NonZeroU32, String> {
    const RIGHT: &str =
        "how many relays there are, for as long as the server has not told: a whole number from 1, like 4";
    let number = value.integer(RIGHT)?;
    let instances = u32::try_from(number).ok().and_then(NonZeroU32::new).filter(|instances| instances.get() <= 10_000);
    instances.ok_or_else(|| format!("is {number}; it is {RIGHT}"))
}

// === addresses ===

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
    Single { tls: bool },
    Sentinel { tls: bool },
    Cluster { tls: bool },
}

impl Scheme {
    const ALL: [(&str, Self); 6] = [
        ("redis", Self::Single { tls: false }),
        ("rediss", Self::Single { tls: true }),
        ("redis+sentinel", Self::Sentinel { tls: false }),
        ("rediss+sentinel", Self::Sentinel { tls: true }),
        ("redis+cluster", Self::Cluster { tls: false }),
        ("rediss+cluster", Self::Cluster { tls: true }),
    ];

    fn of(name: &str) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        if let Some((_, scheme)) = Self::ALL.iter().find(|(known, _)| *known == lower) {
            return Ok(*scheme);
        }
        let meant = match &*lower {
            "valkey" | "tcp" | "http" => Some("redis"),
            "valkeys" | "tls" | "ssl" | "https" | "redis+tls" | "redis+ssl" => Some("rediss"),
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
        }
    }

    /// Returns the beginning of such an address with TLS.
    const fn encrypted(self) -> &'static str {
        match self {
            Self::Single { .. } => "rediss://",
            Self::Sentinel { .. } => "rediss+sentinel://",
            Self::Cluster { .. } => "rediss+cluster://",
        }
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
        let scheme = Scheme::of(name)?;
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
            (Scheme::Single { .. } | Scheme::Cluster { .. }, []) => {}
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
        let shown = format!("{}://{hosts_text}{path}", name.to_ascii_lowercase());
        Ok(Self { url: text.to_owned(), scheme, hosts, has_password, shown })
    }
}

/// Returns the host of `host:port`, if both may be one.
fn host(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, port.strip_prefix(':').or_else(|| port.is_empty().then_some("0")).filter(|port| *port != "")?)
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
            assert_eq!(address.url(), text.trim());
            let settings = StoreSettings::at(address);
            assert!(!format!("{settings:?} {}", settings.describe()).contains("mine"), "{settings:?}");
        }
    }

    #[test]
    fn a_wrong_address_is_refused_with_what_would_be_right_and_without_its_password() {
        for (text, says) in [
            ("valkey:6379", "no scheme"),
            (":secret-of-mine@valkey", "no scheme"),
            ("valkey://:secret-of-mine@h", "valkey:// is no address of such a server: did you mean redis://?"),
            ("valkeys://h", "did you mean rediss://?"),
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
