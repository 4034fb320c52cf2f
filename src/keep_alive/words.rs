//! The words in which a stream says that its call has failed, once its status is out: an error's object on one line.
//! Pure.

use bytes::Bytes;
use http::{StatusCode, header::CONTENT_TYPE, response::Parts};
use serde_json::{Map, Value, json};

use super::dialect::Dialect;
use crate::{
    answer::media::{coding, is_event_stream},
    context::{BoxError, Error, Outcome},
    failure::Failure,
    status::{MOST_READ, add_openai, error_object, take_error},
};

/// A failed answer, while its body is read.
#[derive(Debug)]
pub(super) struct FailedAnswer {
    parts: Box<Parts>,
    body: Vec<u8>,
}

/// An error as a stream says it: its object, and the failure in it.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) object: String,
    pub(super) failure: Failure,
}

impl FailedAnswer {
    pub(super) fn new(parts: Parts) -> Self {
        let answer = Self { parts: parts.into(), body: Vec::new() };
        // The layers inside took it for a good one, and those that read it to its end learn that the caller gets another.
        if let Some(outcome) = answer.parts.extensions.get::<Outcome>()
            && let Some(usage) = outcome.usage().filter(|_| outcome.failure().is_none() && !answer.has_failed())
        {
            usage.fail(answer.wrong_answer().into_after_commit());
        }
        answer
    }

    /// Returns whether nothing that comes could be of use: bytes that are encoded say no error.
    pub(super) fn is_unreadable(&self) -> bool {
        !self.has_failed() && coding(&self.parts.headers).is_some()
    }

    fn has_failed(&self) -> bool {
        self.parts.status.is_client_error() || self.parts.status.is_server_error()
    }

    /// Takes the body's next bytes. Returns whether more of them could be of use.
    pub(super) fn push(&mut self, data: &Bytes) -> bool {
        let fits = data.len() <= MOST_READ - self.body.len();
        if fits {
            self.body.extend_from_slice(data);
        }
        fits
    }

    /// Returns the words for what was read.
    pub(super) fn words(&self, dialect: Dialect) -> Words {
        let Parts { status, headers, .. } = &*self.parts;
        if self.has_failed() {
            return Words::of(dialect, *status, Failure::from_response(*status, headers, &self.body), &self.body);
        }
        let failure = match error_in(&self.body) {
            Some(_) => Failure::from_response(StatusCode::BAD_GATEWAY, headers, &self.body),
            None => self.wrong_answer(),
        };
        Words::of(dialect, StatusCode::BAD_GATEWAY, failure, &self.body)
    }

    /// Makes the failure of an answer with a good status that is no stream.
    fn wrong_answer(&self) -> Failure {
        let Parts { status, headers, .. } = &*self.parts;
        let got = match coding(headers).filter(|_| is_event_stream(headers)) {
            Some(coding) => format!("an encoded stream ({})", String::from_utf8_lossy(coding)),
            None => {
                let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok());
                media.unwrap_or("nothing").to_owned()
            }
        };
        gone_wrong(&format!("the upstream answered {status} with {got} in place of a stream of events"))
    }
}

impl Words {
    /// Makes the words for an error of a layer or of the transport.
    pub(super) fn of_error(error: &BoxError, dialect: Dialect) -> Self {
        let known = Error::find(&**error).map(|error| error.failure().clone());
        let failure = known.unwrap_or_else(|| Failure::from_error(&**error));
        Self::of(dialect, failure.code(), failure, b"")
    }

    /// Makes the words for a stream that has ended where an event was to come. `raw` are the lines without a field's
    /// name that it has ended in: it may be an error.
    pub(super) fn of_end(raw: &[u8], dialect: Dialect) -> Self {
        let failure = match error_in(raw) {
            Some(_) => Failure::from_event(raw),
            None => gone_wrong("the upstream's stream ended without another event, and without a reason for its end"),
        };
        Self::of(dialect, failure.code(), failure, raw)
    }

    fn of(dialect: Dialect, status: StatusCode, failure: Failure, body: &[u8]) -> Self {
        let mut error = error_in(body).unwrap_or_default();
        // Each surface has its own kind of codes.
        let is_foreign = match dialect {
            Dialect::Gemini => !error.get("code").is_some_and(Value::is_number),
            Dialect::Interactions => !error.get("code").is_some_and(Value::is_string),
            Dialect::OpenAi => false,
        };
        if is_foreign {
            error.remove("code");
        }
        let mut add = |name: &str, value: Value| {
            error.entry(name).or_insert(value);
        };
        add("message", failure.caller_message().into());
        let object = match dialect {
            Dialect::Interactions => {
                add("code", failure.google_status().to_ascii_lowercase().into());
                // One member after the other, because an SDK reads the error only where it is the first.
                format!("{{\"error\":{},\"event_type\":\"error\"}}", Value::Object(error))
            }
            Dialect::OpenAi => {
                add_openai(&mut error, status);
                format!("{{\"error\":{}}}", Value::Object(error))
            }
            Dialect::Gemini => {
                add("status", failure.google_status().into());
                add("code", status.as_u16().into());
                format!("{{\"error\":{}}}", Value::Object(error))
            }
        };
        Self { object, failure: failure.into_after_commit() }
    }
}

/// Finds the error's members in a body: alone, in a list, or as the data of an event.
fn error_in(body: &[u8]) -> Option<Map<String, Value>> {
    let body = body.trim_ascii();
    error_object(body.strip_prefix(b"data:").unwrap_or(body)).map(|mut object| take_error(&mut object))
}

