//! The review of items that may be errors which the upstream itself says in the middle of a stream.
//!
//! After such an error the connection has to break, because three SDKs take a clean end for a complete answer. And some
//! shapes of an error are read by no SDK: a list, a string as the code, an `error` that is not the first member, an
//! `event:` line on Gemini's own surface, bare JSON without `data:`. An event of such a shape gets the one that all of
//! them read. All other bytes pass untouched.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{
    ends::{EventEnds, ItemEnds},
    hide,
    settings::{OpenAiErrors, Settings},
};
use crate::{
    answer::sse::{Listener, Splitter},
    call::{Operation, Shape, Surface},
    failure::Failure,
    status::{error_object, says_error, take_error},
};

/// The review of one stream.
#[derive(Debug)]
pub(super) struct Review {
    shape: Shape,
    settings: Settings,
    /// Set if a project that is named is the server's own.
    hides_projects: bool,
    /// The last error that was found.
    error: Option<Failure>,
}

impl Review {
    pub(super) fn new(shape: Shape, settings: Settings, hides_projects: bool) -> Self {
        Self { shape, settings, hides_projects, error: None }
    }

    /// Overwrites keys in text. `None`: there were none.
    pub(super) fn mask(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.settings.secrets.mask(text)
    }

    /// Returns the error that the upstream has said.
    pub(super) fn error(&self) -> Option<&Failure> {
        self.error.as_ref()
    }

    /// Looks at whole events that are about to pass, and returns those to pass on: the same, unless there is an error
    /// among them that has to be written anew.
    pub(super) fn events(&mut self, events: Bytes) -> Bytes {
        // Nothing is known of a stream that is not the API's.
        if self.shape.surface == Surface::Other || !may_be_error(&events) {
            return events;
        }
        let mut out = Vec::with_capacity(events.len());
        let mut is_changed = false;
        for event in split(&events) {
            match self.event(event) {
                Some(changed) => {
                    out.extend_from_slice(&changed);
                    is_changed = true;
                }
                None => out.extend_from_slice(event),
            }
        }
        if is_changed { out.into() } else { events }
    }

