//! The search of a JSON body for the resources that it names.
//!
//! One pass, from quote to quote, at memory speed: the large parts of large bodies, media and prose, have hardly any.
//! The byte behind a quote tells nearly all of them apart. A colon ends the name of a member, of which some name a
//! resource; a letter may begin a string that is a resource's full name, wherever it stands.
//!
//! A name inside a string has backslashes before its quotes, and is not found.

use memchr::{memchr, memrchr};

use super::{COLLECTIONS, Mention, Resource, continuation::TokenHash};
use crate::call::quotes;

/// The longest name of a member that is looked for.
const MAX_MEMBER: usize = 24;

/// The longest string that can be a name, escapes and the address of a relay included.
const MAX_VALUE: usize = 4_096;

/// The resources that a JSON body names, in its order.
#[derive(Debug)]
pub(crate) struct Mentions<'a> {
    body: &'a [u8],
    /// The place behind the last quote.
    at: usize,
    /// Set inside a list of names.
    list: Option<Naming>,
}

/// The manner in which a member names a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Naming {
    /// The collection in which the value is an id, where it is not a full name.
    pub(crate) collection: Option<&'static str>,
    /// True if such an id is certainly one; where no ids are taken, if a full name is.
    pub(crate) is_certain: bool,
}

/// The meaning of a byte behind a quote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    /// The quote may have ended a member's name.
    Colon,
    /// The quote may have begun a resource's full name.
    Letter,
}

const NEXT: [Next; 256] = {
    let mut next = [Next::Nothing; 256];
    let mut at = 0;
    while at < COLLECTIONS.len() {
        next[COLLECTIONS[at].as_bytes()[0] as usize] = Next::Letter;
        at += 1;
    }
    let mut at = 0;
    while at < 5 {
        next[b": \t\r\n"[at] as usize] = Next::Colon;
        at += 1;
    }
    next
};

/// Returns the manner in which a member of that name names a resource.
#[inline]
pub(crate) fn naming(member: &[u8]) -> Option<Naming> {
    let (collection, is_certain) = match member {
        // A prompt's media, an item of an interaction's input, the video that another one extends.
        b"fileUri" | b"file_uri" | b"uri" => (None, true),
        b"cachedContent" | b"cached_content" => (Some("cachedContents"), true),
        b"url" | b"imageUrl" | b"image_url" | b"fileUrl" | b"file_url" | b"videoUrl" | b"video_url" | b"imageUri"
        | b"image_uri" | b"videoUri" | b"video_uri" | b"gcsUri" | b"gcs_uri" => (None, false),
        // The input of a batch, and a file that is imported.
        b"fileName" | b"file_name" => (None, true),
        b"inputFileId" | b"input_file_id" => (Some("files"), true),
        b"fileSearchStoreNames" | b"file_search_store_names" | b"fileSearchStore" | b"file_search_store" => {
            (None, true)
        }
        b"previousInteractionId" | b"previous_interaction_id" => (Some("interactions"), true),
        b"previousResponseId" | b"previous_response_id" => (Some("responses"), true),
        b"operationName" | b"operation_name" => (None, true),
        b"corpus" | b"ragStore" | b"rag_store" | b"tunedModel" | b"tuned_model" | b"model" => (None, true),
        // Google has public ones of them, and functions have arguments of these names.
        b"agent" | b"agentId" | b"agent_id" | b"baseAgent" | b"base_agent" => (Some("agents"), false),
        b"environment" | b"environmentId" | b"environment_id" | b"baseEnvironment" | b"base_environment" => {
            (Some("environments"), false)
        }
        b"voice" | b"voiceId" | b"voice_id" | b"voiceName" | b"voice_name" => (Some("voices"), false),
        b"fileId" | b"file_id" => (Some("files"), false),
        b"interactionId" | b"interaction_id" => (Some("interactions"), false),
        b"batchId" | b"batch_id" => (Some("batches"), false),
        b"video" | b"videoId" | b"video_id" => (Some("videos"), false),
        b"credential" | b"credentialId" | b"credential_id" => (Some("credentials"), false),
        b"trigger" | b"triggerId" | b"trigger_id" => (Some("triggers"), false),
        b"webhook" | b"webhookId" | b"webhook_id" => (Some("webhooks"), false),
        _ => return None,
    };
    Some(Naming { collection, is_certain })
}

impl Naming {
    /// Reads a value: a full name, or an id.
    pub(crate) fn read(self, value: &str) -> Option<Mention> {
        let (resource, is_certain) = match self.collection {
            Some(collection) if !value.contains('/') => {
                // OpenAI's ids of files say so.
                let is_certain = self.is_certain || (collection == "files" && value.starts_with("file-"));
                (Resource::new(collection, value)?, is_certain)
            }
            _ => {
                let resource = Resource::in_name(value)?;
                let is_known_place = self.is_certain || self.collection.is_some();
                let is_certain = is_known_place && !resource.may_be_public() && !resource.is_object();
                (resource, is_certain)
            }
        };
        Some(Mention { resource, is_certain })
    }
}

