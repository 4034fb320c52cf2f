//! The ways to keep a stream alive, by the caller's surface. Pure.

use http::{HeaderMap, Method, header::ACCEPT};

use crate::call::{Operation, Shape, Streaming, Surface};

/// The way in which a surface's streams are kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// The next event's line is opened early, because six SDKs fail on comments, and each event that could be made up
    /// is one too many for somebody.
    Gemini,
    /// Comments.
    OpenAi,
    /// Comments, and errors in events of a name.
    Interactions,
}

impl Dialect {
    /// Returns the dialect of a call. `None`: nobody has tried what keeps its streams alive and harms no client, or it
    /// has none.
    pub(super) fn of(method: &Method, shape: Shape) -> Option<Self> {
        if method == Method::HEAD {
            return None;
        }
        match (shape.surface, shape.operation) {
            (Surface::Developer | Surface::Vertex, Operation::GenerateContent) => {
                (shape.streaming == Streaming::Sse).then_some(Self::Gemini)
            }
            (Surface::OpenAi, Operation::GenerateContent) => Some(Self::OpenAi),
            (Surface::Interactions, Operation::CreateInteraction) => Some(Self::Interactions),
            (Surface::Interactions, _) => (shape.streaming == Streaming::Sse).then_some(Self::Interactions),
            _ => None,
        }
    }
}

/// Returns whether the call asks for a stream, by what is known without its body. Google's SDKs say in `Accept` that an
/// interaction streams; a client that takes other answers, too, may get one.
pub(super) fn asks_for_stream(shape: Shape, headers: &HeaderMap) -> bool {
    let takes_nothing_else = || {
        let mut accepted = headers.get_all(ACCEPT).iter();
        let only = accepted.next().filter(|_| accepted.next().is_none());
        only.is_some_and(|accept| accept.as_bytes().trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
    };
    shape.streaming == Streaming::Sse || (shape.model_in_body && takes_nothing_else())
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Uri};

    use super::*;

    fn shape(method: &Method, uri: &'static str) -> Shape {
        Shape::new(method, &Uri::from_static(uri))
    }

    #[test]
    fn each_surface_has_its_own_way() {
        let table = [
            ("/v1beta/models/m:streamGenerateContent?alt=sse", Some(Dialect::Gemini)),
            (
                "/v1/projects/p/locations/l/publishers/google/models/m:streamGenerateContent?alt=sse",
                Some(Dialect::Gemini),
            ),
            ("/v1beta/models/m:streamGenerateContent", None),
            ("/v1beta/models/m:generateContent", None),
            ("/v1beta/openai/chat/completions", Some(Dialect::OpenAi)),
            ("/v1beta/openai/embeddings", None),
            ("/v1beta/interactions", Some(Dialect::Interactions)),
            ("/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict", None),
            ("/elsewhere", None),
        ];
        for (uri, dialect) in table {
            assert_eq!(Dialect::of(&Method::POST, shape(&Method::POST, uri)), dialect, "{uri}");
            assert_eq!(Dialect::of(&Method::HEAD, shape(&Method::HEAD, uri)), None, "{uri}");
        }
        let again = shape(&Method::GET, "/v1beta/interactions/i?stream=true");
        assert_eq!(Dialect::of(&Method::GET, again), Some(Dialect::Interactions));
        assert_eq!(Dialect::of(&Method::GET, shape(&Method::GET, "/v1beta/interactions/i")), None);
    }

    #[test]
    fn a_caller_that_takes_nothing_but_events_asks_for_a_stream() {
        let chat = shape(&Method::POST, "/v1beta/interactions");
        for (accept, asks) in [
            ("text/event-stream", true),
            (" Text/Event-Stream ", true),
            ("application/json, text/event-stream", false),
            ("*/*", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(asks_for_stream(chat, &headers), asks, "{accept}");
        }
        assert!(!asks_for_stream(chat, &HeaderMap::new()));
        assert!(!asks_for_stream(shape(&Method::POST, "/v1beta/models/m:generateContent"), &HeaderMap::new()));
    }
}
