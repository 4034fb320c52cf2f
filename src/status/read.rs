//! Reads a body from the envelope inwards, each layer of wrapping once.

use std::borrow::Cow;

use super::{
    Envelope, MOST_READ, MessageLimit, Status, Violation, delay,
    json::{Json, JsonObject, unescaped},
    page,
};
use crate::redact::redact;

/// The most bytes of a message that are kept.
pub(super) const MOST_MESSAGE: usize = 2 * 1024;

/// The most bytes of a name that are kept: a status, a reason, the id of a quota, a model.
pub(super) const MOST_NAME: usize = 256;

/// The most violations that are kept. Google sends up to four.
pub(super) const MOST_VIOLATIONS: usize = 16;

/// The most times that a body is unwrapped from another one's message. Two have been seen.
pub(super) const MOST_WRAPPED: usize = 3;

impl Status {
    /// Implements [`Status::parse`].
    pub(super) fn read(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&body[..body.len().min(MOST_READ)]);
        let text = text.trim_start_matches('\u{feff}').trim();
        let mut status = Self::default();
        status.envelope = match text.as_bytes() {
            [] => Envelope::Empty,
            [b'{', ..] => {
                status.absorb(&Json::read(text));
                status.object_envelope()
            }
            [b'[', ..] if status.absorb(&Json::read(text)) => Envelope::Array,
            // The whole body as one JSON string.
            [b'"', ..] if status.absorb_text(text) => Envelope::Text,
            _ if is_event_stream(text) => {
                status.absorb_events(text);
                Envelope::Event
            }
            _ if page::is_html(text) => {
                status.message = page::visible_text(text, MOST_MESSAGE);
                Envelope::Html
            }
            _ => {
                if !status.absorb_embedded(text, MOST_WRAPPED) || status.message.is_empty() {
                    status.message = text.to_owned();
                }
                Envelope::Text
            }
        };
        status.finish()
    }

    /// Takes an error from a body that is one JSON string. Returns whether there was one.
    fn absorb_text(&mut self, text: &str) -> bool {
        Json::read(text).as_text().is_some_and(|inner| self.absorb_embedded(inner, MOST_WRAPPED)) && self.found
    }

    fn object_envelope(&self) -> Envelope {
        let string_code = self.code.is_none()
            && self.status.as_deref().is_some_and(|status| status.bytes().any(|byte| byte.is_ascii_lowercase()));
        if string_code { Envelope::Interactions } else { Envelope::Object }
    }

    /// Takes the value of a body. Returns whether there was an object to read.
    fn absorb(&mut self, value: &Json) -> bool {
        let Some(first) = value.elements().iter().find_map(Json::as_object) else {
            return false;
        };
        if !self.absorb_errors(value, MOST_WRAPPED) {
            // Frameworks and gateways send no error object, but a message under another name.
            self.absorb_bare(first, MOST_WRAPPED);
        }
        true
    }

    /// Takes the error in a value, if there is one; the innermost error goes before the outer ones.
    fn absorb_errors(&mut self, value: &Json, wrapped: usize) -> bool {
        let mut any = false;
        // In an array, the error need not be the first element.
        for object in value.elements().iter().filter_map(Json::as_object) {
            any |= self.absorb_object(object, wrapped);
        }
        any
    }

    fn absorb_object(&mut self, object: &JsonObject, wrapped: usize) -> bool {
        match object.get("error") {
            Some(Json::Object(error)) => {
                self.absorb_error(error, wrapped);
                self.found |= self.code.is_some() || self.status.is_some() || !self.message.is_empty();
                true
            }
            Some(Json::Text(text)) => {
                self.absorb_bare(object, wrapped);
                // `{"error": "Not Found", "message": "…"}`: the message says more.
                if self.message.is_empty() {
                    self.absorb_message(text, wrapped);
                }
                true
            }
            Some(nested @ Json::Array(_)) => self.absorb_errors(nested, wrapped),
            // The error itself without its envelope, as in a long-running operation or from a relay.
            None if object.get("status").and_then(Json::as_text).and_then(canonical_code).is_some() => {
                self.absorb_error(object, wrapped);
                self.found = true;
                true
            }
            // A detail by itself: SDKs put the list of them into the text of their errors.
            None if ["violations", "retryDelay", "links"].iter().any(|name| object.get(name).is_some()) => {
                self.absorb_detail(object);
                true
            }
            _ => false,
        }
    }

    /// Takes `{"message": …}`, `{"detail": …}`, `{"errors": [{"message": …}]}` and their like, which are not the API's
    /// own.
    fn absorb_bare(&mut self, object: &JsonObject, wrapped: usize) {
        self.absorb_code(object);
        let message = object.any(&["message", "msg", "detail", "errors", "error_description", "title"]);
        match message {
            Some(Json::Text(text)) => self.absorb_message(text, wrapped),
            Some(list @ Json::Array(_)) => {
                for element in list.elements() {
                    match element {
                        Json::Text(text) if self.message.is_empty() => self.absorb_message(text, wrapped),
                        Json::Object(inner) if self.message.is_empty() => self.absorb_bare(inner, wrapped),
                        _ => {}
                    }
                }
            }
            Some(Json::Object(inner)) => self.absorb_bare(inner, wrapped),
            _ => {}
        }
    }

    /// Takes the members of `error`.
    fn absorb_error(&mut self, error: &JsonObject, wrapped: usize) {
        self.absorb_code(error);
        if let Some(status) = error.get("status").and_then(Json::as_text) {
            self.status = Some(status.to_owned());
        }
        if let Some(message) = error.get("message").and_then(Json::as_text) {
            self.absorb_message(message, if self.is_about_the_request() { 0 } else { wrapped });
        }
        for (name, value) in error.members() {
            match name {
                "details" => self.absorb_details(value),
                "errors" => {
                    let reason = |element: &Json| Some(element.as_object()?.get("reason")?.as_text()?.to_owned());
                    self.legacy_reason = value.elements().iter().find_map(reason).or(self.legacy_reason.take());
                }
                "message" | "status" | "code" => {}
                // `error.error`, `error.upstreamResponse`, `error.metadata.raw`: a relay's names for the original
                // error.
                _ => match value {
                    Json::Object(inner) if inner.get("error").is_some() => {
                        self.absorb_object(inner, wrapped);
                    }
                    Json::Object(inner) if name == "error" => self.absorb_error(inner, wrapped),
                    Json::Object(inner) if wrapped > 0 => {
                        for raw in inner.members().filter_map(|(_, raw)| raw.as_text()) {
                            self.absorb_embedded(raw, wrapped - 1);
                        }
                    }
                    _ => {}
                },
            }
        }
        self.absorb_hints(error);
    }

    /// Returns whether the error is Google's verdict on the request. Its message repeats the request, so that an error
    /// object inside the message is the caller's own text.
    fn is_about_the_request(&self) -> bool {
        let status = self.status.as_deref();
        matches!(self.code, Some(400 | 404))
            && matches!(status, Some("INVALID_ARGUMENT" | "NOT_FOUND" | "OUT_OF_RANGE"))
    }

    /// Takes the code: a number, a number in quotes, a `google.rpc` code, or a name.
    fn absorb_code(&mut self, object: &JsonObject) {
        let names = ["code", "status_code", "statusCode", "http_code", "status"];
        let code = |name| object.get(name).and_then(Json::as_u64).and_then(http_code);
        self.code = names.into_iter().find_map(code).or(self.code);
        if let Some(name) = object.get("code").and_then(Json::as_text)
            && is_name(name)
        {
            self.status = Some(name.to_owned());
        }
    }

    /// Takes the message, and the error that may be inside it.
    fn absorb_message(&mut self, message: &str, wrapped: usize) {
        self.message.clear();
        if wrapped == 0 || !self.absorb_embedded(message, wrapped - 1) || self.message.is_empty() {
            self.message = message.trim().to_owned();
        }
    }

    /// Takes an error inside a text: "got status: UNAVAILABLE. {"error": …}", "429 … {'error': …}".
    fn absorb_embedded(&mut self, text: &str, wrapped: usize) -> bool {
        // Each try reads the rest of the text at most once, and only the first four brackets are tried.
        let starts = memchr::memchr2_iter(b'{', b'[', text.as_bytes()).take(4);
        for start in starts {
            let inside = inside_of(&text[start..]);
            // A string inside of a string, as relays print it.
            if inside.starts_with("\\\"") && wrapped > 0 {
                return self.absorb_embedded(&unescaped(&text[start..]), wrapped - 1);
            }
            // Prose has brackets too: "contents[0].parts", "[503 ]".
            if !inside.starts_with(['"', '\'']) {
                continue;
            }
            return self.absorb_errors(&Json::read(&text[start..]), wrapped);
        }
        false
    }

    /// Takes the error in a stream of events, or in a raw tail that follows them without framing.
    fn absorb_events(&mut self, text: &str) {
        let mut data = String::new();
        let mut raw = false;
        for line in text.lines().chain(std::iter::once("")) {
            if line.is_empty() && !raw {
                if self.absorb_data(&std::mem::take(&mut data)) {
                    return;
                }
                continue;
            }
            match line.strip_prefix("data:") {
                Some(payload) => data.push_str(payload),
                None if is_event_field(line) && !raw => continue,
                None => {
                    if !raw && line.starts_with(['{', '[']) {
                        if self.absorb_data(&std::mem::take(&mut data)) {
                            return;
                        }
                        raw = true;
                    }
                    data.push_str(line);
                }
            }
            data.push('\n');
        }
        self.absorb_data(&data);
    }

    /// Takes the data of an event. Returns whether it was an error.
    fn absorb_data(&mut self, data: &str) -> bool {
        self.absorb_errors(&Json::read(data.trim()), MOST_WRAPPED)
    }

    /// Takes `details`: an array in any order, or one object, or JSON in a string. The type of a detail follows from
    /// the names of its members, because `@type` may be missing or wrong.
    fn absorb_details(&mut self, details: &Json) {
        if let Json::Text(text) = details {
            if text.trim_start().starts_with(['[', '{']) {
                let inner = Json::read(text.trim_start());
                if !matches!(inner, Json::Text(_)) {
                    self.absorb_details(&inner);
                }
            }
            return;
        }
        details.elements().iter().filter_map(Json::as_object).for_each(|detail| self.absorb_detail(detail));
    }

    /// Takes one detail.
    fn absorb_detail(&mut self, detail: &JsonObject) {
        if let Some(reason) = detail.get("reason").and_then(Json::as_text) {
            self.reason = Some(reason.to_owned());
            self.domain = detail.get("domain").and_then(Json::as_text).map(str::to_owned);
        }
        self.has_help |= detail.get("links").is_some();
        if let Some(violations) = detail.get("violations") {
            let violations = violations.elements().iter().filter_map(Json::as_object);
            let room = MOST_VIOLATIONS.saturating_sub(self.violations.len());
            self.violations.extend(violations.filter_map(Violation::read).take(room));
        }
        if let Some(metadata) = detail.get("metadata").and_then(Json::as_object) {
            self.absorb_metadata(metadata);
        }
        self.absorb_hints(detail);
        if self.message.is_empty() {
            let fields = detail.any(&["fieldViolations", "field_violations"]).map_or(&[][..], Json::elements);
            let described = |field: &Json| Some(field.as_object()?.get("description")?.as_text()?.to_owned());
            let localized = || detail.get("message").and_then(Json::as_text).map(str::to_owned);
            self.message = fields.iter().find_map(described).or_else(localized).unwrap_or_default();
        }
    }

    /// Takes `ErrorInfo.metadata`.
    fn absorb_metadata(&mut self, metadata: &JsonObject) {
        self.absorb_hints(metadata);
        if let Some(model) = metadata.get("model").and_then(Json::as_text) {
            self.model = Some(model.to_owned());
        }
        let text = |name: &str| Some(metadata.get(name)?.as_text()?.to_owned());
        let (metric, id) = (text("quota_metric"), text("quota_limit"));
        if (metric.is_some() || id.is_some()) && self.violations.len() < MOST_VIOLATIONS {
            let value = metadata.get("quota_limit_value").and_then(Json::as_u64);
            self.violations.push(Violation { metric, id, model: None, value });
        }
    }

    /// Takes the waits, by their names in details, in metadata, and in the errors that relays make.
    fn absorb_hints(&mut self, object: &JsonObject) {
        let read = |names: &[&str]| object.any(names).and_then(delay::from_json);
        self.retry_info = read(&["retryDelay", "retry_delay"]).or(self.retry_info);
        self.reset_delay = read(&["quotaResetDelay", "quota_reset_delay"]).or(self.reset_delay);
    }

    /// Reads the numbers in the message while it is whole, then redacts and caps every text.
    fn finish(mut self) -> Self {
        let lower = self.message.to_ascii_lowercase();
        self.message_delay = delay::from_message(&lower);
        self.message_limit = MessageLimit::read(&lower);
        self.message = clean(&self.message, MOST_MESSAGE);
        let names = [&mut self.status, &mut self.reason, &mut self.legacy_reason, &mut self.domain, &mut self.model];
        let quota_names = self.violations.iter_mut().flat_map(|v| [&mut v.metric, &mut v.id, &mut v.model]);
        for name in names.into_iter().chain(quota_names).flatten() {
            *name = clean(name, MOST_NAME);
        }
        self
    }
}

