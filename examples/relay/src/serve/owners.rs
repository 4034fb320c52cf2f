//! Callers that do not see each other's files, caches and batches: who made a thing alone may name it, and lists have
//! only the own ones.
//!
//! All callers share the relay's keys, and to the API they are one. So the relay remembers who has made what, from the
//! answers that make things. A call that names another caller's thing, in its path, query or body, is answered as if the
//! thing did not exist; an answer of the upstream that a thing does not exist is put into the same words, so that nobody
//! can tell one from the other. A thing of which nobody knows who made it is in no list, and whoever knows its name may
//! use it.

mod asked;
mod lesson;
mod list;
mod memory;

use std::{
    collections::HashSet,
    future::ready,
    sync::{Arc, LazyLock},
};

use axum::body::Body;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, Response, StatusCode, Uri,
    header::{
        ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE,
        IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
    },
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_gemini::{
    Error, Outcome,
    body::ReplayBody,
    failure::Failure,
    replay::ReplayLayer,
    resource::{AnswerReader, Resource},
};

use crate::{
    config::Token,
    serve::{
        always_ready::Answering,
        known::{Known, once_more},
        owners::{
            asked::{Asked, Named, all_named, is_named_by},
            lesson::Lesson,
            list::own_part,
            memory::{Makers, by_maker},
        },
        refusal::{full, refusal},
    },
};

pub(crate) use self::memory::ThingsByMaker;

/// The longest page of a list that is read. The API's longest have 1,000 things of some 600 bytes.
const LONGEST_PAGE: usize = 8 * 1024 * 1024;

/// The longest body that is searched by the thread that serves its call.
const SEARCHED_AT_ONCE: usize = 64 * 1024;

/// The most names of a body that a call remembers until its answer. One that has more makes only what the answer is about.
const MOST_MENTIONED: usize = 4_096;

/// The conditions and ranges of a request: of a list, they would be those of everybody's.
const CONDITIONS: [HeaderName; 6] = [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

/// The headers that describe everybody's list.
const OF_THE_WHOLE: [HeaderName; 4] = [ACCEPT_RANGES, CONTENT_LENGTH, ETAG, LAST_MODIFIED];

/// Longer bodies that are searched at a time.
static SEARCHES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(4));

/// The memory of who has made what, which all stacks of a relay share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Separation(Arc<Mutex<Makers>>);

impl Separation {
    /// Lists what is kept over a restart, for [`restore`](Self::restore).
    pub(crate) fn kept(&self) -> ThingsByMaker {
        // Sorted outside of the lock, which every call takes.
        let all = self.0.lock().all();
        by_maker(all)
    }

    /// Remembers what was kept, except for what has been learned since.
    pub(crate) fn restore(&self, kept: &ThingsByMaker) {
        self.0.lock().restore(kept);
    }

    /// Takes a caller's part of all things.
    pub(crate) fn of(&self, known: &Known) -> SeparateCaller {
        let caller = if known.rules.is_named { known.rules.name.clone() } else { unnamed(&known.token) };
        SeparateCaller { caller, makers: self.0.clone() }
    }
}

