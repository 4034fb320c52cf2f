//! Uploads under way: google-genai for Python sends the parts of a file to the address that it was handed out, without a
//! key. The address is the caller's credential then, as it is with the API itself: the relay signs each one that it hands
//! out, and remembers none.
//!
//! A signature holds for one path and query (the `upload_id` with it), for one caller, and for a day. The keys that sign
//! are made of the relay's own API keys, which no caller knows. So another relay with the same keys, or the same one after
//! a restart, knows the signature too; it lasts while one of the keys is in the settings under which it was signed, and
//! after a reload without that key for its day.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac, digest::Key};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header::LOCATION, uri::PathAndQuery,
};
use sha2::Sha256;
use tokio::time::Instant;
use tower_gemini::call::{Call, Operation};

use crate::config::Token;

/// The time for which an address admits: the API's own are good for a day at least.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The name of the signature among a query's parameters.
const PARAMETER: &str = "relay_signature";

/// The longest path and query that can have a signature. Those of the API have about 250 bytes. Whoever has no token makes
/// the relay compute no more than one MAC of that length.
const LONGEST: usize = 8 * 1024;

/// The domain of this use of the API keys: nothing else that is made of them has it.
const DOMAIN: &[u8; 32] = b"tower-gemini relay upload url v1";

/// The most keys that are kept after they have left the settings; the first that left are forgotten first.
const MOST_RETIRED: usize = 64;

/// The headers that have the absolute addresses at which an upload goes on and its progress can be read. The older
/// protocol has it in `Location`.
const ADDRESSES: [HeaderName; 3] =
    [HeaderName::from_static("x-goog-upload-url"), HeaderName::from_static("x-goog-upload-control-url"), LOCATION];

const COMMAND: HeaderName = HeaderName::from_static("x-goog-upload-command");
const STATUS: HeaderName = HeaderName::from_static("x-goog-upload-status");

// === signing ===

/// The keys that sign addresses and know their own signatures again.
pub(crate) struct Uploads {
    /// One for each API key, in an order that does not depend on the settings'. The first signs.
    current: Vec<SigningKey>,
    /// Those whose API keys have left the settings, and the times at which they left.
    retired: VecDeque<(SigningKey, Instant)>,
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").field("keys", &self.current.len()).finish_non_exhaustive()
    }
}

/// A key that is made of an API key, and from which that cannot be computed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SigningKey {
    secret: [u8; 32],
    /// The name of the key in a signature, so that one key is tried and not all.
    id: KeyId,
}

type KeyId = [u8; 4];

impl SigningKey {
    fn of(api_key: &str) -> Self {
        let secret = mac(DOMAIN).chain_update(api_key).finalize().into_bytes().into();
        let whole = mac(&secret).chain_update(b"id").finalize().into_bytes();
        Self { secret, id: [whole[0], whole[1], whole[2], whole[3]] }
    }

    /// Names a caller, for those alone who know the key and the caller's token.
    fn caller(&self, token: &Token) -> [u8; 16] {
        let whole = mac(&self.secret).chain_update(b"caller").chain_update(token.digest()).finalize().into_bytes();
        let mut name = [0; 16];
        name.copy_from_slice(&whole[..16]);
        name
    }

    /// Begins the signature of an address. Neither a path nor a query has a line's end in it.
    fn address(&self, path: &str, query: &str, terms: &Terms) -> Hmac<Sha256> {
        let (path, query) = (canonical(path, b"%/?#"), canonical(query, b"%&=+;#"));
        let signed = mac(&self.secret).chain_update(b"address\n").chain_update(path).chain_update(b"\n");
        signed.chain_update(query).chain_update(b"\n").chain_update(terms.to_bytes())
    }
}

fn mac(key: &[u8; 32]) -> Hmac<Sha256> {
    // A key that is shorter than a block is filled with zeros.
    let mut block = Key::<Hmac<Sha256>>::default();
    block[..32].copy_from_slice(key);
    Hmac::new(&block)
}