    /// Looks at whole elements of an array, with what stands around them.
    pub(super) fn elements(&mut self, elements: Bytes) -> Bytes {
        let is_around = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'[' | b']' | b',');
        let Some(begin) = elements.iter().position(|byte| !is_around(byte)).filter(|_| may_be_error(&elements)) else {
            return elements;
        };
        let end = elements.iter().rposition(|byte| !is_around(byte)).map_or(begin, |last| last + 1);
        let list = [b"[", &elements[begin..end], b"]"].concat();
        let Some(error) = error_object(&list).map(Value::Object) else { return elements };
        self.error = Some(Failure::from_event(error.to_string().as_bytes()).into_after_commit());
        let elements = self.without_projects(&elements).map_or(elements, Bytes::from);
        self.mask(&elements).map_or(elements, Bytes::from)
    }

    /// Writes those elements anew that are errors and name a project of the server's. `None`: there are none.
    fn without_projects(&self, elements: &[u8]) -> Option<Vec<u8>> {
        let (mut written, mut done, mut at) = (Vec::new(), 0, 0);
        while let Some(begin) = elements[at..].iter().position(|byte| *byte == b'{').map(|next| at + next) {
            let mut values = serde_json::Deserializer::from_slice(&elements[begin..]).into_iter::<Value>();
            let Some(Ok(mut value)) = values.next() else { break };
            at = begin + values.byte_offset();
            if says_error(&value) && self.hide(&mut value) {
                written.extend_from_slice(&elements[done..begin]);
                written.extend_from_slice(value.to_string().as_bytes());
                done = at;
            }
        }
        written.extend_from_slice(&elements[done..]);
        (done > 0).then_some(written)
    }

    /// Hides the server's own projects. Returns whether there was one.
    fn hide(&self, value: &mut Value) -> bool {
        self.hides_projects && hide::in_value(value)
    }

    /// Looks at one event. Returns it as it has to be, if it is an error and is to be changed.
    fn event(&mut self, event: &[u8]) -> Option<Vec<u8>> {
        if !may_be_error(event) {
            return None;
        }
        let lines = Lines::of(event);
        let (before, json, is_bare) = match error_object(&lines.bare) {
            Some(_) => (before_bare(event), &lines.bare, true),
            None => (&event[..0], &lines.data, false),
        };
        let mut error = Value::Object(error_object(json)?);
        self.error = Some(Failure::from_event(json).into_after_commit());
        let names_project = self.hide(&mut error);
        if self.is_read(event, json, is_bare) {
            if !names_project {
                return self.mask(event);
            }
            // The frame stays in which these SDKs look for it.
            if !is_bare && !self.is_googles() {
                let mut data: Value = serde_json::from_slice(json).ok()?;
                self.hide(&mut data);
                let written = with_data(event, &data);
                return Some(self.mask(&written).unwrap_or(written));
            }
        }
        let mut written = before.to_vec();
        if !before.trim_ascii().is_empty() && !ends_blank(before) {
            written.push(b'\n');
        }
        written.extend_from_slice(b"data: ");
        // Its words come from what is left of it.
        let json = error.to_string();
        written.extend_from_slice(&readable(error, json.as_bytes()));
        written.extend_from_slice(divided(event).1);
        Some(self.mask(&written).unwrap_or(written))
    }

    /// Returns whether the stream is one of Gemini's own surface.
    fn is_googles(&self) -> bool {
        matches!(self.shape.surface, Surface::Developer | Surface::Vertex) && self.shape.operation != Operation::Predict
    }

    /// Returns whether the surface's SDKs read this error as it came.
    fn is_read(&self, event: &[u8], json: &[u8], is_bare: bool) -> bool {
        match self.shape.surface {
            // These SDKs go by the event's name, and bare lines have got a frame.
            Surface::Interactions => true,
            Surface::Other => true,
            // Another provider's stream.
            _ if self.shape.operation == Operation::Predict => true,
            Surface::OpenAi if is_bare => false,
            // These read every object, and the names of events as well.
            Surface::OpenAi => {
                self.settings.openai == OpenAiErrors::GoogleLists || !json.trim_ascii_start().starts_with(b"[")
            }
            Surface::Developer | Surface::Vertex => !is_bare && is_plain(event) && is_readable(json),
        }
    }
}

/// Returns whether the half of an event is left that no SDK could read: its JSON has not ended.
pub(super) fn is_half(event: &[u8]) -> bool {
    let lines = Lines::of(event);
    let json = if lines.data.is_empty() { &lines.bare } else { &lines.data };
    let begins_as_json = matches!(json.trim_ascii_start().first(), Some(b'{' | b'['));
    begins_as_json && json.trim_ascii() != b"[DONE]" && serde_json::from_slice::<IgnoredAny>(json).is_err()
}

fn may_be_error(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"\"error\"").is_some()
}

/// Splits text into its events, each with the line ends behind it.
fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut cuts = vec![0];
    EventEnds::new().scan(text, |end| match cuts.last_mut() {
        // A CR and its LF are one line end.
        Some(last) if end == *last + 1 && text[*last] == b'\n' && *last > 0 && text[*last - 1] == b'\r' => *last = end,
        _ => cuts.push(end),
    });
    cuts.push(text.len());
    (1..cuts.len()).map(move |nth| &text[cuts[nth - 1]..cuts[nth]])
}

/// Returns whether every SDK reads this error: `error` is the first member, and its code a number.
fn is_readable(json: &[u8]) -> bool {
    let is_first = json.strip_prefix(b"{").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"error\""));
    let value = |json| serde_json::from_slice::<Value>(json).unwrap_or_default();
    is_first && value(json)["error"]["code"].is_u64()
}

/// Returns whether an event is one `data:` line and no other.
fn is_plain(event: &[u8]) -> bool {
    let line = event.trim_ascii_end();
    line.starts_with(b"data:") && memchr::memchr2(b'\n', b'\r', line).is_none()
}

