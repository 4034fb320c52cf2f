//! A relay to Gemini made of this crate's layers: callers see answers where the API gives errors.
//!
//! ```text
//! cargo run --release --bin relay                        # answers from the embedded emulator
//! cargo run --release --bin relay -- --config relay.toml
//! curl http://127.0.0.1:8787/v1beta/models/gemini-2.5-flash:generateContent \
//!     -H 'content-type: application/json' -d '{"contents": [{"parts": [{"text": "hello"}]}]}'
//! ```
//!
//! The file, with its defaults; every line is optional:
//!
//! ```toml
//! listen = "127.0.0.1:8787"          # port 0: any
//! upstream = "https://generativelanguage.googleapis.com"   # or "emulator"
//! max_body = "32MiB"                  # of a prompt; a file that is uploaded streams through, however large
//! default_project = "p1"              # of files and cached contents that the relay has not seen made; the first key's
//! client_tokens = ["env:RELAY_TOKEN"] # whoever calls brings one of them as its API key; unset: nobody is asked for one
//! max_concurrent_per_caller = 20      # calls under way of one token, or else of one address; unset: any number
//! max_concurrent = 200                # calls under way in all; unset: any number
//! max_queued = 200                    # of those beyond, how many wait; as many as max_concurrent unless set
//! header_timeout = "30s"              # for the head of a request, from the connection or from the answer before
//! body_timeout = "30s"                # between two pieces of its body
//! unread_timeout = "2m"               # for a caller that reads nothing of its answer while there is more of it
//! lame_duck = "0s"                    # told to end, it goes on accepting for so long, while /readyz says no
//! drain = "25s"                       # after that, how long calls in flight may take
//! [[keys]]                            # any number of them
//! name = "a"                          # for messages; a key itself is never shown
//! key = "env:GEMINI_API_KEY"          # or the key itself
//! project = "p1"                      # keys of one project share its quota
//! weight = 1                          # how much of the load it takes beside others
//! [fallback]                          # no model has one unless it is given; a call names the model that answered
//! "gemini-2.5-pro" = ["gemini-2.5-flash"]   # in x-gemini-model; these follow where it fails for everybody
//! sticky = "30s"                      # how long calls stay there before one of them tries the first again
//! strip = false                       # true: take out of a request what the next model would reject
//! [fallback.larger]                   # where only the context is too long
//! "gemma-3-27b-it" = ["gemini-2.5-flash"]
//! [retry]
//! max_attempts = 8
//! persistent = false                  # true: up to 60 attempts on 503, at most 8 s apart, within the total time
//! base_delay = "500ms"
//! max_delay = "20s"
//! on_open = "wait"                    # or "fail": where a layer refuses for now, as an open breaker
//! [timeout]
//! total = "285s"
//! attempt = "180s"
//! first_event = "180s"
//! idle = "60s"
//! [breaker]
//! enabled = true
//! mode = "silence"                    # or "failure_rate": 80 % of 30 s; or "consecutive": 5 in a row
//! open = "2s"                         # at least, at first; each further time longer
//! max_open = "10s"
//! [precheck]
//! enabled = true
//! on_unknown_model = "refuse"         # or "forward": a name that the API's own list nearly has
//! max_output = "warn"                 # or "off", "clamp", "refuse": a maxOutputTokens out of range
//! count_tokens = "near_limit"         # or "never", "always": when the API is asked to count
//! [limits.default]                    # of the project, for each model; what is left out is learned from refusals
//! rpm = 30                            # requests in any minute
//! tpm = 250000                        # input tokens in any minute
//! rpd = 1000                          # requests a day, until midnight Pacific
//! pacing = "burst"                    # or "smooth": `burst` at once (1 unless set), then evenly
//! max_wait = "60s"                    # in line for a turn; "0s": nobody waits
//! [limits."gemini-2.5-flash"]         # what a model's own table leaves out is as in [limits.default]
//! rpm = 10
//! pacing = "smooth"
//! burst = 2
//! ```
//!
//! (Keys, tokens, numbers of calls, fallbacks and limits have no defaults; what stands there are examples.)
//!
//! `GET /healthz` is 200 while the process lives, `GET /readyz` while new calls should come here: not once it was told to
//! end, nor while the upstream refuses every key. SIGTERM ends it, and loses no call that ends within `drain`; a second one
//! ends it at once. SIGHUP reads the file again: wrong settings are complained of and the old ones stay; right ones hold for
//! calls from then on, and what was learned (keys that are out, limits, circuits, counts) stays where the section is the
//! same under which it was learned. Only `listen` needs a restart. A WebSocket (the Live API) is refused with 501.
//!
//! What a container sets is taken from the environment, too: `RELAY_CONFIG`, `RELAY_LISTEN`, `RELAY_UPSTREAM`,
//! `RELAY_LOG_FORMAT` (`pretty` or `json`), and `RUST_LOG`, which says how much is logged (`info` unless set, a line a call).
//! The log goes to standard error; of a call it has what was asked for and what came of it, never a body or a key.
//! `--check` reads the settings, prints the layers that come of them, and ends with 0, or with 2 where they are wrong.
//!
//! What is going on stands at `/` for people, at `/status` as JSON and at `/metrics` for Prometheus; `alerts.yml` and
//! `dashboard.json` beside this file are made for that. None of them asks for a credential: do not let the public see them.
//!
//! `stack.rs` is the part worth copying. SDKs are pointed at the relay by their base URL, with any key: it never goes on.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use tower_gemini::stack::GeminiLayer;

