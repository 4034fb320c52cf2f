//! The resources that an answer describes: those that the call has made, and those that it shows.

use std::sync::LazyLock;

use memchr::{memchr2, memmem::Finder, memrchr};
use serde_json::{Map, Value};

use super::{Resource, naming};

/// The most names that are learned from one answer: a page of a list has some hundred.
const MAX_NAMES: usize = 256;

/// The deepest member that is looked at.
const MAX_DEPTH: usize = 12;

/// The most bytes of an answer that are copied to be read: a resource that is created is described in a few lines.
const MAX_READ: usize = 64 * 1024;

/// Parts of events that may name a resource beside the one that the stream is about.
static MARKS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| ["nvironment", "files/"].map(Finder::new));

/// A resource that an answer describes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Described {
    /// The resource.
    pub resource: Resource,
    /// True if the answer is about this one. Others it only mentions.
    pub is_subject: bool,
    /// True if the upstream itself has put it out: the results of a batch, a generated video. False if the answer may
    /// as well repeat what a caller has written.
    pub is_output: bool,
}

/// A reader of an answer that passes in pieces, whole or as a stream of events. It copies 64 KiB at most.
#[derive(Debug)]
pub struct AnswerReader {
    /// The collection that was asked.
    collection: Option<&'static str>,
    /// Set if the answer is a stream of events.
    events: bool,
    /// True if an event has named what the stream is about.
    found: bool,
    read: Vec<u8>,
    /// The number of bytes that may still be copied.
    left: usize,
}

impl AnswerReader {
    /// Begins to read an answer, which is a stream of events or one value. `collection` is the one that was asked, to
    /// which an id belongs where the answer does not say its own.
    pub fn new(collection: Option<&'static str>, events: bool) -> Self {
        Self { collection, events, found: false, read: Vec::new(), left: MAX_READ }
    }

    /// Copies data as it passes, and hands out what it describes. Returns whether there may be more to learn.
    pub fn push(&mut self, bytes: &[u8], mut learn: impl FnMut(Described)) -> bool {
        let fits = bytes.len().min(self.left);
        self.left -= fits;
        self.read.extend_from_slice(&bytes[..fits]);
        if self.events {
            self.read_events(&mut learn);
        }
        if fits < bytes.len() {
            self.cut(&mut learn);
        }
        fits == bytes.len()
    }

    /// Reads what there is of an answer that is too long: a picture may follow behind the name.
    fn cut(&self, learn: &mut impl FnMut(Described)) {
        let text = if self.events { self.read.strip_prefix(b"data:") } else { Some(&*self.read) };
        if let Some(begun) = text.filter(|_| !self.found).and_then(beginning) {
            self.learn(&begun, learn);
        }
    }

    /// Reads the rest, once the answer has ended.
    pub fn end(&mut self, mut learn: impl FnMut(Described)) {
        if self.events {
            self.read.push(b'\n');
            self.read_events(&mut learn);
        } else if let Ok(answer) = serde_json::from_slice(&self.read) {
            self.learn(&answer, &mut learn);
        }
    }

    /// Reads the complete events, and drops them.
    fn read_events(&mut self, learn: &mut impl FnMut(Described)) {
        let Some(end) = memrchr(b'\n', &self.read) else { return };
        let mut found = self.found;
        for line in self.read[..end].split(|byte| *byte == b'\n') {
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            // Once it is known what the stream is about, most events need no second look.
            if (!found || MARKS.iter().any(|mark| mark.find(data).is_some()))
                && let Ok(event) = serde_json::from_slice(data)
            {
                found |= self.learn(&event, learn);
            }
        }
        self.found = found;
        self.read.drain(..=end);
    }

    /// Hands out the resources of an answer. Returns whether it is about one.
    fn learn(&self, answer: &Value, learn: &mut impl FnMut(Described)) -> bool {
        let all = described(answer, self.collection);
        let is_about_one = all.iter().any(|found| found.is_subject);
        all.into_iter().for_each(learn);
        is_about_one
    }
}

/// Finds the resources that an answer describes. `collection` is the one that was asked, to which an id belongs where
/// the answer does not say its own.
pub fn described(answer: &Value, collection: Option<&'static str>) -> Vec<Described> {
    let mut all = Vec::new();
    match answer {
        Value::Object(members) => {
            walk(members, AnswerPlace { collection, asked: collection, depth: 0, top: true, output: false }, &mut all)
        }
        // A stream without events is one array.
        Value::Array(items) => items.iter().filter_map(Value::as_object).for_each(|members| {
            walk(members, AnswerPlace { collection, asked: collection, depth: 0, top: true, output: false }, &mut all);
        }),
        _ => {}
    }
    all
}

