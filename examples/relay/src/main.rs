//! A relay to Gemini, made of the layers of `tower-gemini`: callers get answers where the API gives errors.
//!
//! ```text
//! cargo run --release --bin relay                        # answers from the embedded emulator
//! cargo run --release --bin relay -- --config relay.toml
//! curl http://127.0.0.1:8787/v1beta/models/gemini-2.5-flash:generateContent \
//!     -H 'content-type: application/json' -d '{"contents": [{"parts": [{"text": "hello"}]}]}'
//! ```
//!
//! `README.md` beside this folder has all settings, and says how the relay is run and watched.
//!
//! - `config/` reads the settings, and knows nothing of the rest.
//! - `serve/` serves calls. Its `stack.rs` is the part worth copying: all layers around a transport, and what of them a
//!   reload keeps.
//! - `show/` says what is going on: a page, JSON, and metrics. It reads the handles of the layers alone.

use std::{fmt, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::{
    config::{Overrides, Plan, Source, StoreAddress, Upstream},
    serve::log,
};

mod config;
mod serve;
mod show;

/// A relay to Gemini that answers where the API gives errors.
#[derive(Parser)]
struct Arguments {
    /// The settings, a TOML file; without one, the embedded emulator answers.
    #[arg(long, value_name = "FILE", env = "RELAY_CONFIG")]
    config: Option<PathBuf>,
    /// The address to listen on, in place of the file's: an IP address and a port.
    #[arg(long, value_name = "ADDRESS", env = "RELAY_LISTEN")]
    listen: Option<SocketAddr>,
    /// The address of the pages for operators, in place of the file's.
    #[arg(long, value_name = "ADDRESS", env = "RELAY_OPERATOR_LISTEN")]
    operator_listen: Option<SocketAddr>,
    /// The server that answers, in place of the file's: a URL, or "emulator".
    #[arg(long, value_name = "URL", env = "RELAY_UPSTREAM", requires = "config")]
    upstream: Option<String>,
    /// The server on which several relays count one quota, in place of the file's: a redis:// URL. One with a password
    /// belongs in the variable, as everybody on the machine sees arguments.
    #[arg(long, value_name = "URL", env = "RELAY_STORE_REDIS", hide_env_values = true)]
    store_redis: Option<String>,
    /// The form of the log, on standard error; RUST_LOG says how much is logged.
    #[arg(long, value_enum, default_value_t, env = "RELAY_LOG_FORMAT")]
    log_format: log::Format,
    /// Reads the settings, prints the layers that come of them, and ends.
    #[arg(long)]
    check: bool,
    /// Asks the relay that runs at the same address whether it is alive, and ends: for containers without a shell.
    #[arg(long, conflicts_with = "check")]
    health_check: bool,
}

/// The exit code for wrong settings: the same as for wrong arguments.
const MISUSE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { config, listen, operator_listen, upstream, store_redis, log_format, check, health_check } =
        Arguments::parse();
    if let Err(mistake) = log::start(log_format) {
        eprintln!("relay: {mistake}");
        return ExitCode::from(MISUSE);
    }
    // It may hold a secret, which an error of the arguments' reader would repeat.
    let upstream: Option<Upstream> = match upstream.map(|text| text.parse()).transpose() {
        Ok(upstream) => upstream,
        Err(mistake) => {
            eprintln!("relay: --upstream or RELAY_UPSTREAM: {mistake}");
            return ExitCode::from(MISUSE);
        }
    };
    let store: Option<StoreAddress> = match store_redis.map(|text| text.parse()).transpose() {
        Ok(store) => store,
        Err(mistake) => {
            eprintln!("relay: --store-redis or RELAY_STORE_REDIS: {mistake}");
            return ExitCode::from(MISUSE);
        }
    };
    let source =
        Source { file: config, overrides: Overrides { listen, operator_listen, upstream, store, folder: None } };
    // It needs neither keys nor a file where the environment says the address, and works while a file is being changed.
    if let (true, Some(listen)) = (health_check, listen) {
        return ended(serve::health_check(listen));
    }
    let plan = match source.read_first() {
        Ok(plan) => plan,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(MISUSE);
        }
    };
    if check {
        print_plan(&plan);
        return ExitCode::SUCCESS;
    }
    if health_check {
        return ended(serve::health_check(plan.settings.server.listen));
    }
    ended(serve::run(source, plan).await)
}

fn ended(result: Result<(), impl fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_plan(plan: &Plan) {
    for remark in plan.remarks() {
        eprintln!("relay: {remark}");
    }
    for line in plan.settings.describe(&plan.layers.describe()) {
        println!("{line}");
    }
}