/// Names a caller of `client_tokens`: its number changes with the file, and its token does not.
fn unnamed(token: &Token) -> Arc<str> {
    let [a, b, c, d, e, f, g, h, ..] = *token.digest();
    format!("token#{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h])).into()
}

/// A caller among others.
#[derive(Clone, Debug)]
pub(crate) struct SeparateCaller {
    caller: Arc<str>,
    makers: Arc<Mutex<Makers>>,
}

/// The result of the search of a call.
#[derive(Debug, Default)]
struct Searched {
    is_foreign: bool,
    /// True if something that is named may be another caller's, as far as the caller can know.
    is_doubtful: bool,
    /// All names in the body, where they were looked for and are not too many.
    mentioned: Option<HashSet<Resource>>,
}

impl SeparateCaller {
    /// Sends a call on, unless it names another caller's thing. Learns from the answer, and cuts lists.
    pub(crate) fn pass<S, R>(self, mut request: Request<Body>, reader: &ReplayLayer, inner: S) -> Answering
    where
        S: Service<Request<Body>, Response = Response<R>, Error = BoxError, Future: Send> + Clone + Send + 'static,
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let asked = Asked::of(&request);
        let in_uri = self.look_up(&asked.named);
        if in_uri.is_foreign || asked.is_envelope {
            return Box::pin(ready(Err(not_found())));
        }
        let is_searched = !asked.reads && !asked.is_upload;
        if is_searched && !is_plain(request.headers()) {
            let message = "the request's body is compressed, and the relay cannot read what it names; send it as it is";
            let error = refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_ARGUMENT", message);
            return Box::pin(ready(Err(error)));
        }
        if asked.lists.is_some() {
            CONDITIONS.iter().for_each(|name| drop(request.headers_mut().remove(name)));
        }
        if !is_searched || !(asked.makes || self.makers.lock().others_have(&self.caller)) {
            return Box::pin(async move {
                let answer = inner.oneshot(request).await;
                self.answered(answer, asked, in_uri).await
            });
        }
        let searching = service_fn(move |request| {
            self.clone().pass_read(request, asked.clone(), in_uri.is_doubtful, inner.clone())
        });
        Box::pin(reader.layer(searching).oneshot(request))
    }

    /// Sends a call on whose body has been read.
    fn pass_read<S, R>(self, request: Request<ReplayBody<Body>>, asked: Asked, is_doubtful: bool, inner: S) -> Answering
    where
        S: Service<Request<Body>, Response = Response<R>, Error = BoxError, Future: Send> + Clone + Send + 'static,
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Box::pin(async move {
            let body = request.body().bytes().cloned();
            let mut searched = match body {
                Some(body) => self.search(body, asked.makes).await?,
                // Nobody can say that it names nothing.
                None if self.makers.lock().others_have(&self.caller) => {
                    let message = "the relay has no room to read the request's body; try again";
                    return Err(full(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message));
                }
                None => Searched::default(),
            };
            if searched.is_foreign {
                return Err(not_found());
            }
            searched.is_doubtful |= is_doubtful;
            let answer = inner.oneshot(request.map(once_more)).await;
            self.answered(answer, asked, searched).await
        })
    }

    /// Looks up what a call names.
    fn look_up(&self, things: &[Resource]) -> Searched {
        let mut searched = Searched::default();
        if things.is_empty() {
            return searched;
        }
        let makers = self.makers.lock();
        for thing in things {
            match makers.of(thing) {
                Some(maker) if *maker == self.caller => {}
                Some(_) => searched.is_foreign = true,
                None => searched.is_doubtful |= makers.others_have_like(thing, &self.caller),
            }
        }
        searched
    }

    /// Searches a body, if it is long on a thread that serves no calls.
    async fn search(&self, body: Bytes, makes: bool) -> Result<Searched, BoxError> {
        if body.len() <= SEARCHED_AT_ONCE {
            return Ok(self.search_now(&body, makes));
        }
        // The semaphore is never closed.
        let one_of_few = SEARCHES.acquire().await?;
        let caller = self.clone();
        let search = move || {
            // The search goes on where its caller has gone.
            let _one_of_few = one_of_few;
            caller.search_now(&body, makes)
        };
        Ok(tokio::task::spawn_blocking(search).await?)
    }

    fn search_now(&self, body: &[u8], makes: bool) -> Searched {
        let mut all = Searched { mentioned: makes.then(HashSet::new), ..Searched::default() };
        let mut hints_at_foreign = false;
        all_named(body, |Named { things, hinted }| {
            let searched = self.look_up(things);
            all.is_foreign |= searched.is_foreign;
            all.is_doubtful |= searched.is_doubtful;
            hints_at_foreign |= self.look_up(hinted).is_foreign;
            if let Some(mentioned) = &mut all.mentioned {
                mentioned.extend(things.iter().chain(hinted).cloned());
                if mentioned.len() > MOST_MENTIONED {
                    all.mentioned = None;
                }
            }
            !all.is_foreign
        });
        if !all.is_foreign && hints_at_foreign {
            let is_foreign = |thing: &Resource| self.look_up(std::slice::from_ref(thing)).is_foreign;
            all.is_foreign = is_named_by(body, &is_foreign);
        }
        all
    }

    /// Learns from an answer, and cuts out of it what is not the caller's.
    async fn answered<R>(
        self,
        answer: Result<Response<R>, BoxError>,
        asked: Asked,
        searched: Searched,
    ) -> Result<Response<Body>, BoxError>
    where
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let response = match answer {
            Ok(response) if searched.is_doubtful && says_so(&response) => return Err(not_found()),
            Ok(response) => response.map(Body::new),
            Err(error) if searched.is_doubtful && Error::find(&*error).map(Error::failure).is_some_and(is_missing) => {
                return Err(not_found());
            }
            Err(error) => return Err(error),
        };
        if !response.status().is_success() {
            return Ok(response);
        }
        if let Some(collection) = asked.lists {
            return self.own_list(response, collection).await;
        }
        if let Some(thing) = asked.deletes {
            self.makers.lock().forget(&thing);
            return Ok(response);
        }
        let is_own = |thing: &Resource| self.makers.lock().of(thing).is_some_and(|maker| *maker == self.caller);
        let shows_own = asked.reads && asked.named.first().is_some_and(is_own);
        if !asked.makes && !shows_own {
            return Ok(response);
        }
        if let Some(upload) = upload_in(response.headers()) {
            self.makers.lock().made(upload, &self.caller);
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let events = content_type.is_some_and(|value| value.starts_with("text/event-stream"));
        // The content of a file is not read.
        if !events && content_type.is_some_and(|value| !value.contains("json")) {
            return Ok(response);
        }
        let lesson = Lesson {
            makers: self.makers,
            caller: self.caller,
            reader: AnswerReader::new(asked.collection, events),
            made_in: asked.collection.filter(|_| asked.makes),
            makes: asked.makes,
            named: asked.named,
            mentioned: searched.mentioned,
        };
        Ok(response.map(|body| lesson.of(body)))
    }

    /// Reads a page of a list, and cuts out what is not the caller's.
    async fn own_list(&self, response: Response<Body>, collection: &'static str) -> Result<Response<Body>, BoxError> {
        let (mut head, body) = response.into_parts();
        OF_THE_WHOLE.iter().for_each(|name| drop(head.headers.remove(name)));
        let failed = |message: &str| refusal(StatusCode::BAD_GATEWAY, "UNAVAILABLE", message);
        let page = match Limited::new(body, LONGEST_PAGE).collect().await {
            Ok(page) => page.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(failed(&format!(
                    "the list has more than {LONGEST_PAGE} bytes, and the relay could not tell whose things are in it; \
                     ask for a smaller page"
                )));
            }
            Err(error) => return Err(error),
        };
        // The answer to a HEAD has none.
        if page.is_empty() {
            return Ok(Response::from_parts(head, Body::empty()));
        }
        let is_own = |thing: &Resource| self.makers.lock().of(thing).is_some_and(|maker| *maker == self.caller);
        let own = if is_plain(&head.headers) { own_part(&page, collection, is_own) } else { None };
        match own {
            Some(own) => Ok(Response::from_parts(head, Body::from(own))),
            None => Err(failed("the list is no JSON, and the relay could not tell whose things are in it")),
        }
    }
}

/// Returns whether a body is as it is read.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Makes the error for a thing that does not exist, or that another caller has.
fn not_found() -> BoxError {
    refusal(StatusCode::NOT_FOUND, "NOT_FOUND", "Requested entity was not found.")
}

/// Returns whether an answer may say that a thing does not exist.
fn says_so<R>(response: &Response<R>) -> bool {
    let failure = response.extensions().get().and_then(Outcome::failure);
    failure.map_or(response.status() == StatusCode::NOT_FOUND, is_missing)
}

/// Returns whether a failure may be that a thing does not exist. The API says it as 403 of files and caches, and of some
/// as 400.
fn is_missing(failure: &Failure) -> bool {
    let message = failure.message().to_ascii_lowercase();
    match failure.code() {
        StatusCode::NOT_FOUND => true,
        StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            ["permission", "not exist", "not found"].iter().any(|words| message.contains(words))
        }
        _ => false,
    }
}

/// Finds the upload that an answer has begun.
fn upload_in(headers: &HeaderMap) -> Option<Resource> {
    let address = headers.get("x-goog-upload-url").or_else(|| headers.get(LOCATION))?;
    let address: Uri = address.to_str().ok()?.parse().ok()?;
    Resource::in_query(address.query()?)
}