impl Violation {
    fn read(violation: &JsonObject) -> Option<Self> {
        let text = |names: &[&str]| Some(violation.any(names)?.as_text()?.to_owned());
        let dimensions = violation.any(&["quotaDimensions", "quota_dimensions"]).and_then(Json::as_object);
        let id = text(&["quotaId", "quota_id"]);
        let metric = text(&["quotaMetric", "quota_metric"]);
        if id.is_none() && metric.is_none() {
            // The older form `{"subject", "description"}` does not name the quota.
            return None;
        }
        let value = match violation.any(&["quotaValue", "quota_value"]) {
            Some(value) => value.as_u64(),
            // Protobuf leaves out a zero, but in a cut body any member may be missing.
            None => (violation.is_closed() && id.is_some()).then_some(0),
        };
        let model = dimensions.and_then(|dimensions| Some(dimensions.get("model")?.as_text()?.to_owned()));
        Some(Self { metric, id, model, value })
    }
}

impl MessageLimit {
    fn read(lower: &str) -> Self {
        let mut limit = Self::default();
        for at in memchr::memmem::find_iter(lower.as_bytes(), "limit: ") {
            let digits = lower[at + "limit: ".len()..].bytes().take_while(u8::is_ascii_digit);
            // A number that is too long saturates.
            let mut number = None;
            for digit in digits {
                number = Some(number.unwrap_or(0u64).saturating_mul(10).saturating_add(u64::from(digit - b'0')));
            }
            match number {
                Some(0) => limit.zero = true,
                Some(value) => limit.value = limit.value.or(Some(value)),
                None => {}
            }
        }
        limit
    }
}

