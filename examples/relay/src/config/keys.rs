//! `[[keys]]`, `default_project`, `cache_affinity` and `session_header`: the relay's keys, the project whose quota each uses,
//! and how a call finds one.

use std::{num::NonZeroU32, time::Duration};

use http::HeaderName;
use tower_gemini::{
    ConfigError,
    key_pool::{ApiKey, Fingerprint, Key, KeyPool, KeyPoolBuilder},
};

use crate::config::{
    diagnostics::Place,
    toml::{Section, Value},
    values::{duration_or_zero, is_google_key, secret, text},
};

pub(crate) const NAMES: &[&str] = &["name", "key", "project", "weight"];

/// The project of keys that name none.
const PROJECT: &str = "default";

/// Headers that name no session: those of one connection, of a body, of a key, and the relay's own.
const NO_SESSION: [&str; 16] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-gemini-priority",
    "x-goog-api-key",
];

/// The keys, before they are a pool's.
pub(crate) struct Keys {
    keys: Vec<KeySettings>,
    /// The project of files and cached contents of which nothing is known. `None`: the first key's.
    default_project: Option<String>,
    affinity: CacheAffinity,
}

/// The rules by which calls that begin alike go to one project, whose cache may have their beginning. `None`: the pool's
/// own.
#[derive(Clone, Debug, Default, PartialEq)]
struct CacheAffinity {
    /// The longest time that a call waits more for that, if it is not switched off.
    longest: Option<Option<Duration>>,
    session_header: Option<HeaderName>,
}

#[derive(PartialEq)]
struct KeySettings {
    name: Option<String>,
    key: String,
    project: String,
    weight: NonZeroU32,
}

impl Keys {
    /// Returns the only key that the embedded emulator knows when no other is given.
    fn demo() -> Self {
        let (key, project) = ("demo-key".to_owned(), "demo".to_owned());
        let keys = vec![KeySettings { name: None, key, project, weight: NonZeroU32::MIN }];
        Self { keys, default_project: None, affinity: CacheAffinity::default() }
    }

    /// Begins a pool of these keys.
    pub(crate) fn builder(&self) -> Result<KeyPoolBuilder, ConfigError> {
        let keys = self.keys.iter().map(KeySettings::key).collect::<Result<Vec<_>, _>>()?;
        let mut pool = keys.into_iter().fold(KeyPool::builder(), KeyPoolBuilder::key);
        let CacheAffinity { longest, session_header } = &self.affinity;
        if let Some(longest) = longest {
            pool = pool.cache_affinity(*longest);
        }
        if let Some(header) = session_header {
            pool = pool.session_header(header.clone());
        }
        Ok(match self.default_project() {
            Some(project) => pool.default_project(project),
            None => pool,
        })
    }

    /// Changes a pool of the keys `before` into one of these. It keeps what it knows of keys that stay as they are, and
    /// is never without a key. Returns `false`, and leaves the pool as it is, if another pool is needed.
    pub(crate) fn update(&self, before: &Self, pool: &KeyPool) -> Result<bool, ConfigError> {
        let stays = |key: &&KeySettings| before.keys.contains(key);
        let is_new = |key: &&KeySettings| before.keys.iter().all(|other| other.key != key.key);
        if self.default_project() != before.default_project()
            || self.affinity != before.affinity
            || !self.keys.iter().any(|key| stays(&key) || is_new(&key))
        {
            return Ok(false);
        }
        for key in self.keys.iter().filter(is_new) {
            pool.add(key.key()?)?;
        }
        for key in before.keys.iter().filter(|key| !self.keys.contains(key)) {
            pool.remove(&Fingerprint::of(&key.key));
        }
        // Keys with another project, weight or name than before.
        for key in self.keys.iter().filter(|key| !stays(key) && !is_new(key)) {
            pool.add(key.key()?)?;
        }
        Ok(true)
    }

    fn default_project(&self) -> Option<&str> {
        self.default_project.as_deref().or_else(|| Some(&*self.keys.first()?.project))
    }

    /// Returns each key in clear with its project: the emulator knows them, and no text that leaves the relay may have
    /// them.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().map(|key| (key.key.as_str(), key.project.as_str()))
    }
}

/// Reads `default_project`, the rules of caches, and every `[[keys]]`. There may be none of them if they are `optional`.
pub(crate) fn read(file: &mut Section<'_>, optional: bool) -> Keys {
    let default_project = file.get_placed("default_project", text);
    let longest = file.get("cache_affinity", cache_affinity);
    if longest == Some(None) {
        file.remark_on_effect(&["session_header"], "cache_affinity is false");
    }
    let affinity = CacheAffinity { longest, session_header: file.get("session_header", header) };
    let sections = file.sections("keys");
    let (given, second) = (sections.len(), sections.get(1).map(Section::place));
    let mut keys = Vec::<KeySettings>::new();
    let mut without_project = 0;
    for section in sections {
        if let Some((key, has_project)) = KeySettings::read(section, &keys) {
            keys.push(key);
            without_project += usize::from(!has_project);
        }
    }
    if without_project > 1 {
        let remark = format!(
            "{without_project} keys have no project, and are taken to share the quota of one; give each the project it \
             belongs to"
        );
        file.remark_at(second.unwrap_or_else(|| file.place()), remark);
    }
    if let Some((project, place)) = &default_project {
        check_default_project(file, project, place, &keys);
    }
    if given == 0 && !optional {
        file.mistake(
            file.place(),
            "there is no [[keys]], and this upstream needs one: add a line `[[keys]]` and below it \
             `key = \"env:GEMINI_API_KEY\"`, or set upstream = \"emulator\"",
        );
    }
    if given == 0 {
        return Keys::demo();
    }
    Keys { keys, default_project: default_project.map(|(project, _)| project), affinity }
}

