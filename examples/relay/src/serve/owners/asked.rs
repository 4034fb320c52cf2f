//! The reading of a call: the things that it names, and what its answer will say.

use http::{Method, Request};
use memchr::memmem::Finder;
use std::sync::LazyLock;
use tower_gemini::{
    call::{Call, Operation, Surface},
    resource::Resource,
};

/// A call, as far as its URI says it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// All that the URI may name.
    pub(crate) named: Vec<Resource>,
    /// The collection that is listed.
    pub(crate) lists: Option<&'static str>,
    /// The collection to which an id in the answer belongs.
    pub(crate) collection: Option<&'static str>,
    /// The thing that is deleted.
    pub(crate) deletes: Option<Resource>,
    /// True if the answer may name what the call has made.
    pub(crate) makes: bool,
    /// True if it only reads.
    pub(crate) reads: bool,
    /// True if its body is a file and no message.
    pub(crate) is_upload: bool,
    /// True if its body has calls of its own, which nobody here reads.
    pub(crate) is_envelope: bool,
}

impl Asked {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let (method, uri) = (request.method(), request.uri());
        let path = uri.path().trim_end_matches('/');
        let call = Call::new(method, uri);
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        let is_upload = call.operation() == Operation::Upload;
        let keeps_answer = call.surface() == Surface::OpenAi && path.ends_with("/responses");
        let makes = match call.operation() {
            Operation::Upload | Operation::Write => *method == Method::POST || *method == Method::PUT,
            Operation::CreateInteraction => true,
            _ => keeps_answer,
        };
        let collection = match call.operation() {
            Operation::CreateInteraction => Some("interactions"),
            Operation::Upload => Resource::asked_collection(path).or(Some("files")),
            _ => Resource::asked_collection(path),
        };
        let lists = if reads { Resource::listed_at(path) } else { None };
        let deletes = (*method == Method::DELETE).then(|| deleted(path)).flatten();
        let is_envelope = !reads && path.trim_start_matches('/').split('/').next() == Some("batch");
        Self { named: Resource::all_in_uri(uri), lists, collection, deletes, makes, reads, is_upload, is_envelope }
    }
}

/// Returns the thing that a DELETE of a path ends. What stands below another thing is a part of that one.
fn deleted(path: &str) -> Option<Resource> {
    let mut last = path.rsplitn(3, '/');
    let (id, collection) = (last.next()?, last.next()?);
    let named = Resource::in_name(&format!("{collection}/{id}"))?;
    let uri = path.parse().ok()?;
    (Resource::all_in_uri(&uri).first() == Some(&named)).then_some(named)
}

// === bodies ===

/// The ends of all collections' names in a name of a thing.
static ENDS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| ["s/", "corpora/"].map(Finder::new));

/// The things that a body names.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) things: Vec<Resource>,
    /// Things whose names stand somewhere in the text, which says them only if it is not prose.
    pub(crate) hinted: Vec<Resource>,
}

/// The most things that are looked up at a time.
const AT_A_TIME: usize = 1_024;

/// Finds what a body names, and hands it out piece by piece. `heed` returns whether to go on.
///
/// The search for names in JSON goes by quotes and the names of members. The API reads more than that: escaped letters,
/// single quotes, other formats. So names are also looked for in the bare text; those are hints.
pub(crate) fn all_named(body: &[u8], mut heed: impl FnMut(&Named) -> bool) {
    let plain = plain(body);
    let body = plain.as_deref().unwrap_or(body);
    let mut named = Named::default();
    for thing in Resource::all_in_body(body) {
        named.things.push(thing);
        if named.things.len() == AT_A_TIME {
            if !heed(&named) {
                return;
            }
            named.things.clear();
        }
    }
    for (finder, len) in ENDS.iter().zip([1, 7]) {
        for at in finder.find_iter(body) {
            named.hinted.extend(hinted(body, at + len));
            if named.hinted.len() == AT_A_TIME {
                if !heed(&named) {
                    return;
                }
                named = Named::default();
            }
        }
    }
    heed(&named);
}

/// Reads the name around a slash.
fn hinted(body: &[u8], slash: usize) -> Option<Resource> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let before = &body[slash.saturating_sub(24)..slash];
    let begin = before.iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(0, |at| at + 1);
    let id = &body[slash + 1..];
    let end = id.iter().take(512).position(|byte| !is_part(byte)).unwrap_or(id.len().min(512));
    let collection = std::str::from_utf8(&before[begin..]).ok()?;
    Resource::in_name(&format!("{collection}/{}", std::str::from_utf8(&id[..end]).ok()?))
}