/// Writes an event anew with that JSON as its data. Its other lines stay.
fn with_data(event: &[u8], json: &Value) -> Vec<u8> {
    let (content, ends) = divided(event);
    let (mut written, mut has_data) = (Vec::with_capacity(event.len()), false);
    for line in content.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
        let is_data = line.starts_with(b"data:") || line == b"data";
        if is_data && std::mem::replace(&mut has_data, true) {
            continue;
        }
        if !written.is_empty() {
            written.push(b'\n');
        }
        match is_data {
            true => written.extend_from_slice(format!("data: {json}").as_bytes()),
            false => written.extend_from_slice(line),
        }
    }
    written.extend_from_slice(ends);
    written
}

/// Divides an event into its content and the line ends behind it. They stay, because a last LF may not have come yet.
fn divided(event: &[u8]) -> (&[u8], &[u8]) {
    let content = event.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    let (content, ends) = event.split_at(content);
    (content, if ends_blank(event) { ends } else { b"\n\n" })
}

/// Writes an error in the shape that every SDK reads.
fn readable(object: Value, json: &[u8]) -> Vec<u8> {
    let failure = Failure::from_event(json);
    let Value::Object(mut members) = object else { return json.to_vec() };
    let mut error = take_error(&mut members);
    if !error.get("code").is_some_and(Value::is_u64) {
        error.insert("code".into(), failure.code().as_u16().into());
        error.entry("status").or_insert_with(|| failure.google_status().into());
    }
    error.entry("message").or_insert_with(|| failure.message().into());
    // serde_json sorts the names of members.
    let mut text = json!(error).to_string();
    text.insert_str(0, "{\"error\":");
    for (name, value) in members {
        text.push_str(&format!(",{}:{value}", Value::String(name)));
    }
    text.push('}');
    text.into_bytes()
}

/// The part of an event before its first bare line of JSON.
fn before_bare(event: &[u8]) -> &[u8] {
    let begins = |at: &usize| matches!(event.get(*at), Some(b'{' | b'['));
    let starts = std::iter::once(0).chain(memchr::memchr2_iter(b'\n', b'\r', event).map(|end| end + 1));
    &event[..starts.into_iter().find(begins).unwrap_or_default()]
}

/// Returns whether the text ends in a blank line.
fn ends_blank(text: &[u8]) -> bool {
    [b"\n\n".as_slice(), b"\r\r", b"\n\r\n", b"\r\n\r"].iter().any(|blank| text.ends_with(blank))
}

/// The payload of an event.
#[derive(Debug, Default)]
struct Lines {
    data: Vec<u8>,
    /// The lines that are no fields.
    bare: Vec<u8>,
}

impl Lines {
    fn of(event: &[u8]) -> Self {
        let mut lines = Self::default();
        Splitter::new().push(event, &mut lines);
        lines
    }
}

impl Listener for Lines {
    fn data(&mut self, piece: &[u8]) {
        self.data.extend_from_slice(piece);
    }

    fn raw(&mut self, piece: &[u8]) {
        self.bare.extend_from_slice(piece);
    }