impl<'a> Mentions<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0, list: None }
    }

    /// Reads the value behind the name of a member.
    fn member(&mut self, member: Member) -> Option<Mention> {
        let mut value = self.body[self.at..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let Member::Naming(naming) = member else { return self.token(value) };
        if let Some(list) = value.strip_prefix(b"[") {
            self.list = Some(naming);
            value = list.trim_ascii_start();
        } else if let Some(object) = value.strip_prefix(b"{").filter(|_| naming.collection.is_some()) {
            value = object.trim_ascii_start().strip_prefix(b"\"id\"")?.trim_ascii_start().strip_prefix(b":")?;
            value = value.trim_ascii_start();
        }
        self.value(naming, value)
    }

    /// Reads the next item of a list of names.
    fn item(&mut self, naming: Naming) -> Option<Mention> {
        let Some(value) = self.body[self.at..].trim_ascii_start().strip_prefix(b",") else {
            self.list = None;
            return None;
        };
        self.value(naming, value.trim_ascii_start())
    }

    /// Reads a string, which is a part of the body, and goes on behind it. Any other value is skipped, with the rest of
    /// its list.
    fn value(&mut self, naming: Naming, value: &[u8]) -> Option<Mention> {
        let text = value.strip_prefix(b"\"").and_then(|text| Some((text, memchr(b'"', capped(text))?)));
        let Some((text, len)) = text else {
            self.list = None;
            return None;
        };
        self.at = self.body.len() - text.len() + len + 1;
        let text = &text[..len];
        if memchr(b'\\', text).is_some() {
            let quoted = [b"\"", text, b"\""].concat();
            return naming.read(&serde_json::from_slice::<String>(&quoted).ok()?);
        }
        naming.read(std::str::from_utf8(text).ok()?)
    }

    /// Reads a token with which an answer goes on.
    fn token(&mut self, value: &[u8]) -> Option<Mention> {
        let text = value.strip_prefix(b"\"")?;
        let (resource, behind) = TokenHash::default().push(text)?;
        self.at = self.body.len() - behind.len();
        // It is of no use in any other project, but none is more likely than the others.
        Some(Mention { resource, is_certain: false })
    }

    /// Reads a full name, which begins behind the last quote. In any place it is one only if a project has made it.
    fn full_name(&self) -> Option<Mention> {
        let rest = &self.body[self.at..];
        let name = std::str::from_utf8(&rest[..memchr(b'"', capped(rest))?]).ok()?;
        Some(Mention { resource: Resource::in_name(name)?, is_certain: false })
    }
}

/// A quote that may begin or end the name of something.
enum Candidate {
    /// It ends the name of a member that is looked for.
    Member(Member),
    /// It begins a string that begins with a collection.
    FullName,
}

/// A member that is looked for.
enum Member {
    Naming(Naming),
    Token,
}

/// Looks at the quote at `at`.
#[inline]
fn candidate(body: &[u8], at: usize) -> Option<Candidate> {
    match NEXT[usize::from(*body.get(at + 1)?)] {
        Next::Nothing => None,
        Next::Colon => {
            let before = &body[at.saturating_sub(MAX_MEMBER + 1)..at];
            let name = &before[memrchr(b'"', before)? + 1..];
            if let b"continuationToken" | b"continuation_token" = name {
                return Some(Candidate::Member(Member::Token));
            }
            naming(name).map(|naming| Candidate::Member(Member::Naming(naming)))
        }
        Next::Letter => {
            let rest = &body[at + 1..];
            let slash = memchr(b'/', &rest[..rest.len().min(MAX_MEMBER)])?;
            let is_escaped = at > 0 && body[at - 1] == b'\\';
            let is_known = COLLECTIONS.iter().any(|known| known.as_bytes() == &rest[..slash]);
            (is_known && !is_escaped).then_some(Candidate::FullName)
        }
    }
}

/// Cuts what is longer than any name.
fn capped(text: &[u8]) -> &[u8] {
    &text[..text.len().min(MAX_VALUE)]
}

impl Iterator for Mentions<'_> {
    type Item = Mention;

    fn next(&mut self) -> Option<Mention> {
        loop {
            if let Some(naming) = self.list {
                if let Some(mention) = self.item(naming) {
                    return Some(mention);
                }
                continue;
            }
            let (from, body) = (self.at, self.body);
            let quotes = quotes(body.get(from..)?).map(|at| from + at);
            let (at, candidate) = quotes.filter_map(|at| Some((at, candidate(body, at)?))).next()?;
            self.at = at + 1;
            let mention = match candidate {
                Candidate::Member(member) => self.member(member),
                Candidate::FullName => self.full_name(),
            };
            if mention.is_some() {
                return mention;
            }
        }
    }
}
