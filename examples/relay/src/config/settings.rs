//! All settings of the relay.
//!
//! Every mistake is found before anything is started, and all of them are reported at once, each with its line and with
//! what would be right. Reading parses: a URL has become a client, a table of retries a policy.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use toml::Table;
use tower_gemini::{
    circuit_breaker::CircuitBreakers, model_fallback::ModelFallbackLayer, prices::Prices, rate_limit::LimiterBuilder,
    replay::ReplayLayer,
};

use crate::config::{
    access::Access,
    breaker, callers,
    diagnostics::{Diagnostics, Place},
    errors::Errors,
    fallback,
    hidden::Hidden,
    keys::{self, Keys},
    limits,
    memory::Memory,
    named,
    operators::OperatorAccess,
    precheck::{self, Precheck},
    prices,
    retry::{self, Retries},
    server::Server,
    state,
    store::{self, StoreSettings},
    store_address::StoreAddress,
    telemetry::{self, TelemetrySettings},
    timeout::{self, Timeouts},
    toml::{KnownNames, Section},
    upstream::{Upstream, upstream},
    values::size,
};

/// All settings, as the relay uses them.
pub(crate) struct Settings {
    pub(crate) server: Server,
    pub(crate) access: Access,
    pub(crate) operators: OperatorAccess,
    pub(crate) prices: Prices,
    pub(crate) errors: Errors,
    pub(crate) upstream: Upstream,
    /// The most bytes that a request's body may have.
    pub(crate) max_body: usize,
    /// The memory in which bodies are kept.
    pub(crate) memory: Memory,
    pub(crate) keys: Keys,
    pub(crate) retry: Retries,
    pub(crate) timeout: Timeouts,
    pub(crate) limits: LimiterBuilder,
    /// The breakers, unless they are disabled.
    pub(crate) breaker: Option<CircuitBreakers>,
    pub(crate) precheck: Precheck,
    pub(crate) fallback: ModelFallbackLayer,
    pub(crate) telemetry: TelemetrySettings,
    /// The store that several relays share, if there is one.
    pub(crate) store: Option<StoreSettings>,
    /// The file in which everything learned is kept over a restart.
    pub(crate) state: Option<PathBuf>,
    /// Settings that are not wrong but may surprise.
    pub(crate) remarks: Vec<String>,
    /// The secrets of the file, which nothing that is said of it repeats.
    hidden: Hidden,
    /// The file as it was read, to compare it with the next one.
    file: Table,
}

/// Settings of the command line or the environment, which hold in place of the file's.
#[derive(Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) operator_listen: Option<SocketAddr>,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) store: Option<StoreAddress>,
    /// The folder at which relative paths of the file begin.
    pub(crate) folder: Option<PathBuf>,
}

/// A part of the settings under which the relay learns something. A reload asks of each whether it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    Upstream,
    Keys,
    Limits,
    Breaker,
    Precheck,
    Fallback,
    Store,
}

impl Topic {
    const fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Keys => "keys",
            Self::Limits => "limits",
            Self::Breaker => "breaker",
            Self::Precheck => "precheck",
            Self::Fallback => "fallback",
            Self::Store => "store",
        }
    }
}

const NAMES: KnownNames = &[
    (
        "",
        &[
            "listen",
            "operator_listen",
            "operator_token",
            "upstream",
            "max_body",
            "max_kept",
            "max_kept_per_caller",
            "default_project",
            "cache_affinity",
            "session_header",
            "client_tokens",
            "callers",
            "shared_files",
            "prices",
            "allowed_origins",
            "max_concurrent_per_caller",
            "max_concurrent",
            "max_queued",
            "header_timeout",
            "body_timeout",
            "unread_timeout",
            "max_connections",
            "max_connections_per_address",
            "lame_duck",
            "drain",
            "keep_alive",
            "stream_ending",
            "openai_errors",
            "keys",
            "fallback",
            "retry",
            "timeout",
            "limits",
            "breaker",
            "precheck",
            "telemetry",
            "store",
            "state",
        ],
    ),
    ("keys", keys::NAMES),
    ("fallback", fallback::NAMES),
    ("fallback.larger", fallback::LARGER_NAMES),
    ("retry", retry::NAMES),
    ("timeout", timeout::NAMES),
    ("precheck", precheck::NAMES),
    ("telemetry", telemetry::NAMES),
    ("store", store::NAMES),
    ("breaker", breaker::NAMES),
    ("limits", limits::NAMES),
    ("limits.default", limits::TABLE_NAMES),
    // After the others: a name that is known elsewhere, too, rather belongs there.
    ("callers", callers::NAMES),
    ("prices", prices::NAMES),
    ("prices.model", prices::MODEL_NAMES),
    ("prices.model.long", prices::LONG_NAMES),
];