/// Writes a part of an address in the one form that all clients' forms of it have: some escape a character that others
/// leave, and turn back the escapes that they find. An escaped delimiter is another thing than the delimiter.
fn canonical(text: &str, delimiters: &[u8]) -> Vec<u8> {
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    let (mut canonical, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        let escaped = match after {
            [high, low, ..] if *first == b'%' => {
                hex(high).zip(hex(low)).and_then(|(high, low)| u8::try_from(high << 4 | low).ok())
            }
            _ => None,
        };
        match escaped {
            Some(byte) if byte.is_ascii_graphic() && !delimiters.contains(&byte) => canonical.push(byte),
            Some(byte) => canonical.extend(format!("%{byte:02X}").into_bytes()),
            None => canonical.push(*first),
        }
        if escaped.is_some() {
            rest = &rest[2..];
        }
    }
    canonical
}

/// The terms on which an address admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Terms {
    /// The end of its time, in seconds since 1970.
    until: u64,
    /// The caller, by the name that the signing key gives it.
    caller: [u8; 16],
}

impl Terms {
    const LENGTH: usize = 24;

    fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.until.to_be_bytes());
        bytes[8..].copy_from_slice(&self.caller);
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        let (mut until, mut caller) = ([0; 8], [0; 16]);
        until.copy_from_slice(&bytes[..8]);
        caller.copy_from_slice(&bytes[8..]);
        Self { until: u64::from_be_bytes(until), caller }
    }
}

impl Uploads {
    /// Takes the API keys of the settings, and still knows the signatures of those `before`.
    pub(crate) fn new<'a>(api_keys: impl Iterator<Item = &'a str>, before: Option<&Self>, now: Instant) -> Self {
        let mut current: Vec<_> = api_keys.map(SigningKey::of).collect();
        current.sort_unstable();
        current.dedup();
        let mut retired = VecDeque::new();
        if let Some(before) = before {
            let gone = before.current.iter().map(|key| (key.clone(), now));
            let known = before.retired.iter().cloned().chain(gone);
            retired.extend(known.filter(|(key, since)| !current.contains(key) && now.duration_since(*since) < LIFE));
            retired.drain(..retired.len().saturating_sub(MOST_RETIRED));
        }
        Self { current, retired }
    }

    /// Signs the addresses that an answer hands out to a caller.
    pub(crate) fn sign(&self, headers: &mut HeaderMap, to: &Token, now: SystemTime) {
        replace_addresses(headers, |url| self.signed(url, to, now).or_else(|| Some(url.clone())));
    }

    fn signed(&self, url: &HeaderValue, to: &Token, now: SystemTime) -> Option<HeaderValue> {
        let key = self.current.first()?;
        let url = url.to_str().ok()?;
        let uri: Uri = url.parse().ok()?;
        if !is_of_an_upload(&Method::POST, &uri) {
            return None;
        }
        let terms = Terms { until: seconds(now + LIFE), caller: key.caller(to) };
        // The proxy's part takes the keys out, too.
        let query = without_keys(uri.query().unwrap_or_default());
        let signature = key.address(uri.path(), &query, &terms).finalize().into_bytes();
        let signature = URL_SAFE_NO_PAD.encode([&key.id[..], &terms.to_bytes(), &signature].concat());
        let start = url.split(['?', '#']).next()?;
        let separator = if query.is_empty() { "" } else { "&" };
        let signed = format!("{start}?{query}{separator}{PARAMETER}={signature}");
        if signed.len() > LONGEST {
            tracing::warn!("the address of an upload is too long to be signed: its parts need a token");
            return None;
        }
        signed.parse().ok()
    }

    /// Reads the signature of an upload's address, if there is one of a known key. Everybody can have it read.
    pub(crate) fn read(&self, uri: &Uri) -> Option<SignedAddress> {
        let query =
            uri.query().filter(|query| uri.path().len() + query.len() < LONGEST && query.contains(PARAMETER))?;
        if !is_of_an_upload(&Method::POST, uri) {
            return None;
        }
        // Another relay on the way may have signed it before this one.
        let pairs: Vec<_> = query.split('&').collect();
        let is_signature = |pair: &&str| pair.strip_prefix(PARAMETER).is_some_and(|rest| rest.starts_with('='));
        let at = pairs.iter().rposition(is_signature)?;
        let signature = URL_SAFE_NO_PAD.decode(&pairs[at][PARAMETER.len() + 1..]).ok()?;
        let (id, signature) = signature.split_first_chunk()?;
        let (terms, signature) = signature.split_first_chunk()?;
        let terms = Terms::from_bytes(terms);
        let key = self.key(id)?.clone();
        let query = [&pairs[..at], &pairs[at + 1..]].concat().join("&");
        let right = key.address(uri.path(), &without_keys(&query), &terms);
        right.verify_slice(signature).ok()?; // it takes the same time for every wrong one
        let mut parts = uri.clone().into_parts();
        let path = if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
        parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
        Some(SignedAddress { uri: Uri::from_parts(parts).ok()?, terms, key })
    }

    /// Finds a key by its name. Of 164 keys, two have the same one in 1 of 320,000 relays; the first is found then.
    fn key(&self, id: &KeyId) -> Option<&SigningKey> {
        self.current.iter().chain(self.retired.iter().map(|(key, _)| key)).find(|key| key.id == *id)
    }
}