/// Reads the beginning of an answer, up to the last member that is whole. `None`: there is none.
fn beginning(text: &[u8]) -> Option<Value> {
    let (comma, _) = last_comma(text);
    let mut whole = text[..comma?].to_vec();
    let (_, open) = last_comma(&whole);
    whole.extend(open.iter().rev());
    serde_json::from_slice(&whole).ok()
}

/// Finds the last comma between two values, and the brackets that close what is open at the end.
fn last_comma(text: &[u8]) -> (Option<usize>, Vec<u8>) {
    let (mut comma, mut open, mut at) = (None, Vec::new(), 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
                    at += found;
                    if text[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
                if text.get(at).is_none() {
                    break;
                }
            }
            b',' => comma = Some(at),
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' => drop(open.pop()),
            _ => {}
        }
        at += 1;
    }
    (comma, open)
}

/// The place of an object in an answer.
#[derive(Clone, Copy)]
struct AnswerPlace {
    /// The collection of the object's own id.
    collection: Option<&'static str>,
    /// The collection that was asked.
    asked: Option<&'static str>,
    depth: usize,
    /// True for the answer itself, and for the things that it is about.
    top: bool,
    /// True within what the upstream has put out.
    output: bool,
}

fn walk(members: &Map<String, Value>, place: AnswerPlace, all: &mut Vec<Described>) {
    if place.depth > MAX_DEPTH {
        return;
    }
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let own = text("object").and_then(of_object).or(place.collection);
    let is_event = text("type").is_some_and(|kind| kind.starts_with("response."));
    for (name, value) in members {
        if all.len() >= MAX_NAMES {
            return;
        }
        match value {
            Value::String(value) => {
                // A thing that has an id may have a name of its caller's choice beside it.
                if name == "name" && members.contains_key("id") && !value.contains('/') {
                    continue;
                }
                if let Some(resource) = named(name, value, own) {
                    let is_subject = place.top && matches!(&**name, "name" | "id");
                    let is_output = place.output || is_output_file(name);
                    // A name that only looks like it may be one of Google's public things.
                    if is_subject || !resource.may_be_public() {
                        all.push(Described { resource, is_subject, is_output });
                    }
                }
            }
            // Text that a caller or a model has written.
            Value::Object(_) | Value::Array(_) if matches!(&**name, "args" | "arguments" | "labels") => {}
            Value::Object(inner) => {
                let collection = match &**name {
                    "response" => is_event.then_some("responses"),
                    name => of_object(name),
                };
                // An interaction's agent is not what was asked for.
                let is_asked = collection.is_some() && (place.asked.is_none() || collection == place.asked);
                let is_subject = place.depth == 0 && (is_asked || name == "response");
                let output = (place.output || is_output(name)) && !is_input(name);
                walk(inner, AnswerPlace { collection, depth: place.depth + 1, top: is_subject, output, ..place }, all);
            }
            Value::Array(items) => {
                let is_list = place.depth == 0 && (name == "data" || Some(&**name) == place.asked);
                let collection = place.asked.filter(|_| is_list);
                let output = (place.output || is_output(name)) && !is_input(name);
                let inside = AnswerPlace { collection, depth: place.depth + 1, top: is_list, output, ..place };
                for item in items {
                    match item {
                        Value::Object(inner) => {
                            // An interaction's steps are its own, and those of its caller.
                            let by_caller = matches!(
                                inner.get("type").and_then(Value::as_str),
                                Some("user_input" | "function_result")
                            );
                            walk(inner, AnswerPlace { output: output && !by_caller, ..inside }, all);
                        }
                        Value::String(value) if all.len() < MAX_NAMES => {
                            let mentioned = named(name, value, None).filter(|resource| !resource.may_be_public());
                            all.extend(mentioned.map(|resource| Described {
                                resource,
                                is_subject: false,
                                is_output: output,
                            }));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Reads a member's text as the name of a resource; `own` is the collection of the object's own id.
fn named(member: &str, value: &str, own: Option<&str>) -> Option<Resource> {
    let is_bare = !value.contains('/');
    match member {
        "id" | "name" if is_bare => Resource::new(own?, value),
        "id" | "name" | "responsesFile" | "responses_file" | "downloadUri" | "download_uri" => Resource::in_name(value),
        "output_file_id" | "outputFileId" | "error_file_id" | "errorFileId" if is_bare => Resource::new("files", value),
        "output_file_id" | "outputFileId" | "error_file_id" | "errorFileId" => Resource::in_name(value),
        _ => {
            let mention = naming(member.as_bytes())?.read(value)?;
            let is_id = is_bare && (member.ends_with("_id") || member.ends_with("Id"));
            // A file that was registered.
            let is_object = own == Some("files") && mention.resource.is_object();
            (mention.is_certain || is_id || is_object).then_some(mention.resource)
        }
    }
}

/// Returns whether a member holds what the upstream has put out.
fn is_output(member: &str) -> bool {
    matches!(member, "response" | "output" | "outputs" | "dest" | "result" | "results" | "steps")
}

/// Returns whether a member, wherever it is, repeats what a caller has put in.
fn is_input(member: &str) -> bool {
    matches!(
        member,
        "input" | "inputs" | "inputConfig" | "input_config" | "src" | "request" | "requests" | "contents" | "config"
    )
}

/// Returns whether a member names a file that the upstream has put out.
fn is_output_file(member: &str) -> bool {
    matches!(
        member,
        "responsesFile"
            | "responses_file"
            | "downloadUri"
            | "download_uri"
            | "output_file_id"
            | "outputFileId"
            | "error_file_id"
            | "errorFileId"
    )
}

/// Returns the collection of an object that says what it is, or that stands under that name.
fn of_object(kind: &str) -> Option<&'static str> {
    let collection = match kind {
        "agent" => "agents",
        "batch" => "batches",
        "credential" => "credentials",
        "environment" => "environments",
        "file" => "files",
        "interaction" => "interactions",
        "response" => "responses",
        "trigger" => "triggers",
        "video" => "videos",
        "voice" => "voices",
        "webhook" => "webhooks",
        _ => return None,
    };
    Some(collection)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the names in an answer; what it only mentions has a question mark.
    fn names(text: &str, collection: Option<&'static str>) -> Vec<String> {
        let answer = serde_json::from_str(text).unwrap();
        let name = |found: &Described| {
            let shown = format!("{:?}", found.resource);
            let mark = if found.is_subject { "" } else { "?" };
            format!("{}{mark}", shown.trim_start_matches("Resource(\"").trim_end_matches("\")"))
        };
        described(&answer, collection).iter().map(name).collect()
    }

    #[test]
    fn what_an_answer_describes() {
        for (asked, text, expected) in [
            (
                Some("files"),
                r#"{"file": {"name": "files/a", "uri": "https://host/v1beta/files/a"}}"#,
                &["files/a", "files/a?"][..],
            ),
            (
                Some("files"),
                r#"{"files": [{"name": "files/a"}, {"name": "files/b", "displayName": "files/c"}]}"#,
                &["files/a", "files/b"],
            ),
            (Some("cachedContents"), r#"{"name": "cachedContents/c", "model": "models/m"}"#, &["cachedContents/c"]),
            (None, r#"{"name": "models/veo/operations/o"}"#, &["operations/o"]),
            (
                None,
                r#"{"name": "batches/b", "metadata": {"name": "batches/b", "inputConfig": {"fileName": "files/i"}}}"#,
                &["batches/b", "files/i?", "batches/b?"],
            ),
            (None, r#"{"name": "batches/b", "dest": {"fileName": "files/out"}}"#, &["files/out?", "batches/b"]),
            (None, r#"{"done": true, "metadata": {"output": {"responsesFile": "files/out"}}}"#, &["files/out?"]),
            (
                Some("interactions"),
                r#"{"id": "v1_i", "object": "interaction", "agent": "deep-research", "environment_id": "e1"}"#,
                &["environments/e1?", "interactions/v1_i"],
            ),
            (
                Some("interactions"),
                r#"{"id": "v1_i", "environment": "remote", "steps": [{"type": "video", "uri": "https://h/v1/files/v"}]}"#,
                &["interactions/v1_i", "files/v?"],
            ),
            (
                Some("interactions"),
                r#"{"event_type": "interaction.created", "interaction": {"id": "v1_i"}}"#,
                &["interactions/v1_i"],
            ),
            (Some("responses"), r#"{"type": "response.created", "response": {"id": "resp_1"}}"#, &["responses/resp_1"]),
            (None, r#"{"response": {"id": "x", "name": "tunedModels/t"}}"#, &["tunedModels/t"]),
            (Some("files"), r#"{"id": "file-a", "object": "file"}"#, &["files/file-a"]),
            (Some("videos"), r#"{"id": "video_1", "object": "video", "status": "queued"}"#, &["videos/video_1"]),
            (
                Some("batches"),
                r#"{"id": "batch_1", "object": "batch", "output_file_id": "file-o", "input_file_id": "file-i", "metadata": {"name": "mine"}}"#,
                &["batches/batch_1", "files/file-i?", "files/file-o?"],
            ),
            (Some("agents"), r#"{"id": "mine", "base_agent": "deep-research"}"#, &["agents/mine"]),
            (Some("voices"), r#"{"name": "voices/v"}"#, &["voices/v"]),
            (
                None,
                r#"{"interaction_id": "v1_x", "agent_id": "a", "voice": "Kore", "uri": "gs://b/c"}"#,
                &["interactions/v1_x?"],
            ),
            (Some("files"), r#"{"files": [{"name": "files/a", "uri": "gs://b/c"}]}"#, &["files/a", "gs/b/c?"]),
            (
                Some("environments"),
                r#"{"environments": [{"id": "e1"}, {"id": "e2"}]}"#,
                &["environments/e1", "environments/e2"],
            ),
            (
                None,
                r#"{"name": "tunedModels/t/operations/o", "metadata": {"tunedModel": "tunedModels/t"}}"#,
                &["tunedModels/t?", "tunedModels/t"],
            ),
            (
                None,
                r#"{"response": {"generateVideoResponse": {"generatedSamples": [{"video":
                    {"uri": "https://generativelanguage.googleapis.com/v1beta/files/v:download?alt=media"}}]}}}"#,
                &["files/v?"],
            ),
        ] {
            let (mut found, mut expected) =
                (names(text, asked), expected.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{text}");
        }
        for nothing in [
            "{}",
            "[]",
            "1",
            r#"{"name": "models/m"}"#,
            r#"{"id": "chatcmpl-1", "object": "chat.completion"}"#,
            r#"{"displayName": "files/a", "text": "files/b", "arguments": {"name": "files/c"}, "agent": "agents/d"}"#,
        ] {
            assert_eq!(names(nothing, None), Vec::<String>::new(), "{nothing}");
        }
    }

    #[test]
    fn an_answer_that_is_too_long_is_read_as_far_as_it_is_there() {
        let answer = json!({ "id": "v1_x", "a": [{ "type": "im\"ag,e\\\\" }, 1.5, null, { "b": { "c": "d" }, "e": [] }], "z": "last" });
        let text = answer.to_string();
        let mut read = 0;
        for end in 0..=text.len() {
            let Some(begun) = beginning(&text.as_bytes()[..end]) else { continue };
            read += 1;
            let begun_id = begun.get("id").or(begun.get("a")).cloned();
            assert!(begun_id.is_some() && begun.to_string().len() < text.len(), "{begun}");
        }
        assert!(read > text.len() / 2, "{read}");
        let image = format!(r#"{{"id":"v1_x","outputs":[{{"type":"image","data":"{}"#, "A".repeat(9_000));
        let expected = json!({ "id": "v1_x", "outputs": [{ "type": "image" }] });
        assert_eq!(beginning(image.as_bytes()), Some(expected));
        let files = br#"{"files":[{"name":"files/a"},{"name":"files/b"},{"name":"fi"#;
        let expected = json!({ "files": [{ "name": "files/a" }, { "name": "files/b" }] });
        assert_eq!(beginning(files), Some(expected));
        for nothing in ["", "{", "[", r#"{"id":"v1"#, r#"{"a":"b,c"#, "}],"] {
            assert_eq!(beginning(nothing.as_bytes()), None, "{nothing}");
        }
    }

    #[test]
    fn an_answer_teaches_no_more_than_some_hundred_names() {
        let files: Vec<_> = (0..500).map(|nth| json!({ "name": format!("files/{nth}") })).collect();
        assert_eq!(described(&json!({ "files": files }), Some("files")).len(), MAX_NAMES);
        let deep = (0..100).fold(json!({ "uri": "https://h/v1/files/x" }), |inner, _| json!({ "a": inner }));
        assert_eq!(described(&deep, None), []);
    }
}