impl Settings {
    /// Reads the text of a file.
    pub(crate) fn parse(text: &str, overrides: &Overrides) -> Result<Self, Diagnostics> {
        let hidden = Hidden::of(text);
        let diagnostics = Diagnostics::hiding(hidden.clone());
        let Some(mut file) = Section::file(text, NAMES, &diagnostics) else { return Err(diagnostics) };

        let [listen_at, operators_at, upstream_at] =
            ["listen", "operator_listen", "upstream"].map(|name| file.place_of(name));
        let mut server = Server::read(&mut file);
        server.listen = overrides.listen.unwrap_or(server.listen);
        server.operator_listen = overrides.operator_listen.or(server.operator_listen);
        let upstream = file.get("upstream", upstream);
        let upstream = overrides.upstream.clone().or(upstream).unwrap_or_default();
        let max_body = file.get("max_body", size).unwrap_or(ReplayLayer::MAX_BODY);
        let memory = Memory::read(&mut file, max_body);
        // The key of the embedded emulator is no secret.
        let has_keys = file.has("keys");
        let keys = keys::read(&mut file, upstream.is_emulator());
        let retry = file.section("retry").map(retry::read).unwrap_or_default();
        let timeout = file.section("timeout").map(timeout::read).unwrap_or_default();
        let prices = file.section("prices").map(prices::read);
        let own = keys.secrets().map(|(key, _)| key).filter(|_| has_keys);
        let access = Access::read(&mut file, timeout.total, own, prices.as_ref());
        let prices = prices.unwrap_or_default();
        let own = keys.secrets().map(|(key, _)| key).filter(|_| has_keys);
        let operators = OperatorAccess::read(&mut file, server.operator_listen, &access.callers, own);
        let errors = Errors::read(&mut file);
        let limits = read_limits(&mut file, timeout.total);
        let breaker = file.section("breaker").map_or_else(|| Some(CircuitBreakers::new()), breaker::read);
        let precheck = file.section("precheck").map(precheck::read).unwrap_or_default();
        let fallback = file.section("fallback").map_or_else(ModelFallbackLayer::disabled, fallback::read);
        let telemetry = file.section("telemetry").map(telemetry::read).unwrap_or_default();
        let store = StoreSettings::read(&mut file, overrides.store.as_ref());
        let state = state::read(&mut file, overrides.folder.as_deref());
        check_addresses(&file, &server, operators_at.or(listen_at.clone()));
        if !server.listen.ip().is_loopback() && access.callers.is_empty() && !upstream.is_emulator() {
            let remark = format!(
                "listen: whoever reaches {} may call, and spends the relay's keys; set client_tokens or [[callers]]",
                server.listen
            );
            diagnostics.remark(listen_at.filter(|_| overrides.listen.is_none()), remark);
        }
        let upstream_at = upstream_at.filter(|_| overrides.upstream.is_none());
        for remark in upstream.remarks().into_iter().map(|remark| format!("upstream: {remark}")) {
            match &upstream_at {
                Some(place) => file.remark_at(place.clone(), remark),
                None => file.remark(remark),
            }
        }
        file.finish();

        let remarks = diagnostics.into_remarks(text)?;
        let file = text.parse().unwrap_or_default(); // it has been parsed already
        Ok(Self {
            server,
            access,
            operators,
            prices,
            errors,
            upstream,
            max_body,
            memory,
            keys,
            retry,
            timeout,
            limits,
            breaker,
            precheck,
            fallback,
            telemetry,
            store,
            state,
            remarks,
            hidden,
            file,
        })
    }

    /// Describes the settings and the layers that come of them, a line each, without their secrets.
    pub(crate) fn describe(&self, layers: &impl fmt::Display) -> Vec<String> {
        let own = [
            self.access.origins.describe(),
            self.access.callers.describe(),
            self.server.describe_keep_alive(),
            Some(self.memory.describe()),
            self.errors.describe(),
            self.store.as_ref().map(StoreSettings::describe),
        ];
        let layers = layers.to_string();
        let lines = own.iter().flatten().map(String::as_str).chain(layers.lines());
        lines.map(|line| self.hidden.clean(line)).collect()
    }

    /// Returns the models that the file names.
    pub(crate) fn models(&self) -> Vec<&str> {
        named::models(&self.file)
    }

    /// Returns whether both files say the same of a topic.
    pub(crate) fn agree_on(&self, topic: Topic, other: &Self) -> bool {
        self.file.get(topic.name()) == other.file.get(topic.name())
    }
}

/// Refuses one address for both listeners. `place` is the one of a setting that has it.
fn check_addresses(file: &Section<'_>, server: &Server, place: Option<Place>) {
    let (Server { listen, operator_listen: Some(operators), .. }, Some(place)) = (server, place) else { return };
    let one_ip = listen.ip() == operators.ip() || listen.ip().is_unspecified() || operators.ip().is_unspecified();
    if listen.port() == operators.port() && listen.port() != 0 && one_ip {
        let mistake =
            format!("operator_listen is {operators}, and callers are listened to on {listen}: give each a port");
        file.mistake(place, mistake);
    }
}

fn read_limits(file: &mut Section<'_>, total_timeout: Duration) -> LimiterBuilder {
    match file.section("limits") {
        Some(section) => limits::read(section, total_timeout),
        None => limits::usual(),
    }
}