    fn dispatch(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(surface: Surface) -> Shape {
        let uri = match surface {
            Surface::Developer => "/v1beta/models/m:streamGenerateContent?alt=sse",
            Surface::Vertex => "/v1/projects/p/locations/l/publishers/google/models/m:streamGenerateContent?alt=sse",
            Surface::OpenAi => "/v1beta/openai/chat/completions",
            Surface::Interactions => "/v1beta/interactions",
            Surface::Other => "/elsewhere",
        };
        let shape = Shape::new(&http::Method::POST, &http::Uri::from_static(uri));
        assert_eq!(shape.surface, surface);
        shape
    }

    fn reviewed(surface: Surface, text: &str) -> (String, Option<u16>) {
        let mut review = Review::new(shape(surface), Settings::default(), false);
        let out = review.events(Bytes::copy_from_slice(text.as_bytes()));
        let code = review.error().map(|failure| failure.code().as_u16());
        (String::from_utf8(out.to_vec()).unwrap(), code)
    }

    const READABLE: &str = "data: {\"error\":{\"code\":503,\"message\":\"no\",\"status\":\"UNAVAILABLE\"}}\n\n";

    #[test]
    fn an_error_that_is_read_everywhere_stays_as_it_came() {
        let text = format!("data: {{\"a\":1}}\n\n{READABLE}");
        for text in [text.clone(), text.replace('\n', "\r\n"), READABLE.replace("data: {", "data:{ ")] {
            for surface in [Surface::Developer, Surface::OpenAi, Surface::Interactions] {
                assert_eq!(reviewed(surface, &text), (text.clone(), Some(503)));
            }
        }
        // Another provider's stream has words of its own.
        let text = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
        assert_eq!(reviewed(Surface::Other, text), (text.to_owned(), None));
        let raw = "/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict";
        let raw = Shape::new(&http::Method::POST, &http::Uri::from_static(raw));
        let mut review = Review::new(raw, Settings::default(), false);
        assert_eq!(review.events(text.into()), text);
        assert!(review.error().is_some());
    }

    #[test]
    fn an_error_that_no_sdk_reads_is_written_anew() {
        let error = r#"{"code":503,"message":"no","status":"UNAVAILABLE"}"#;
        for text in [
            format!("data: [{{\"error\":{error}}}]\n\n"),
            format!("event: error\nid: 7\ndata: {{\"error\":{error}}}\n\n"),
            format!(": ping\ndata: {{\"error\":{error}}}\n\n").replace(": ping\n", "retry: 1\n: ping\n"),
            format!("data: {{\ndata: \"error\":{error}\ndata: }}\n\n"),
            format!("{{\n \"error\": {error}\n}}\n"),
            format!("{{\"error\":{error}}}"),
            format!("[{{\n  \"error\": {error}\n}}\n]\n\n"),
            "data: {\"error\":{\"code\":\"unavailable\",\"message\":\"no\"}}\n\n".to_owned(),
            "data: {\"error\":{\"code\":\"503\",\"message\":\"no\",\"status\":\"UNAVAILABLE\"}}\n\n".to_owned(),
        ] {
            for before in ["", "data: {\"a\":1}\n\n"] {
                let text = format!("{before}{text}");
                assert_eq!(reviewed(Surface::Developer, &text), (format!("{before}{READABLE}"), Some(503)), "{text}");
            }
        }
        // The line ends stay, and so does an event that waited for its blank line.
        let bare = format!("{{\r\n \"error\": {error}\r\n}}");
        let expected = READABLE.replace('\n', "\r\n");
        assert_eq!(reviewed(Surface::Vertex, &format!("{bare}\r\n\r\n")).0, expected);
        assert_eq!(reviewed(Surface::Vertex, &format!("{bare}\r\n\r")).0, expected.trim_end().to_owned() + "\r\n\r");
        assert_eq!(reviewed(Surface::Vertex, &format!("data: a\n{bare}\n")).0, format!("data: a\n\n{READABLE}"));
        // Other members follow the error.
        let (text, _) = reviewed(Surface::Developer, "data: {\"a\":[1],\"error\":{\"code\":503},\"z\":\"\\\"\"}\n\n");
        assert!(
            text.starts_with("data: {\"error\":{\"code\":503,") && text.ends_with(",\"a\":[1],\"z\":\"\\\"\"}\n\n"),
            "{text}"
        );
        let (text, code) = reviewed(Surface::Developer, "data: {\"error\":\"The model is overloaded\"}\n\n");
        assert!(text.starts_with("data: {\"error\":{\"code\":500,") && code == Some(500), "{text}");
    }

    #[test]
    fn the_servers_projects_are_hidden_in_every_shape_of_an_error() {
        let error = r#"{"error":{"code":429,"message":"of consumer project_number:123456789","details":[{"metadata":{"consumer":"projects/123456789","containerInfo":123456789}}]}}"#;
        let hidden = r#"{"error":{"code":429,"details":[{"metadata":{"consumer":"projects/[hidden]","containerInfo":"[hidden]"}}],"message":"of consumer project_number:[hidden]"}}"#;
        let cases = [
            (Surface::Developer, format!("data: {error}\n\n"), format!("data: {hidden}\n\n")),
            (Surface::Developer, format!("{error}\r\n\r\n"), format!("data: {hidden}\r\n\r\n")),
            (Surface::OpenAi, format!("id: 1\r\ndata: {error}\r\n\r"), format!("id: 1\ndata: {hidden}\r\n\r")),
            (Surface::OpenAi, format!("data: [{error}]\n\n"), format!("data: {hidden}\n\n")),
            (
                Surface::Interactions,
                format!("event: error\r\ndata: {}\r\n\r\n", error.replace(",\"details", "\r\ndata: ,\"details")),
                format!("event: error\ndata: {hidden}\r\n\r\n"),
            ),
        ];
        for (surface, event, expected) in cases {
            for before in ["", "data: {\"a\":\"projects/123456789\"}\n\n"] {
                let text = format!("{before}{event}");
                let passed = |hides: bool| {
                    let mut review = Review::new(shape(surface), Settings::default(), hides);
                    let passed = review.events(text.clone().into());
                    assert_eq!(review.error().map(|failure| failure.code().as_u16()), Some(429));
                    String::from_utf8(passed.to_vec()).unwrap()
                };
                assert_eq!(passed(true), format!("{before}{expected}"));
                // A caller with a key of its own knows its project.
                assert!(passed(false)[before.len()..].contains("123456789"));
            }
        }
        let settings = Settings { openai: OpenAiErrors::GoogleLists, ..Settings::default() };
        let mut review = Review::new(shape(Surface::OpenAi), settings, true);
        assert_eq!(review.events(format!("data: [{error}]\n\n").into()), format!("data: [{hidden}]\n\n"));

        let mut review = Review::new(shape(Surface::Developer), Settings::default(), true);
        let around = "{\"a\":\"projects/1\"}";
        let list = format!("[{around},\r\n{error}\n,{around}\n");
        assert_eq!(review.elements(list.clone().into()), list.replace(error, hidden));
        assert!(review.error().is_some());
    }

    #[test]
    fn openais_clients_read_any_object_and_lists_stay_where_they_are_wanted() {
        let list = "data: [{\"error\":{\"code\":\"x\",\"message\":\"no\"}}]\n\n";
        let object = "data: {\"id\":1,\"error\":{\"code\":\"x\",\"message\":\"no\"}}\n\n";
        assert_eq!(reviewed(Surface::OpenAi, object).0, object);
        assert!(reviewed(Surface::OpenAi, list).0.starts_with("data: {\"error\":{\"code\":"));
        let settings = Settings { openai: OpenAiErrors::GoogleLists, ..Settings::default() };
        let mut review = Review::new(shape(Surface::OpenAi), settings, false);
        assert_eq!(review.events(list.into()), list);
        assert!(review.error().is_some());
    }

    #[test]
    fn what_only_looks_like_an_error_is_none() {
        for text in [
            "data: {\"error\":null}\n\n",
            "data: {\"candidates\":[{\"a\":{\"error\":{\"code\":1}}}]}\n\n",
            "data: {\"text\":\"error\"}\n\n",
            "data: {\"text\":\"{\\\"error\\\":{}}\"}\n\n",
            "data: {\"error\":{\n\n",
            ": {\"error\":{\"code\":1}}\n\n",
            "event: \"error\"\ndata: {}\n\n",
        ] {
            assert_eq!(reviewed(Surface::Developer, text), (text.to_owned(), None));
        }
    }

    #[test]
    fn elements_are_found_between_others() {
        for (text, code) in [
            ("[{\"a\":1},\n{\"error\":{\"code\":429}}]\n", Some(429)),
            (",\r\n{\"error\": {\"code\":429}}\n", Some(429)),
            (",{\"a\":{\"error\":{}}}", None),
            ("\"error\"", None),
            ("", None),
        ] {
            let mut review = Review::new(shape(Surface::Developer), Settings::default(), false);
            assert_eq!(review.elements(text.into()), text);
            assert_eq!(review.error().map(|failure| failure.code().as_u16()), code, "{text}");
        }
    }

    #[test]
    fn the_half_of_an_event_is_told_from_one_without_its_blank_line() {
        for half in
            ["data: {\"candi", "data: {\"a\":1}\ndata: {", "{\n  \"error\": {", "data: [", "event: x\ndata: {\"a"]
        {
            assert!(is_half(half.as_bytes()), "{half}");
        }
        for whole in
            ["data: {}\n", "data: {}", "data: [DONE]", "data: [DONE]\n", "event: x\n", "id", "data: hello", "{}\n", ""]
        {
            assert!(!is_half(whole.as_bytes()), "{whole}");
        }
    }
}