/// An address that has been handed out.
pub(crate) struct SignedAddress {
    /// The address as the upstream knows it.
    pub(crate) uri: Uri,
    terms: Terms,
    key: SigningKey,
}

impl SignedAddress {
    /// Returns whether the address admits a request without a token: it goes on with the upload, and is in time.
    pub(crate) fn admits<B>(&self, request: &Request<B>, now: SystemTime) -> bool {
        let sends = *request.method() == Method::POST || *request.method() == Method::PUT;
        sends && goes_on(request) && seconds(now) < self.terms.until
    }

    /// Returns whether the address was handed out to the caller with this token.
    pub(crate) fn is_for(&self, token: &Token) -> bool {
        self.key.caller(token) == self.terms.caller
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

// === requests and answers of uploads ===

/// Returns whether a request goes on with an upload that was begun before.
pub(crate) fn goes_on<B>(request: &Request<B>) -> bool {
    let commands = || request.headers().get_all(COMMAND).iter();
    let mut words = commands().flat_map(|command| command.as_bytes().split(|byte| *byte == b','));
    let begins = words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"start"));
    let names_one = || pairs(request.uri()).any(|pair| pair.starts_with("upload_id="));
    !begins && (commands().next().is_some() || names_one()) && is_of_an_upload(request.method(), request.uri())
}

/// Ends the upload for its caller where a part was refused in a way that no second try changes. Google's SDKs send a part
/// three times, whatever the refusal, unless a header says how the upload stands.
pub(crate) fn end_if_refused<B>(response: &mut Response<B>) {
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    let status = response.status();
    if status.is_client_error() && !again.contains(&status) && !response.headers().contains_key(STATUS) {
        response.headers_mut().insert(STATUS, HeaderValue::from_static("final"));
    }
}

/// Replaces each address of an upload that an answer hands out by another, or by none.
pub(crate) fn replace_addresses(headers: &mut HeaderMap, by: impl Fn(&HeaderValue) -> Option<HeaderValue>) {
    for name in &ADDRESSES {
        // Other addresses than an upload's may be a location and lead anywhere.
        let is_one = |url: &&HeaderValue| *name != LOCATION || names_an_upload(url);
        let Some(url) = headers.get(name).filter(is_one).map(&by) else { continue };
        match url {
            Some(url) => headers.insert(name, url),
            // An address that cannot be read may lead anywhere.
            None => headers.remove(name),
        };
    }
}

/// Takes a query's parameters out that are keys: the upstream may repeat the relay's own.
pub(crate) fn without_keys(query: &str) -> String {
    let is_key = |pair: &&str| pair.starts_with("key=") || pair.starts_with("access_token=");
    query.split('&').filter(|pair| !is_key(pair)).collect::<Vec<_>>().join("&")
}

