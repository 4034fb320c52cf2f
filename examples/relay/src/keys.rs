//! `[[keys]]` and `default_project`: which keys the relay has, and whose quota each uses.

use std::{env, num::NonZeroU32, ops::Range};

use tower_gemini::{
    ConfigError,
    key_pool::{ApiKey, Fingerprint, Key, KeyPool, KeyPoolBuilder},
};

use crate::{
    settings::plain_text,
    toml_file::{Mistakes, Section, Value},
};

/// The keys, before they are a pool's.
pub(crate) struct Keys {
    keys: Vec<Setting>,
    /// Whose the files and cached contents are that nobody knows of. `None`: the first key's.
    default_project: Option<String>,
}

#[derive(PartialEq)]
struct Setting {
    name: Option<String>,
    key: String,
    project: String,
    weight: NonZeroU32,
}

/// The project of keys that name none.
const PROJECT: &str = "default";

impl Keys {
    /// The only key that the embedded emulator knows when no other is given.
    pub(crate) fn demo() -> Self {
        let (key, project) = ("demo-key".to_owned(), "demo".to_owned());
        Self { keys: vec![Setting { name: None, key, project, weight: NonZeroU32::MIN }], default_project: None }
    }

    /// A pool of them.
    pub(crate) fn builder(&self) -> Result<KeyPoolBuilder, ConfigError> {
        let keys = self.keys.iter().map(Setting::key).collect::<Result<Vec<_>, _>>()?;
        let pool = keys.into_iter().fold(KeyPool::builder(), KeyPoolBuilder::key);
        Ok(match self.home() {
            Some(project) => pool.default_project(project),
            None => pool,
        })
    }

    /// Makes the pool of other keys one of these. What is known of keys that stay as they are stays known, and the pool is
    /// never without a key. False: it has to be another pool, and this one is as it was.
    pub(crate) fn take_over(&self, before: &Self, pool: &KeyPool) -> Result<bool, ConfigError> {
        let stays = |setting: &&Setting| before.keys.contains(setting);
        let is_new = |setting: &&Setting| before.keys.iter().all(|other| other.key != setting.key);
        if self.home() != before.home() || !self.keys.iter().any(|setting| stays(&setting) || is_new(&setting)) {
            return Ok(false);
        }
        for setting in self.keys.iter().filter(is_new) {
            pool.add(setting.key()?)?;
        }
        for setting in before.keys.iter().filter(|setting| !self.keys.contains(setting)) {
            pool.remove(&Fingerprint::of(&setting.key));
        }
        // Of another project, weight or name than before.
        for setting in self.keys.iter().filter(|setting| !stays(setting) && !is_new(setting)) {
            pool.add(setting.key()?)?;
        }
        Ok(true)
    }

    fn home(&self) -> Option<&str> {
        self.default_project.as_deref().or_else(|| Some(&*self.keys.first()?.project))
    }

    /// Each key as it is, with its project: what must never be seen outside, and what the emulator knows.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().map(|setting| (setting.key.as_str(), setting.project.as_str()))
    }
}

/// Reads every `[[keys]]`, and says whether they fit together. There may be none.
pub(crate) fn read(
    sections: Vec<Section<'_>>,
    default_project: Option<(String, Range<usize>)>,
    mistakes: &mut Mistakes,
    remarks: &mut Vec<String>,
) -> Keys {
    let mut keys = Vec::<Setting>::new();
    let mut homeless = 0;
    for section in sections {
        if let Some((setting, has_project)) = Setting::read(section, &keys, mistakes) {
            keys.push(setting);
            homeless += usize::from(!has_project);
        }
    }
    if homeless > 1 {
        remarks.push(format!(
            "{homeless} keys have no project, and are taken to share the quota of one; give each the project it belongs to"
        ));
    }
    if let Some((project, place)) = &default_project
        && keys.iter().all(|key| key.project != *project)
    {
        let mut known: Vec<_> = keys.iter().map(|key| format!("{:?}", key.project)).collect();
        known.dedup();
        let known = if known.is_empty() { "none has one".to_owned() } else { format!("there is {}", known.join(", ")) };
        mistakes.add(place.clone(), format!("default_project: no key belongs to {project:?}; {known}"));
    }
    Keys { keys, default_project: default_project.map(|(project, _)| project) }
}

impl Setting {
    fn key(&self) -> Result<Key, ConfigError> {
        let Self { name, key, project, weight } = self;
        let key = Key::new(ApiKey::new(key.as_str())?).project(project.as_str()).weight(*weight);
        Ok(match name {
            Some(name) => key.name(name.as_str()),
            None => key,
        })
    }

    /// Also: whether it says to which project it belongs.
    fn read(mut section: Section<'_>, others: &[Self], mistakes: &mut Mistakes) -> Option<(Self, bool)> {
        let spanned = |value: &Value<'_>| Ok((plain_text(value)?, value.span()));
        let name = section.get("name", spanned, mistakes);
        let project = section.get("project", plain_text, mistakes);
        let weight = section.get("weight", weight, mistakes).unwrap_or(NonZeroU32::MIN);
        let read = |value: &Value<'_>| Ok((key(value)?, value.span()));
        let key = section.require("key", "key = \"env:GEMINI_API_KEY\", or the key itself", read, mistakes);
        section.finish(mistakes);

        if let Some((name, place)) = &name
            && others.iter().any(|other| other.name.as_ref() == Some(name))
        {
            mistakes.add(
                place.clone(),
                format!("name: another key is called {name:?}; what is said of one would fit both"),
            );
        }
        let (key, place) = key?;
        if let Some(at) = others.iter().position(|other| other.key == key) {
            let number = at + 1;
            let called = others[at].name.as_ref().map(|name| format!(" ({name:?})")).unwrap_or_default();
            mistakes.add(
                place,
                format!("key: is the same as that of [[keys]] number {number}{called}; a key twice has no more quota"),
            );
            return None;
        }
        let (has_project, name) = (project.is_some(), name.map(|(name, _)| name));
        let project = project.unwrap_or_else(|| PROJECT.to_owned());
        Some((Self { name, key, project, weight }, has_project))
    }
}

fn key(value: &Value<'_>) -> Result<String, String> {
    secret("key", value.text("the key itself, or \"env:\" and the name of a variable that holds it")?)
}

/// A key or a token, as it is or in the environment. What it says of a wrong one never shows it.
pub(crate) fn secret(what: &str, text: &str) -> Result<String, String> {
    let (secret, place) = match text.strip_prefix("env:") {
        None => (text.to_owned(), format!("the {what}")),
        Some(name) => match env::var(name) {
            Ok(secret) => (secret, format!("the {what} in the environment variable {name}")),
            Err(env::VarError::NotPresent) => {
                return Err(format!(
                    "the environment variable {name} is not set: `export {name}=…`, or write the {what} itself"
                ));
            }
            Err(env::VarError::NotUnicode(_)) => {
                return Err(format!("the environment variable {name} holds something that is no text"));
            }
        },
    };
    let secret = secret.trim();
    if secret.is_empty() {
        return Err(format!("{place} is empty"));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{place} has blanks or characters in it that no {what} has: {what}s are letters, digits, - _ and ."
        ));
    }
    Ok(secret.to_owned())
}

fn weight(value: &Value<'_>) -> Result<NonZeroU32, String> {
    const RIGHT: &str = "how much of the load the key takes beside others: a whole number from 1, like 2";
    let number = value.integer(RIGHT)?;
    let weight = u32::try_from(number).ok().and_then(NonZeroU32::new);
    weight.ok_or_else(|| format!("is {number}; it is {RIGHT}"))
}