/// Makes the failure of an upstream that has answered with something else.
fn gone_wrong(message: &str) -> Failure {
    let error = json!({ "error": { "code": 502, "message": message, "status": "UNAVAILABLE" } });
    Failure::from_response(StatusCode::BAD_GATEWAY, &http::HeaderMap::new(), error.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};

    use super::*;

    fn words(status: u16, media: &str, body: &str, dialect: Dialect) -> Value {
        let response = Response::builder().status(status).header(CONTENT_TYPE, media).body(()).unwrap();
        let mut answer = FailedAnswer::new(response.into_parts().0);
        assert!(answer.push(&Bytes::copy_from_slice(body.as_bytes())));
        let Words { object, .. } = answer.words(dialect);
        assert!(object.starts_with("{\"error\":{") && !object.contains('\n'), "{object}");
        serde_json::from_str(&object).unwrap()
    }

    #[test]
    fn an_error_keeps_its_members_and_has_a_number_as_its_code() {
        let pretty = "{\n \"a\": 1,\n \"error\": {\"code\": 429, \"message\": \"x\\ny\", \"status\": \"RESOURCE_EXHAUSTED\", \"details\": [{}]}\n}";
        let event = format!("data: {}\n\n", pretty.replace('\n', ""));
        for body in [pretty.to_owned(), format!("[{pretty}]"), event] {
            let error = words(429, "application/json", &body, Dialect::Gemini);
            assert_eq!(
                error,
                json!({"error": {"code": 429, "message": "x\ny", "status": "RESOURCE_EXHAUSTED", "details": [{}]}})
            );
        }
        let error =
            words(503, "application/json", r#"{"error":{"code":"unavailable","message":"m"}}"#, Dialect::Gemini);
        assert_eq!(error, json!({"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}));
        let error = words(503, "application/json", r#"{"error":{"code":503,"message":"m"}}"#, Dialect::Interactions);
        assert_eq!(error, json!({"error": {"code": "unavailable", "message": "m"}, "event_type": "error"}));
        let error = words(500, "application/json", r#"{"error":"m"}"#, Dialect::Gemini);
        assert_eq!((&error["error"]["code"], &error["error"]["message"]), (&json!(500), &json!("m")));
    }

    #[test]
    fn what_is_no_error_becomes_one() {
        for (status, body, code) in
            [(502, "<html>Bad Gateway</html>", 502), (503, "", 503), (200, "{}", 502), (204, "", 502), (302, "", 502)]
        {
            for dialect in [Dialect::Gemini, Dialect::OpenAi] {
                let error = words(status, "text/html", body, dialect);
                assert_eq!(error["error"]["code"], code, "{status} {body}");
                assert!(!error["error"]["message"].as_str().unwrap().is_empty(), "{status} {body}: {error}");
            }
            let error = words(status, "text/html", body, Dialect::Interactions);
            assert!(error["error"]["code"].is_string() && error["event_type"] == "error", "{error}");
        }
        // OpenAI's clients read these.
        let error = words(503, "text/html", "", Dialect::OpenAi);
        assert_eq!(
            (&error["error"]["type"], error["error"].get("param")),
            (&json!("server_error"), Some(&Value::Null))
        );
        // An error that came with a good status keeps its own code.
        let error = words(200, "application/json", r#"[{"error":{"code":429,"message":"m"}}]"#, Dialect::Gemini);
        assert_eq!(error["error"]["code"], 429);
    }

    #[test]
    fn an_encoded_stream_is_named_as_one_and_not_read() {
        let mut parts = Response::new(()).into_parts().0;
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        parts.headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        let answer = FailedAnswer::new(parts.clone());
        assert!(answer.is_unreadable());
        let Words { object, failure } = answer.words(Dialect::Gemini);
        assert!(object.contains("200 OK with an encoded stream (br) in place of"), "{object}");
        assert_eq!(failure.code(), 502);
        // An encoded failure is judged by its status.
        parts.status = StatusCode::TOO_MANY_REQUESTS;
        let answer = FailedAnswer::new(parts);
        assert!(!answer.is_unreadable() && answer.words(Dialect::Gemini).object.contains("\"code\":429"));
    }

    #[test]
    fn no_more_than_a_bound_is_read() {
        let mut answer = FailedAnswer::new(Response::new(()).into_parts().0);
        let data = Bytes::from(vec![b' '; MOST_READ - 1]);
        assert!(answer.push(&data) && answer.push(&Bytes::from_static(b" ")));
        assert!(!answer.push(&Bytes::from_static(b" ")));
        assert_eq!(answer.words(Dialect::Gemini).failure.code(), 502);
    }

    #[test]
    fn a_bare_error_at_the_end_of_a_stream_is_said() {
        let bare =
            "{\n \"error\": {\n \"code\": 503,\n \"message\": \"overloaded\",\n \"status\": \"UNAVAILABLE\"\n }\n}\n";
        let Words { object, failure } = Words::of_end(bare.as_bytes(), Dialect::Gemini);
        assert_eq!(object, r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#);
        assert!(failure.is_after_commit());
        for raw in ["", "{\"error\":{", "<html>"] {
            let Words { object, .. } = Words::of_end(raw.as_bytes(), Dialect::Gemini);
            assert!(object.contains("\"code\":502") && object.contains("ended without another event"), "{object}");
        }
    }
}
