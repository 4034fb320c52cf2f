//! A Gemini that misbehaves on request: to test your own stack against a bad day before it comes.
//!
//! The real service fails in ways that a mock does not think of: a 503 for a minute and a half, a 429 whose RetryInfo is
//! cut to whole seconds, an error inside a 200 stream, an answer without parts, a stream that simply stops. Whoever has
//! only seen the good answer finds out in production, and cannot repeat what he saw.
//!
//! [`Emulator`] answers like Gemini, on every surface that this crate's layers speak, and goes wrong as a script says:
//! [`When`] says with which requests, [`Trouble`] says how. It is a [`tower::Service`](tower_service::Service) in process,
//! where a paused clock makes an hour pass in no time, and a loopback [`Server`] for real clients and SDKs. It counts
//! quotas for each project and model, and keeps a [journal](Emulator::journal) of what it was asked, how it answered, and
//! how each request ended. Under one [seed](EmulatorBuilder::seed), the same requests have the same luck.
//!
//! It never reaches the network beyond its own socket, never keeps a key or a body, and never compresses. It thinks of
//! nothing to say: answers are an echo, or words without meaning. It serves generating (streamed and not), counting,
//! embedding, the lists of models, files (resumable uploads) and cached contents; batches, tuning, Interactions and the
//! Live API are 404, unless a [`Trouble::response`] at a [path](When::path) stands in for them. It does not look for JSON
//! members that Google does not know, and of `X-Server-Timeout` only at the least that Google takes.
//!
//! # In process
//!
//! ```
//! use std::time::Duration;
//!
//! use http::{Request, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::ServiceExt;
//! use tower_gemini::emulator::{Emulator, Trouble, When};
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() -> Result<(), tower_gemini::BoxError> {
//!     let emulator = Emulator::builder()
//!         .first_token(Duration::from_secs(20))
//!         .trouble(When::first(1), Trouble::overloaded())
//!         .build();
//!     let prompt = || {
//!         Request::post("/v1beta/models/gemini-2.5-flash:generateContent")
//!             .header("x-goog-api-key", "test-key")
//!             .body(Full::<bytes::Bytes>::from(r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#))
//!     };
//!
//!     let refused = emulator.clone().oneshot(prompt()?).await?;
//!     assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
//!
//!     // Twenty seconds on the paused clock: none on yours.
//!     let answered = emulator.clone().oneshot(prompt()?).await?;
//!     assert_eq!(emulator.elapsed(), Duration::from_secs(20));
//!     let body = answered.into_body().collect().await?.to_bytes();
//!     assert!(String::from_utf8_lossy(&body).contains("You said: hello"));
//!
//!     assert_eq!(emulator.journal()[0].trouble, Some("overloaded"));
//!     Ok(())
//! }
//! ```
//!
//! # On a socket
//!
//! ```
//! use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpStream};
//! use tower_gemini::emulator::{Emulator, End, Trouble, When};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> std::io::Result<()> {
//!     let emulator = Emulator::builder().trouble(When::first(1), Trouble::hang()).build();
//!     // Any SDK takes `server.uri()` as its base URL.
//!     let server = emulator.serve().await?;
//!
//!     let mut client = TcpStream::connect(server.addr()).await?;
//!     let head = "POST /v1beta/models/gemini-2.5-flash:generateContent?key=test-key HTTP/1.1\r\nhost: localhost\r\n";
//!     let body = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;
//!     client.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
//!
//!     // It hangs until the client has had enough; no test has to sleep to see it.
//!     emulator.wait_for(|journal| journal.iter().any(|visit| visit.trouble == Some("hang"))).await;
//!     drop(client);
//!     emulator.wait_for(|journal| journal[0].end == Some(End::DroppedBeforeHeaders)).await;
//!     Ok(())
//! }
//! ```
//!
//! # Troubles
//!
//! | trouble | what comes |
//! |---|---|
//! | [`overloaded`](Trouble::overloaded), [`high_demand`](Trouble::high_demand) | 503 UNAVAILABLE, in both wordings |
//! | [`internal`](Trouble::internal), [`deadline_exceeded`](Trouble::deadline_exceeded) | 500 INTERNAL, 504 |
//! | [`minute_quota`](Trouble::minute_quota), [`token_quota`](Trouble::token_quota) | 429 with a hint that is worth something |
//! | [`day_quota`](Trouble::day_quota), [`zero_quota`](Trouble::zero_quota) | 429 with a hint that is not |
//! | [`bare_quota`](Trouble::bare_quota), [`vertex_capacity`](Trouble::vertex_capacity) | 429 without details |
//! | [`invalid_key`](Trouble::invalid_key), [`expired_key`](Trouble::expired_key) | 400 API_KEY_INVALID |
//! | [`suspended_key`](Trouble::suspended_key), [`leaked_key`](Trouble::leaked_key), [`service_disabled`](Trouble::service_disabled) | 403 |
//! | [`empty`](Trouble::empty), [`malformed_function_call`](Trouble::malformed_function_call) | 200 without parts |
//! | [`blocked`](Trouble::blocked), [`prompt_blocked`](Trouble::prompt_blocked) | 200 with a verdict |
//! | [`hang`](Trouble::hang), [`stall`](Trouble::stall) | nothing, and nothing more after some chunks |
//! | [`reset`](Trouble::reset), [`reset_after`](Trouble::reset_after) | the connection breaks, before or in the answer |
//! | [`cut`](Trouble::cut) | the stream ends cleanly without a finishReason |
//! | [`slow`](Trouble::slow), [`slow_first_token`](Trouble::slow_first_token) | the answer, late; the headers late or not |
//! | [`html_bad_gateway`](Trouble::html_bad_gateway), [`empty_bad_gateway`](Trouble::empty_bad_gateway) | 502 of a front end, or of a relay |
//! | [`response`](Trouble::response) | whatever you like |
//! | an API error [`in_stream`](Trouble::in_stream) or [`as_raw_tail`](Trouble::as_raw_tail) | 200, some chunks, then the error |
//! | anything [`delayed`](Trouble::delayed), [`paced`](Trouble::paced), or with [`pings`](Trouble::pings) | later, in small pieces, with comments |
//!
//! # What Google does, and the emulator after it
//!
//! Checks come in this order: path, credentials, JSON, `X-Server-Timeout`, model, key, quota, length, and only then the
//! script, so that a scripted trouble is never used up by a request that is refused anyway.
//!
//! - Minutes are counted in a sliding window or a fixed one ([`Window`]); a day ends at midnight Pacific, reckoned from the
//!   [wall clock at the start](EmulatorBuilder::wall_clock) and tokio's clock since. Quota is counted for each project and
//!   model that the name resolves to. Counting tokens and listing models is free.
//! - A 429 for quota costs nothing. A 400 for too many tokens, a 503 and every later failure cost what an answer costs.
//! - A request larger than a whole minute's tokens is told to come back in a second, for ever. The hint of a day's quota
//!   is of no use.
//! - A text is estimated at a token for every four bytes, rounded up, and anything that is no text at 258.
//! - A file or cached content belongs to the project of the key that made it. To another project's key it is a 403, the
//!   same as for one that never was, also where a prompt names it. An upload goes on at an absolute address on the host
//!   that the request named, without any key, or with one of the same project. A file lives for two days, a project has
//!   20 GiB of them, a cached content lives as long as it was told or an hour. Only names and sizes are kept, of the
//!   latest 4,096.
//!
//! # Cancellation
//!
//! Dropping the future, or the body, is what a peer does that hangs up. Nothing is left behind but the journal's note.
//!
//! # Errors
//!
//! The service fails only where the script says reset: an [`io::Error`](std::io::Error) of the kind `ConnectionReset`, from
//! the future or from the body; or with the request body's own error. On a socket it is the TCP connection that is reset,
//! and of HTTP/2 the stream.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use self::{
    builder::Settings,
    credentials::Fingerprint,
    journal::Journal,
    quota::{Meter, Refusal},
    script::Script,
    storage::Storage,
};
use crate::quota::{Limits, Scope, until_pacific_midnight};

