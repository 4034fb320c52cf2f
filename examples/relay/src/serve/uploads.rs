//! Uploads under way: google-genai for Python sends the parts of a file to the address that it was handed out, without a
//! key. The address is the caller's credential then, as it is with the API itself.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use http::{HeaderMap, Request, Response, Uri, header::LOCATION};
use tokio::time::Instant;
use tower_gemini::call::{Call, Operation};

use crate::config::Token;

/// The time for which an address is known: the API's own are good for a day at least.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The most uploads that are known, about 2 MB; the oldest are forgotten first.
const MOST: usize = 16_384;

/// The addresses that were handed out, each with the token of the caller that began the upload.
///
/// An address is known by the digest of its `upload_id`, which nobody can guess.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    callers: HashMap<Token, Handed>,
    /// The digests, the oldest first.
    order: VecDeque<Token>,
}

#[derive(Clone, Copy, Debug)]
struct Handed {
    to: Token,
    at: Instant,
}

impl Uploads {
    /// Remembers the address that an answer hands out, if there is one.
    pub(crate) fn hand_out<B>(&mut self, response: &Response<B>, to: Token, now: Instant) {
        if let Some(id) = handed_out(response.headers()) {
            self.insert(id, Handed { to, at: now });
        }
    }

    fn insert(&mut self, id: Token, handed: Handed) {
        while self.order.len() >= MOST || self.order.front().is_some_and(|oldest| !self.is_good(oldest, handed.at)) {
            let Some(oldest) = self.order.pop_front() else { break };
            self.callers.remove(&oldest);
        }
        if !self.callers.contains_key(&id) {
            self.order.push_back(id);
            self.callers.insert(id, handed);
        }
    }

    fn is_good(&self, id: &Token, now: Instant) -> bool {
        self.callers.get(id).is_some_and(|handed| now.duration_since(handed.at) < LIFE)
    }

    /// Returns the token of the caller that began the upload which the request goes on with.
    pub(crate) fn caller_of<B>(&self, request: &Request<B>, now: Instant) -> Option<Token> {
        let commands = request.headers().get_all("x-goog-upload-command").iter();
        let begins = commands.flat_map(|command| command.as_bytes().split(|byte| *byte == b','));
        let mut begins = begins.filter(|command| command.trim_ascii().eq_ignore_ascii_case(b"start"));
        let is_upload = Call::new(request.method(), request.uri()).operation() == Operation::Upload;
        if !is_upload || begins.next().is_some() {
            return None;
        }
        let id = upload_id(request.uri())?;
        self.callers.get(&id).filter(|_| self.is_good(&id, now)).map(|handed| handed.to)
    }
}

/// Finds the `upload_id` of the address that an answer hands out.
fn handed_out(headers: &HeaderMap) -> Option<Token> {
    let address = headers.get("x-goog-upload-url").or_else(|| headers.get(LOCATION))?;
    upload_id(&address.to_str().ok()?.parse().ok()?)
}

fn upload_id(uri: &Uri) -> Option<Token> {
    let id = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("upload_id="))?;
    (!id.is_empty()).then(|| Token::of(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: usize) -> Response<()> {
        let url = format!("https://h/upload/v1beta/files?upload_id=u{id}&upload_protocol=resumable");
        Response::builder().header("x-goog-upload-url", url).body(()).unwrap()
    }

    fn part(id: usize) -> Request<()> {
        Request::post(format!("/upload/v1beta/files?upload_protocol=resumable&upload_id=u{id}")).body(()).unwrap()
    }

    #[test]
    fn an_address_is_known_for_a_day_and_the_oldest_go_first() {
        let (mut uploads, caller, now) = (Uploads::default(), Token::of("caller"), Instant::now());
        uploads.hand_out(&answer(0), caller, now);
        uploads.hand_out(&answer(0), Token::of("other"), now);
        assert_eq!((uploads.caller_of(&part(0), now), uploads.caller_of(&part(1), now)), (Some(caller), None));
        let now = now + LIFE;
        assert_eq!(uploads.caller_of(&part(0), now), None);
        (0..MOST + 3).for_each(|id| uploads.hand_out(&answer(id), caller, now));
        assert_eq!((uploads.callers.len(), uploads.order.len()), (MOST, MOST));
        assert_eq!((uploads.caller_of(&part(2), now), uploads.caller_of(&part(3), now)), (None, Some(caller)));
    }

    #[test]
    fn an_address_opens_nothing_but_its_upload() {
        let (mut uploads, now) = (Uploads::default(), Instant::now());
        uploads.hand_out(&answer(0), Token::of("caller"), now);
        for uri in [
            "/v1beta/models/m:generateContent?upload_id=u0",
            "/v1beta/files?upload_id=u0",
            "/upload/v1beta/files?upload_id=",
            "/upload/v1beta/files",
        ] {
            assert_eq!(uploads.caller_of(&Request::post(uri).body(()).unwrap(), now), None, "{uri}");
        }
        let mut begins = part(0);
        begins.headers_mut().insert("x-goog-upload-command", "query, start".parse().unwrap());
        assert_eq!(uploads.caller_of(&begins, now), None);
        uploads.hand_out(&Response::new(()), Token::of("caller"), now);
        assert_eq!(uploads.order.len(), 1);
    }
}