fn is_of_an_upload(method: &Method, uri: &Uri) -> bool {
    Call::new(method, uri).operation() == Operation::Upload
}

/// Returns whether an address is one at which an upload goes on.
pub(crate) fn names_an_upload(url: &HeaderValue) -> bool {
    url.to_str().is_ok_and(|url| url.contains("?upload_id=") || url.contains("&upload_id="))
}

fn pairs(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "https://h/upload/v1beta/files?upload_id=u1&key=AIza&upload_protocol=resumable";

    fn uploads(keys: &[&str]) -> Uploads {
        Uploads::new(keys.iter().copied(), None, Instant::now())
    }

    fn now() -> SystemTime {
        tower_gemini::clock::wall()
    }

    /// Returns the path and query that a caller is handed out.
    fn handed_out(uploads: &Uploads, session: &str, to: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("x-goog-upload-url", session.parse().unwrap());
        uploads.sign(&mut headers, &Token::of(to), now());
        let url = headers["x-goog-upload-url"].to_str().unwrap().to_owned();
        url.strip_prefix("https://h").unwrap().to_owned()
    }

    fn part(uri: &str) -> Request<()> {
        Request::post(uri).header("x-goog-upload-command", "upload, finalize").body(()).unwrap()
    }

    fn admits(uploads: &Uploads, request: &Request<()>, token: &str, at: SystemTime) -> bool {
        let address = uploads.read(request.uri());
        address.is_some_and(|address| address.admits(request, at) && address.is_for(&Token::of(token)))
    }

    #[test]
    fn an_address_admits_its_caller_for_a_day_and_goes_on_as_the_upstream_knows_it() {
        let uploads = uploads(&["a", "b"]);
        let uri = handed_out(&uploads, SESSION, "caller");
        assert!(!uri.contains("AIza"), "{uri}");
        let (request, now) = (part(&uri), now());
        assert!(admits(&uploads, &request, "caller", now));
        assert!(!admits(&uploads, &request, "other", now));
        assert!(admits(&uploads, &request, "caller", now + LIFE - Duration::from_secs(5)));
        assert!(!admits(&uploads, &request, "caller", now + LIFE + Duration::from_secs(5)));
        let known = uploads.read(request.uri()).unwrap().uri;
        assert_eq!(known, "/upload/v1beta/files?upload_id=u1&upload_protocol=resumable");
        // A caller may add its key.
        let with_key: Uri = format!("{uri}&key=mine").parse().unwrap();
        assert_eq!(uploads.read(&with_key).unwrap().uri.query().unwrap().matches("relay_signature").count(), 0);
    }

    #[test]
    fn an_address_that_was_changed_is_not_known() {
        let uploads = uploads(&["a"]);
        let uri = handed_out(&uploads, SESSION, "caller");
        let (query, signature) = uri.rsplit_once('=').unwrap();
        assert!(uploads.read(&uri.parse().unwrap()).is_some());
        let mut changed = vec![
            uri.replace("upload_id=u1", "upload_id=u2"),
            uri.replace("upload_id=u1", "upload_id=u1&upload_id=u2"),
            uri.replace("upload_id=u1", "upload_id=u1&upload%5Fid=u2"),
            uri.replace("/files", "/fileSearchStores/s:uploadToFileSearchStore"),
            uri.replace("/v1beta/", "/v1/"),
            uri.replace("&upload_protocol=resumable", ""),
            format!("{uri}&upload_id=u2"),
            format!("{query}="),
            format!("{query}={}", &signature[..signature.len() - 4]),
            format!("{query}={signature}AAAA"),
            query.replace("relay_signature", ""),
        ];
        // Each letter of the signature counts; the last one's lowest bits are no part of it.
        changed.extend((0..signature.len()).map(|at| {
            let other = if signature.as_bytes()[at] == b'A' { "Q" } else { "A" };
            format!("{query}={}{other}{}", &signature[..at], &signature[at + 1..])
        }));
        for changed in changed {
            assert!(uploads.read(&changed.parse().unwrap()).is_none(), "{changed}");
        }
        let of_other_keys = self::uploads(&["caller", "relay", ""]);
        assert!(of_other_keys.read(&uri.parse().unwrap()).is_none());
    }

    #[test]
    fn an_address_is_known_in_every_form_that_clients_give_it() {
        let uploads = uploads(&["a"]);
        let session = "https://h/upload/v1beta/environments/e/files/a%20b:c~.txt?upload_id=a%2Fb%2bc'%3D%3D&x=%e4";
        let uri = handed_out(&uploads, session, "caller");
        for (from, to) in [
            ("a%20b:c~", "a%20b%3Ac%7E"),
            ("a%2Fb", "a/b"),
            ("%2bc", "%2Bc"),
            ("'", "%27"),
            ("x=%e4", "x=%E4"),
            ("upload_id", "upload%5Fid"),
        ] {
            let other = uri.replace(from, to);
            assert!(other != uri && admits(&uploads, &part(&other), "caller", now()), "{other}");
            // The upstream gets it as the caller has sent it.
            let as_sent = uploads.read(&other.parse().unwrap()).unwrap().uri.to_string();
            assert!(as_sent.contains(to) && other.starts_with(&as_sent), "{as_sent}");
        }
        for (from, to) in
            [("a%20b", "a+b"), ("%2bc", "+c"), ("%3D%3D", "=="), ("files/a", "files%2Fa"), ("%e4", "%25e4")]
        {
            let other = uri.replace(from, to);
            assert!(other != uri && uploads.read(&other.parse().unwrap()).is_none(), "{other}");
        }
        assert_eq!(canonical("%", b"%"), b"%");
        assert_eq!(canonical("%4", b"%"), b"%4");
        assert_eq!(canonical("%zz%41%0a", b"%"), b"%zzA%0A");
    }

    #[test]
    fn whoever_has_no_token_cannot_make_the_relay_compute_much() {
        let keys: Vec<_> = (0..100).map(|nth| format!("key {nth}")).collect();
        let uploads = Uploads::new(keys.iter().map(String::as_str), None, Instant::now());
        let signature = handed_out(&uploads, SESSION, "caller").rsplit_once('=').unwrap().1.to_owned();
        let invented = URL_SAFE_NO_PAD.encode([1; 60]);
        let escapes = |bytes: usize| "%41".repeat(bytes / 3);
        for (path, padding, signature) in [
            ("/v1beta/models/m", escapes(60_000), &signature),
            ("/upload/v1beta/files", escapes(60_000), &signature),
            ("/upload/v1beta/files", escapes(8_000), &signature),
            ("/upload/v1beta/files", escapes(8_000), &invented),
        ] {
            let uri: Uri = format!("{path}?upload_id={padding}&{PARAMETER}={signature}").parse().unwrap();
            let fastest = (0..5).map(|_| {
                let began = Instant::now();
                assert!(uploads.read(&uri).is_none());
                began.elapsed()
            });
            // A MAC with each key takes a hundred times as long as one does.
            let fastest = fastest.min().unwrap();
            assert!(fastest < Duration::from_millis(20), "{path}, {} bytes: {fastest:?}", uri.to_string().len());
        }
        // An address that would not be read is handed out as it came, and not half known.
        let long = SESSION.replace("u1", &"u".repeat(LONGEST));
        assert_eq!(format!("https://h{}", handed_out(&uploads, &long, "caller")), long);
        let fits = handed_out(&uploads, &SESSION.replace("u1", &"u".repeat(8_000)), "caller");
        assert!(admits(&uploads, &part(&fits), "caller", now()));
    }

    #[test]
    fn an_address_admits_parts_only() {
        let uploads = uploads(&["a"]);
        let uri = handed_out(&uploads, SESSION, "caller");
        let with = |method: &str, command: Option<&str>| {
            let request = Request::builder().method(method).uri(&uri);
            let request = command.into_iter().fold(request, |request, command| request.header(COMMAND, command));
            admits(&uploads, &request.body(()).unwrap(), "caller", now())
        };
        for (method, command, admitted) in [
            ("POST", Some("upload"), true),
            ("POST", Some("query"), true),
            ("PUT", None, true),
            ("POST", Some("start"), false),
            ("POST", Some("query, START"), false),
            ("GET", None, false),
            ("DELETE", None, false),
            ("PATCH", Some("upload"), false),
        ] {
            assert_eq!(with(method, command), admitted, "{method} {command:?}");
        }
    }

    #[test]
    fn nothing_but_the_address_of_an_upload_is_signed() {
        let uploads = uploads(&["a"]);
        for (name, url) in [
            ("location", "https://h/v1beta/files"),
            ("location", "https://h/v1beta/models/m:generateContent?upload_id=u"),
            ("x-goog-upload-url", "https://h/v1beta/files?upload_id=u"),
            ("x-goog-upload-url", "not a url"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, url.parse().unwrap());
            uploads.sign(&mut headers, &Token::of("caller"), now());
            assert_eq!(headers[name], url);
        }
        for name in ["location", "x-goog-upload-control-url"] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), SESSION.parse().unwrap());
            uploads.sign(&mut headers, &Token::of("caller"), now());
            assert!(headers[name].to_str().unwrap().contains("&relay_signature="), "{headers:?}");
        }
    }

    #[test]
    fn a_signature_outlives_its_key_in_the_settings_by_a_day_and_is_known_wherever_the_key_is() {
        let before = uploads(&["a", "b"]);
        let request = part(&handed_out(&before, SESSION, "caller"));
        let knows = |uploads: &Uploads| admits(uploads, &request, "caller", now());
        assert!(knows(&uploads(&["b", "a"])), "another relay, another order");
        assert!(knows(&uploads(&["c", "b", "a"])), "one more key");
        assert!(!knows(&uploads(&["c"])));
        let (began, later) = (Instant::now(), Instant::now() + LIFE);
        let reloaded = |key: &str, before: &Uploads, at| Uploads::new([key].into_iter(), Some(before), at);
        let after = reloaded("c", &before, began);
        let again = reloaded("d", &after, later - Duration::from_secs(1));
        assert!(knows(&after) && knows(&again));
        assert!(!knows(&reloaded("e", &again, later)));
        assert!(knows(&Uploads::new(["a", "b"].into_iter(), Some(&again), later)), "it has come back");
        // However often the keys change, few are kept.
        let many = (0..500).fold(again, |before, nth| reloaded(&format!("k{nth}"), &before, later));
        assert_eq!(many.retired.len(), MOST_RETIRED);
    }

    #[test]
    fn relays_in_a_row_each_know_their_own_signature() {
        let (inner, outer) = (uploads(&["inner"]), uploads(&["outer"]));
        let of_inner = handed_out(&inner, SESSION, "outer's token");
        let of_outer = handed_out(&outer, &format!("https://h{of_inner}"), "caller");
        let request = part(&of_outer);
        assert!(admits(&outer, &request, "caller", now()));
        assert_eq!(outer.read(request.uri()).unwrap().uri, *of_inner);
        assert!(admits(&inner, &part(&of_inner), "outer's token", now()));
    }

    #[test]
    fn a_refused_part_ends_the_upload_unless_it_may_come_again() {
        for (status, end) in
            [(401, true), (403, true), (413, true), (408, false), (429, false), (503, false), (200, false)]
        {
            let mut response = Response::builder().status(status).body(()).unwrap();
            end_if_refused(&mut response);
            assert_eq!(response.headers().contains_key(STATUS), end, "{status}");
        }
        let mut told = Response::builder().status(400).header(STATUS, "active").body(()).unwrap();
        end_if_refused(&mut told);
        assert_eq!(told.headers()[STATUS], "active");
    }
}