mod answer;
mod asked;
mod body;
mod builder;
mod credentials;
mod errand;
mod errors;
mod journal;
mod judge;
mod lists;
mod model;
mod openai;
mod perform;
mod plan;
mod quota;
mod quota_names;
mod script;
mod server;
mod service;
mod storage;
mod trouble;
mod when;

pub use self::{
    answer::Reply,
    body::EmulatorBody,
    builder::EmulatorBuilder,
    journal::{End, Visit},
    model::Model,
    quota::Window,
    server::Server,
    service::ResponseFuture,
    trouble::Trouble,
    when::{Capacity, When},
};

/// An emulated Gemini: a service, and the handle to it. Cheap to clone; clones are the same emulator.
///
/// See the [module's documentation](self).
#[derive(Clone)]
pub struct Emulator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    started: Instant,
    started_wall: SystemTime,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    script: Script,
    meters: HashMap<Scope, Meter>,
    storage: Storage,
    journal: Journal,
}

/// Scopes that are counted at once; above it, the one that is idle for longest is forgotten.
const SCOPES: usize = 4_096;

// === impl Emulator ===

impl Emulator {
    /// An emulator on which nothing goes wrong: every key is good, nothing is limited, and everything is at once.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// An emulator that is told what goes wrong.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::default()
    }

    // --- the script, at run time ---

    /// Adds a trouble behind those that there are. Its trigger counts from now; its times count from the emulator's start
    /// ([`elapsed`](Self::elapsed)).
    pub fn trouble(&self, when: When, trouble: Trouble) {
        self.shared.state.lock().script.push(when, trouble);
    }

    /// Adds a list of troubles, consumed one a request in order.
    pub fn script(&self, when: When, troubles: impl IntoIterator<Item = Trouble>) {
        let troubles: Vec<Trouble> = troubles.into_iter().collect();
        self.shared.state.lock().script.push_list(when, troubles);
    }

    /// Forgets all troubles. Requests that were struck stay struck.
    pub fn clear_troubles(&self) {
        self.shared.state.lock().script.clear();
    }

    // --- the journal ---

    /// Everything that was asked, oldest first, as far back as the journal reaches.
    pub fn journal(&self) -> Vec<Visit> {
        self.shared.state.lock().journal.visits().cloned().collect()
    }

    /// How many of the journal's visits are so.
    ///
    /// ```
    /// # let emulator = tower_gemini::emulator::Emulator::new();
    /// let refused = emulator.count(|visit| visit.status == Some(http::StatusCode::SERVICE_UNAVAILABLE));
    /// # assert_eq!(refused, 0);
    /// ```
    pub fn count(&self, is_so: impl FnMut(&Visit) -> bool) -> usize {
        self.journal().iter().map(is_so).filter(|is_so| *is_so).count()
    }

    /// Requests that have arrived and not ended.
    pub fn in_flight(&self) -> usize {
        self.shared.state.lock().journal.in_flight()
    }

    /// Resolves at the next entry in the journal, or change of one, after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut changes = self.shared.changes.subscribe();
        async move {
            // An error means that the emulator is gone: nothing will change any more.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves once the journal is so: looked at now, and after each change.
    ///
    /// ```
    /// # use tower_gemini::emulator::Emulator;
    /// # async fn example(emulator: Emulator) {
    /// emulator.wait_for(|journal| journal.iter().all(|visit| !visit.is_in_flight())).await;
    /// # }
    /// ```
    pub async fn wait_for(&self, mut is_so: impl FnMut(&[Visit]) -> bool) {
        loop {
            let changed = self.changed();
            if is_so(&self.journal()) {
                return;
            }
            changed.await;
        }
    }

    /// The time since the emulator's start, on tokio's clock.
    pub fn elapsed(&self) -> Duration {
        self.shared.elapsed()
    }

    /// What the journal writes for a key.
    pub fn fingerprint(key: &str) -> String {
        Fingerprint::of(key).to_string()
    }
}

