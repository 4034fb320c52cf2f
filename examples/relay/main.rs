//! A relay to Gemini made of this crate's layers: callers see answers where the API gives errors.
//!
//! ```text
//! cargo run --release --example relay                        # answers from the embedded emulator
//! cargo run --release --example relay -- --config relay.toml
//! curl http://127.0.0.1:8787/v1beta/models/gemini-2.5-flash:generateContent \
//!     -H 'content-type: application/json' -d '{"contents": [{"parts": [{"text": "hello"}]}]}'
//! ```
//!
//! The file, with its defaults; every line is optional:
//!
//! ```toml
//! listen = "127.0.0.1:8787"          # port 0: any
//! upstream = "https://generativelanguage.googleapis.com"   # or "emulator"
//! max_body = "32MiB"
//! default_project = "p1"              # of files and cached contents that the relay has not seen made; the first key's
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
//! (Keys, fallbacks and limits have no defaults; what stands there are examples.)
//!
//! What is going on stands at `/` for people, at `/status` as JSON and at `/metrics` for Prometheus; `alerts.yml` and
//! `dashboard.json` beside this file are made for that. None of them asks for a credential: do not let the public see them.
//!
//! `stack.rs` is the part worth copying. SDKs are pointed at the relay by their base URL, with any key: it never goes on.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::settings::Settings;

mod breaker;
mod failures;
mod fallback;
mod keys;
mod limits;
mod linger;
mod metrics;
mod precheck;
mod proxy;
mod server;
mod settings;
mod stack;
mod status;
mod toml_file;
mod what_to_do;
mod wrong;

/// A relay to Gemini that answers where the API gives errors.
#[derive(Parser)]
struct Arguments {
    /// The settings, a TOML file; without one, the embedded emulator answers.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What was asked for makes no sense: the same exit code as for wrong arguments.
const MISUSE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match Arguments::parse().config {
        None => Settings::built_in(),
        Some(path) => match Settings::load(&path) {
            Ok(settings) => settings,
            Err(mistakes) => {
                eprintln!("{mistakes}");
                return ExitCode::from(MISUSE);
            }
        },
    };
    for remark in &settings.remarks {
        eprintln!("relay: {remark}");
    }
    match server::run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}