use crate::settings::{Instead, Settings, Upstream};

mod breaker;
mod door;
mod failures;
mod fallback;
mod held;
mod house;
mod keys;
mod limits;
mod linger;
mod live;
mod log;
mod metrics;
mod precheck;
mod proxy;
mod server;
mod settings;
mod slow;
mod stack;
mod status;
mod toml_file;
mod unread;
mod what_to_do;
mod wrong;

/// A relay to Gemini that answers where the API gives errors.
#[derive(Parser)]
struct Arguments {
    /// The settings, a TOML file; without one, the embedded emulator answers.
    #[arg(long, value_name = "FILE", env = "RELAY_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen, whatever the file says: an IP address and a port.
    #[arg(long, value_name = "ADDRESS", env = "RELAY_LISTEN")]
    listen: Option<SocketAddr>,
    /// Who is asked, whatever the file says: a URL, or "emulator".
    #[arg(long, value_name = "URL", env = "RELAY_UPSTREAM", requires = "config")]
    upstream: Option<Upstream>,
    /// How the log looks, on standard error; RUST_LOG says what is in it.
    #[arg(long, value_enum, default_value_t, env = "RELAY_LOG_FORMAT")]
    log_format: log::Format,
    /// Looks at the settings, says what comes of them, and ends.
    #[arg(long)]
    check: bool,
}

/// What was asked for makes no sense: the same exit code as for wrong arguments.
const MISUSE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { config, listen, upstream, log_format, check } = Arguments::parse();
    if let Err(mistake) = log::start(log_format) {
        eprintln!("relay: {mistake}");
        return ExitCode::from(MISUSE);
    }
    let source = Source { config, instead: Instead { listen, upstream } };
    let (settings, planned) = match source.read() {
        Ok(read) => read,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(MISUSE);
        }
    };
    if check {
        for remark in settings.remarks.iter().map(String::as_str).chain(planned.warnings().iter().map(String::as_str)) {
            eprintln!("relay: {remark}");
        }
        print!("{}", planned.describe());
        return ExitCode::SUCCESS;
    }
    match server::run(source, settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where the settings come from, each time that they are read.
pub(crate) struct Source {
    config: Option<PathBuf>,
    instead: Instead,
}

impl Source {
    /// The settings, and the layers that would come of them. The error is for people.
    pub(crate) fn read(&self) -> Result<(Settings, GeminiLayer), String> {
        let settings = match &self.config {
            None => Settings::built_in(&self.instead),
            Some(path) => Settings::load(path, &self.instead)?,
        };
        let planned = stack::plan(&settings).map_err(|error| match &self.config {
            None => error.to_string(),
            Some(path) => format!("{}: {error}", path.display()),
        })?;
        Ok((settings, planned))
    }
}