fn check_default_project(file: &Section<'_>, project: &str, place: &Place, keys: &[KeySettings]) {
    if keys.iter().any(|key| key.project == project) {
        return;
    }
    let mut known: Vec<_> = keys.iter().map(|key| format!("{:?}", key.project)).collect();
    known.dedup();
    let known = if known.is_empty() { "none has one".to_owned() } else { format!("there is {}", known.join(", ")) };
    file.mistake(place.clone(), format!("default_project: no key belongs to {project:?}; {known}"));
}

impl KeySettings {
    fn key(&self) -> Result<Key, ConfigError> {
        let Self { name, key, project, weight } = self;
        let key = Key::new(ApiKey::new(key.as_str())?).project(project.as_str()).weight(*weight);
        Ok(match name {
            Some(name) => key.name(name.as_str()),
            None => key,
        })
    }

    /// Reads one `[[keys]]`. Returns also whether it names its project.
    fn read(mut section: Section<'_>, others: &[Self]) -> Option<(Self, bool)> {
        let name = section.get_placed("name", shown);
        let project = section.get("project", shown);
        let weight = section.get("weight", weight).unwrap_or(NonZeroU32::MIN);
        let key = section.require_placed("key", "key = \"env:GEMINI_API_KEY\", or the key itself", key);
        if let Some((name, place)) = &name
            && others.iter().any(|other| other.name.as_ref() == Some(name))
        {
            let mistake = format!("name: another key is called {name:?}; messages about one would fit both");
            section.mistake(place.clone(), mistake);
        }
        let same = key.as_ref().and_then(|(key, _)| others.iter().position(|other| other.key == *key));
        if let (Some((_, place)), Some(at)) = (&key, same) {
            let number = at + 1;
            let called = others[at].name.as_ref().map(|name| format!(" ({name:?})")).unwrap_or_default();
            let mistake =
                format!("key: is the same as that of [[keys]] number {number}{called}; a key twice has no more quota");
            section.mistake(place.clone(), mistake);
        }
        if let (Some((name, place)), Some((key, _))) = (&name, &key)
            && name == key
        {
            section
                .mistake(place.clone(), "name: is the key itself, and is shown in messages; it is a text, like \"a\"");
        }
        section.finish();

        let (key, _) = key.filter(|_| same.is_none())?;
        let (has_project, name) = (project.is_some(), name.map(|(name, _)| name));
        Some((Self { name, key, project: project.unwrap_or_else(|| PROJECT.to_owned()), weight }, has_project))
    }
}

/// Reads a name that messages, the page and metrics show.
fn shown(value: &Value<'_>) -> Result<String, String> {
    let name = text(value)?;
    match is_google_key(&name) {
        true => Err("is a key, and is shown in messages; it is a text, like \"a\"".to_owned()),
        false => Ok(name),
    }
}

fn key(value: &Value<'_>) -> Result<String, String> {
    secret("key", value.text("the key itself, or \"env:\" and the name of a variable that holds it")?)
}

fn weight(value: &Value<'_>) -> Result<NonZeroU32, String> {
    const RIGHT: &str = "how much of the load the key takes beside others: a whole number from 1, like 2";
    let number = value.integer(RIGHT)?;
    let weight = u32::try_from(number).ok().and_then(NonZeroU32::new);
    weight.ok_or_else(|| format!("is {number}; it is {RIGHT}"))
}

fn cache_affinity(value: &Value<'_>) -> Result<Option<Duration>, String> {
    const RIGHT: &str = "the longest time that a call waits more for a project with its beginning in the cache, like \"2s\", \
                         or false";
    match value.boolean(RIGHT) {
        Ok(false) => Ok(None),
        Ok(true) => Err(format!("is true; it is {RIGHT}")),
        Err(_) => duration_or_zero(value).map(Some),
    }
}

fn header(value: &Value<'_>) -> Result<HeaderName, String> {
    const RIGHT: &str = "the name of a header, like \"x-session-id\"";
    let text = value.text(RIGHT)?;
    let name: HeaderName = text.parse().map_err(|_| format!("{text:?} is not a header's name; it is {RIGHT}"))?;
    if NO_SESSION.contains(&name.as_str()) {
        return Err(format!("{text:?} has a meaning of its own, and is no session's; it is {RIGHT}"));
    }
    Ok(name)
}