/// Returns whether a body that has the name of a thing in its text names it: as a whole string, or in a text that is no
/// JSON. In prose it does not.
pub(crate) fn is_named_by(body: &[u8], is_it: &impl Fn(&Resource) -> bool) -> bool {
    fn within(value: &serde_json::Value, is_it: &impl Fn(&Resource) -> bool) -> bool {
        match value {
            serde_json::Value::String(text) => Resource::in_name(text).is_some_and(|thing| is_it(&thing)),
            serde_json::Value::Array(items) => items.iter().any(|item| within(item, is_it)),
            serde_json::Value::Object(members) => members.values().any(|value| within(value, is_it)),
            _ => false,
        }
    }
    serde_json::from_slice(body).map_or(true, |value| within(&value, is_it))
}

/// Writes escaped letters, digits and signs of a JSON text as they are, if there are any. What ends a string stays
/// escaped.
fn plain(body: &[u8]) -> Option<Vec<u8>> {
    static ESCAPES: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| ["\\u00", "\\/"].map(Finder::new));
    if ESCAPES.iter().all(|escape| escape.find(body).is_none()) {
        return None;
    }
    let (mut plain, mut rest) = (Vec::with_capacity(body.len()), body);
    while let Some(at) = memchr::memchr(b'\\', rest) {
        plain.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let letter = match rest {
            [_, b'/', ..] => Some((b'/', 2)),
            [_, b'u', b'0', b'0', high, low, ..] => {
                let digits = [*high, *low];
                let code = std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
                code.filter(|code| code.is_ascii_graphic() && !b"\"\\".contains(code)).map(|code| (code, 6))
            }
            _ => None,
        };
        let taken = match letter {
            Some((letter, taken)) => {
                plain.push(letter);
                taken
            }
            None => {
                plain.extend_from_slice(&rest[..rest.len().min(2)]);
                rest.len().min(2)
            }
        };
        rest = &rest[taken..];
    }
    plain.extend_from_slice(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(body: &str) -> (Vec<String>, Vec<String>) {
        let (mut things, mut hints) = (Vec::new(), Vec::new());
        all_named(body.as_bytes(), |named| {
            things.extend(named.things.iter().map(ToString::to_string));
            hints.extend(named.hinted.iter().map(ToString::to_string));
            true
        });
        (things, hints)
    }

    #[test]
    fn a_name_is_found_however_it_is_written() {
        for body in [
            r#"{"fileUri": "https://h/v1beta/files/abc"}"#,
            r#"{"file\u0055ri": "https:\/\/h\/v1beta\/files\/abc"}"#,
            r#"{"cont\u0065nts": [{"uri": "\u0066iles/\u0061bc"}]}"#,
        ] {
            assert_eq!(named(body).0, ["files/abc"], "{body}");
        }
        for body in ["{'fileUri': 'https://h/v1beta/files/abc'}", "\n\x0afiles/abc\x12\x04", "fileUri=files/abc&b=1"] {
            assert_eq!(named(body), (vec![], vec!["files/abc".to_owned()]), "{body}");
        }
        assert_eq!(named(r#"{"text": "a\\u0066iles/abc \" corpora/x"}"#).1, ["corpora/x"]);
    }

    #[test]
    fn prose_names_nothing() {
        let is_it = |thing: &Resource| thing.as_str() == "files/abc";
        for (body, is_named) in [
            (r#"{"text": "look at src/files/abc please"}"#, false),
            (r#"{"any": ["https://h/v1/files/abc:download"]}"#, true),
            ("{'fileUri': 'files/abc'}", true),
        ] {
            assert_eq!(is_named_by(body.as_bytes(), &is_it), is_named, "{body}");
        }
    }

    #[test]
    fn a_call_is_read_whatever_its_path_looks_like() {
        let asked = |method: &Method, path: &str| {
            Asked::of(&Request::builder().method(method).uri(path).body(()).expect("a request"))
        };
        for path in [
            "/v1beta/files/abc",
            "/v1beta/files/abc/",
            "/v1beta//files/abc:download?alt=media",
            "/v1beta/files%2Fabc",
            "/v1beta/openai/files/files%2Fabc/content",
            "/v1beta/models?name=files%2Fabc",
        ] {
            let named = asked(&Method::GET, path).named;
            assert!(named.iter().any(|thing| thing.as_str() == "files/abc"), "{path}: {named:?}");
        }
        for path in
            ["/v1beta/files", "/v1beta/files/", "/v1beta/files?pageSize=2", "/v1beta/files%2F", "/v1/openai/files"]
        {
            assert_eq!(asked(&Method::GET, path).lists, Some("files"), "{path}");
        }
        for (path, deletes) in [
            ("/v1beta/files/abc", Some("files/abc")),
            ("/v1beta/fileSearchStores/s/documents/d", None),
            ("/v1beta/environments/e/files/abc", None),
            ("/v1beta/models/m/operations/o", Some("operations/o")),
        ] {
            let deleted = asked(&Method::DELETE, path).deletes;
            assert_eq!(deleted.as_ref().map(Resource::as_str), deletes, "{path}");
        }
        assert!(asked(&Method::POST, "/batch/v1beta").is_envelope);
    }
}
