//! `[store]`: the server on which several relays count one quota, and what else they tell each other over it.

use std::{env, fmt, num::NonZeroU32};

use tower_gemini::redis_store::{RedisStore, RedisStoreBuilder, RedisStoreError};

use crate::config::{
    diagnostics::Place,
    store_address::{self, StoreAddress},
    toml::{Section, Value, distance},
    values::boolean,
};

pub(crate) const NAMES: &[&str] = &["redis", "prefix", "share", "instances", "leases"];

/// The words of `share`.
const WORDS: [&str; 4] = ["quota", "parks", "keys", "breakers"];

/// The longest prefix of the store's keys: each question carries it.
const LONGEST_PREFIX: usize = 64;

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

    /// Begins the store.
    pub(crate) fn builder(&self) -> Result<RedisStoreBuilder, RedisStoreError> {
        let mut store = RedisStore::builder(self.address.url())?.leases(self.leases);
        if let Some(prefix) = &self.prefix {
            store = store.prefix(prefix.as_str());
        }
        if let Some(instances) = self.instances {
            store = store.instances_unless_seen(instances.get());
        }
        Ok(store)
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
    match (address.remark().map(|remark| format!("redis: {remark}")), place) {
        (Some(remark), Some(place)) => section.remark_at(place, remark),
        (Some(remark), None) => section.remark(remark),
        (None, _) => {}
    }
}

fn of_value(value: &Value<'_>) -> Result<StoreAddress, String> {
    let text = value.text(store_address::RIGHT)?;
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
                let near = |word: &&str| distance(word, &text) <= 3;
                let nearest = WORDS.into_iter().min_by_key(|word| distance(word, &text)).filter(near);
                // Other words may be anything, as a password that slipped in.
                let wrong = nearest.map_or_else(
                    || "one in the list is nothing that relays share".to_owned(),
                    |word| format!("{text:?} is nothing that relays share: did you mean {word:?}?"),
                );
                return Err(format!("{wrong}; it is {RIGHT}"));
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
        // It may be an address by a slip, with a password.
        text if !text.bytes().all(is_of_it) => Err(format!("has other characters; it is {RIGHT}")),
        text => Ok(text.to_owned()),
    }
}

fn instances(value: &Value<'_>) -> Result<NonZeroU32, String> {
    const RIGHT: &str =
        "how many relays there are, for as long as the server has not told: a whole number from 1 to 10000";
    let number = value.integer(RIGHT)?;
    let instances = u32::try_from(number).ok().and_then(NonZeroU32::new).filter(|instances| instances.get() <= 10_000);
    instances.ok_or_else(|| format!("is {number}; it is {RIGHT}"))
}