impl Default for Emulator {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("elapsed", &self.elapsed())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn new(settings: Settings, script: Script, started_wall: SystemTime) -> Self {
        let state = State {
            rng: fastrand::Rng::with_seed(settings.seed),
            script,
            meters: HashMap::new(),
            storage: Storage::new(settings.seed),
            journal: Journal::new(settings.journal_capacity),
        };
        Self {
            settings,
            started: Instant::now(),
            started_wall,
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The wall time at the start, and what tokio's clock has counted since.
    fn wall(&self, elapsed: Duration) -> SystemTime {
        self.started_wall.checked_add(elapsed).unwrap_or(self.started_wall)
    }

    fn unix_seconds(&self) -> u64 {
        let since = self.wall(self.elapsed()).duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn take(&self, scope: Scope, limits: &Limits, tokens: u64) -> Result<(), Refusal> {
        let now = self.elapsed();
        let next_midnight = || now + until_pacific_midnight(self.wall(now));
        let meters = &mut self.state.lock().meters;
        if meters.len() >= SCOPES && !meters.contains_key(&scope) {
            meters.retain(|_, meter| !meter.is_idle(now));
            let oldest = meters.iter().min_by_key(|(_, meter)| meter.last_spent()).map(|(scope, _)| scope.clone());
            if let Some(oldest) = oldest.filter(|_| meters.len() >= SCOPES) {
                meters.remove(&oldest);
            }
        }
        let meter = meters.entry(scope).or_insert_with(|| Meter::new(self.settings.window));
        meter.take(limits, now, tokens, next_midnight)
    }
}
