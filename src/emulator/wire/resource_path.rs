//! The paths and the names of the things that belong to a project.

use super::{cut::cut, path::around_version, upload_call::NAME};

/// A collection of resources, by the name that its paths and resource names have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collection {
    Files,
    CachedContents,
    Batches,
    Interactions,
    FileSearchStores,
    RagStores,
    Agents,
    Environments,
    Credentials,
    Triggers,
    Voices,
    Webhooks,
    /// Videos of the OpenAI-compatible surface.
    Videos,
    /// Operations that take long, which stand below the thing that they work on: `models/veo/operations/o`.
    Operations,
}

/// The path of a collection, or of one resource in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResourcePath<'a> {
    pub(crate) collection: Collection,
    /// The resource's full name, such as `files/abc` or `fileSearchStores/s/documents/d`; for a path that leads to a
    /// collection within a resource, that resource's.
    pub(crate) name: Option<String>,
    /// The collection within the resource, such as `documents`, if the path leads to one.
    pub(crate) within: Option<&'a str>,
    /// The method behind the colon.
    pub(crate) method: Option<&'a str>,
    /// The path begins with `/upload`.
    pub(crate) is_upload: bool,
}

// === impl Collection ===

impl Collection {
    const ALL: [Self; 14] = [
        Self::Files,
        Self::CachedContents,
        Self::Batches,
        Self::Interactions,
        Self::FileSearchStores,
        Self::RagStores,
        Self::Agents,
        Self::Environments,
        Self::Credentials,
        Self::Triggers,
        Self::Voices,
        Self::Webhooks,
        Self::Videos,
        Self::Operations,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::CachedContents => "cachedContents",
            Self::Batches => "batches",
            Self::Interactions => "interactions",
            Self::FileSearchStores => "fileSearchStores",
            Self::RagStores => "ragStores",
            Self::Agents => "agents",
            Self::Environments => "environments",
            Self::Credentials => "credentials",
            Self::Triggers => "triggers",
            Self::Voices => "voices",
            Self::Webhooks => "webhooks",
            Self::Videos => "videos",
            Self::Operations => "operations",
        }
    }

    /// Finds the collection of a resource by its name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let first = name.split('/').next()?;
        if name.contains("/operations/") {
            return Some(Self::Operations);
        }
        Self::ALL.into_iter().find(|collection| collection.name() == first)
    }

    /// Returns whether the collection is one of the Interactions API's, whose resources have an `id` in place of a
    /// `name`, and members in snake_case.
    pub(crate) fn has_ids(self) -> bool {
        matches!(
            self,
            Self::Interactions
                | Self::Agents
                | Self::Environments
                | Self::Credentials
                | Self::Triggers
                | Self::Voices
                | Self::Webhooks
        )
    }
}

// === impl ResourcePath ===

impl<'a> ResourcePath<'a> {
    /// Parses a path. `None` is a path that leads to none of the collections.
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        let (before, rest) = around_version(path)?;
        let is_upload = before.ends_with("/upload");
        let (rest, method) = match rest.trim_end_matches('/').rsplit_once(':') {
            Some((rest, method)) if !method.contains('/') => (rest, Some(method)),
            _ => (rest.trim_end_matches('/'), None),
        };
        let collection = Collection::of(rest).filter(|_| !rest.is_empty())?;
        let segments = rest.split('/').count();
        if rest.split('/').any(str::is_empty) {
            return None;
        }
        let own = |name: &str| cut(name, NAME);
        let (name, within) = match (collection, segments) {
            (_, 1) => (None, None),
            // A path of files in an environment may have slashes of its own.
            (Collection::Environments, 3..) => {
                let environment = rest.match_indices('/').nth(1).map_or(rest, |(at, _)| &rest[..at]);
                (Some(own(environment)), Some("files"))
            }
            (_, 2 | 4) => (Some(own(rest)), None),
            (_, 3) => {
                let (name, within) = rest.rsplit_once('/')?;
                (Some(own(name)), Some(within))
            }
            _ => return None,
        };
        Some(Self { collection, name, within, method, is_upload })
    }
}

/// Finds the API's own resource in a name or address from a body. Addresses elsewhere are not the API's own.
pub(crate) fn resource_in(name: &str) -> Option<String> {
    let own = match name.find("://") {
        None => name,
        Some(_) if !name.starts_with("http") => return None,
        Some(_) => around_version(name).map(|(_, rest)| rest).filter(|rest| rest.starts_with("files/"))?,
    };
    let own = own.split(['?', '#', ':']).next().unwrap_or(own);
    Collection::of(own).filter(|_| own.contains('/')).map(|_| cut(own, NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<(&'static str, Option<String>, Option<&str>, Option<&str>, bool)> {
        let path = ResourcePath::parse(path)?;
        Some((path.collection.name(), path.name, path.within, path.method, path.is_upload))
    }

    #[test]
    fn a_path_leads_to_a_collection_or_to_a_thing_in_it() {
        let name = |name: &str| Some(name.to_owned());
        for (path, expected) in [
            ("/v1/files", Some(("files", None, None, None, false))),
            ("/upload/v1beta/files", Some(("files", None, None, None, true))),
            ("/v1beta/files:register", Some(("files", None, None, Some("register"), false))),
            ("/relay/v1/batches/b:cancel", Some(("batches", name("batches/b"), None, Some("cancel"), false))),
            (
                "/v1/fileSearchStores/s/documents",
                Some(("fileSearchStores", name("fileSearchStores/s"), Some("documents"), None, false)),
            ),
            (
                "/v1/fileSearchStores/s/documents/d",
                Some(("fileSearchStores", name("fileSearchStores/s/documents/d"), None, None, false)),
            ),
            (
                "/v1/environments/e/files/a/b.txt",
                Some(("environments", name("environments/e"), Some("files"), None, false)),
            ),
            ("/v1/models/veo/operations/o", Some(("operations", name("models/veo/operations/o"), None, None, false))),
            ("/v1/models/m", None),
            ("/v1/things", None),
            ("/v1//files", None),
            ("/files", None),
        ] {
            assert_eq!(parsed(path), expected, "{path}");
        }
    }

    #[test]
    fn a_name_is_found_in_addresses_of_the_api_only() {
        for (name, expected) in [
            ("files/a", Some("files/a")),
            ("https://generativelanguage.googleapis.com/v1beta/files/a", Some("files/a")),
            ("http://127.0.0.1:8787/v1/files/a:download?alt=media", Some("files/a")),
            ("cachedContents/c", Some("cachedContents/c")),
            ("https://www.youtube.com/watch?v=files/a", None),
            ("gs://bucket/v1/files/a.pdf", None),
            ("https://host/files/a.pdf", None),
            ("files", None),
        ] {
            assert_eq!(resource_in(name).as_deref(), expected, "{name}");
        }
    }
}