// === helpers ===

/// Returns the text behind its opening brackets and white space, which Python writes as escapes in the text of bytes.
fn inside_of(text: &str) -> &str {
    let mut inside = text;
    loop {
        let shorter = inside.trim_start_matches(['{', '[', ' ', '\n', '\r', '\t']);
        let shorter = ["\\n", "\\r", "\\t"].iter().find_map(|escape| shorter.strip_prefix(escape)).unwrap_or(shorter);
        if shorter.len() == inside.len() {
            return inside;
        }
        inside = shorter;
    }
}

/// Redacts a text, then cuts it on a character boundary.
fn clean(text: &str, most: usize) -> String {
    let text: Cow<'_, str> = redact(text.trim());
    // `str::floor_char_boundary` is younger than this crate's oldest compiler.
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].to_owned()
}

/// Translates a code to an HTTP error status; a `google.rpc` code to the one that it maps to.
fn http_code(code: u64) -> Option<u16> {
    Some(match code {
        400..=599 => u16::try_from(code).ok()?,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        2 | 13 | 15 => 500,
        _ => return None,
    })
}

/// Translates a name of `google.rpc.Code` to an HTTP status.
pub(crate) fn canonical_code(status: &str) -> Option<u16> {
    Some(match status {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => 400,
        "UNAUTHENTICATED" => 401,
        "PERMISSION_DENIED" => 403,
        "NOT_FOUND" => 404,
        "ABORTED" | "ALREADY_EXISTS" => 409,
        "RESOURCE_EXHAUSTED" => 429,
        "CANCELLED" => 499,
        "INTERNAL" | "UNKNOWN" | "DATA_LOSS" => 500,
        "UNIMPLEMENTED" => 501,
        "UNAVAILABLE" => 503,
        "DEADLINE_EXCEEDED" => 504,
        _ => return None,
    })
}

/// Returns whether the text is one word that could be a code, not a sentence.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

fn is_event_stream(text: &str) -> bool {
    text.lines().find(|line| !line.is_empty()).is_some_and(is_event_field)
}

fn is_event_field(line: &str) -> bool {
    line.starts_with(':') || ["data:", "event:", "id:", "retry:"].iter().any(|field| line.starts_with(field))
}
