//! The server: listens, serves connections, and ends when it is told to.

use std::{
    future::pending,
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware,
    response::IntoResponse,
    routing::{any, get},
};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tower::ServiceExt;
use tower_gemini::{BoxError, key_pool::KeyState};

use crate::{
    config::{Plan, Source},
    serve::{
        app::{self, Answer, OwnPages},
        connection::{refuse, serve},
        connection_life::Patience,
        connections::{Caps, Connections},
        current::Current,
        headers,
        lift::Lift,
        operators,
        signals::{Termination, Wish, Wishes},
        state::KeptState,
    },
    show,
};

/// The most connections of operators: Prometheus, a few browsers, and scripts.
const MOST_OF_OPERATORS: usize = 256;

/// Serves until SIGTERM or Ctrl-C, and then until the calls in flight have ended; a second signal ends at once. SIGHUP
/// reads the settings again, and SIGUSR1 lifts what is parked.
pub(crate) async fn run(source: Source, plan: Plan) -> Result<(), BoxError> {
    // A signal that comes early must not kill, so this is first.
    let termination = Termination::listen()?;
    let wishes = Wishes::listen()?;
    let (address, of_operators) = (plan.settings.server.listen, plan.settings.server.operator_listen);
    let current = Arc::new(Current::new(source, plan)?);
    let state = KeptState::take_up(&current).map(Arc::new);
    let listener = bind("listen", address).await?;
    let operators = match of_operators {
        Some(address) => Some(bind("operator_listen", address).await?),
        None => None,
    };
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    if let Some(operators) = &operators {
        writeln!(stdout, "operators on http://{}", operators.local_addr()?)?;
    }
    stdout.flush()?;
    tokio::spawn(obey(wishes, current.clone()));
    if let Some(state) = &state {
        tokio::spawn(state.clone().keep(current.clone()));
    }

    let connections = Connections::new();
    let (of_callers, pages) = pages(&current, &termination, &connections)?;
    // It serves to the very end, so that a drain can be watched, and ends with the relay: nobody waits for it.
    let mut to_the_end = JoinSet::new();
    if let Some(listener) = operators {
        let pages = operators::router(&current, listener.local_addr()?.ip(), pages);
        let pages = move |request| -> Answer {
            let answer = pages.clone().oneshot(request);
            Box::pin(async move { answer.await.into_response() })
        };
        let current = current.clone();
        // Connections of callers take none of theirs.
        let caps = |_: &Current| Caps { all: Some(MOST_OF_OPERATORS), per_address: None };
        let theirs = Connections::new();
        to_the_end.spawn(async move { accept(listener, &current, pending(), pages, &theirs, caps).await });
    }
    // By its end, load balancers have seen /readyz fail, and send no more calls.
    let closing = async {
        termination.first().await;
        tokio::select! {
            () = sleep(current.stack().settings.server.lame_duck) => {}
            () = termination.second() => {}
        }
    };
    let caps = |current: &Current| {
        let server = current.stack().settings.server;
        Caps { all: Some(server.max_connections), per_address: server.max_connections_per_address }
    };
    let app = {
        let current = current.clone();
        move |request| app::answer(&of_callers, &current, request)
    };
    accept(listener, &current, closing, app, &connections, caps).await;
    let drain = current.stack().settings.server.drain;
    tracing::info!(drain = %humantime::format_duration(drain), "shutting down: waiting for calls in flight to end");
    connections.end();
    let ended = tokio::select! {
        () = connections.ended() => Ok(()),
        () = sleep(drain) => match connections.snapshot().busy {
            // Those without a call are on their way out.
            0 => Ok(()),
            _ => Err(format!("calls still in flight after {drain:?} were broken off; raise drain").into()),
        },
        () = termination.second() => Err("a second signal to end: calls in flight were broken off".into()),
    };
    if let Some(state) = &state {
        state.save(&current).await;
    }
    ended
}

/// Does what the operator wishes.
async fn obey(mut wishes: Wishes, current: Arc<Current>) {
    loop {
        match wishes.next().await {
            // Both are in the log.
            Wish::Reload => drop(current.reload()),
            Wish::Lift => drop(current.lift(&Lift::default())),
        }
    }
}

/// Opens a listener; `setting` has its address.
async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{setting}: cannot listen on {address}: {error}"))
}

/// Accepts connections until `closing` is over, and refuses those beyond `caps`.
async fn accept(
    listener: TcpListener,
    current: &Current,
    closing: impl Future<Output = ()>,
    app: impl Fn(Request) -> Answer + Clone + Send + Sync + 'static,
    connections: &Connections,
    caps: impl Fn(&Current) -> Caps,
) {
    tokio::pin!(closing);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut closing => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let settings = &current.stack().settings;
                let (idle, unread) = (settings.server.header_timeout, settings.access.unread_timeout);
                match connections.enter(peer.ip(), caps(current)) {
                    Ok(place) => {
                        tokio::spawn(serve(stream, peer, app.clone(), Patience { idle, unread }, place));
                    }
                    Err(full) => {
                        tokio::spawn(refuse(stream, full, connections.clone()));
                    }
                }
            }
            // Too few file descriptors, or a peer that has left: neither lasts.
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Routes the pages that are served: to operators what is shown, the callers' connections included, to callers a word on
/// where that is, and health to both.
fn pages(
    current: &Arc<Current>,
    termination: &Termination,
    connections: &Connections,
) -> Result<(OwnPages, Router), BoxError> {
    let shown = current.clone();
    let gauges = current.stack().telemetry().gauges().watch(connections.clone());
    let pages = show::router(gauges, current.telemetry().conventions, move || shown.stack().shown())?;
    Connections::describe_metrics();
    let pages = health(current, termination).merge(pages).route_layer(middleware::from_fn(headers::with_host));
    // An old address of a page must not become a call, which would cost a key's quota.
    let elsewhere = || any(async || (StatusCode::NOT_FOUND, ELSEWHERE));
    let pages_elsewhere = show::PATHS.iter().fold(Router::new(), |router, path| router.route(path, elsewhere()));
    let router = health(current, termination).merge(pages_elsewhere);
    let router = router.route_layer(middleware::from_fn(headers::with_host));
    Ok((OwnPages { router, paths: HEALTH.into_iter().chain(show::PATHS).collect() }, pages))
}

/// The answer to callers that look for the operators' pages.
const ELSEWHERE: &str = "not here: the relay's pages are on the operators' listener, see operator_listen\n";

/// The paths of the two questions of health.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// Routes the questions whether the relay lives, and whether it is ready.
fn health(current: &Arc<Current>, termination: &Termination) -> Router {
    let (watched, termination) = (current.clone(), termination.clone());
    let ready = move || {
        let ready = readiness(&watched, termination.has_begun());
        async move { ready }
    };
    let [alive, are_ready] = HEALTH;
    Router::new().route(alive, get(async || "alive\n")).route(are_ready, get(ready))
}

/// Decides whether new calls should come here.
fn readiness(current: &Current, ends: bool) -> (StatusCode, &'static str) {
    let stack = current.stack();
    let keys = stack.gemini.keys().map(|pool| pool.snapshot()).unwrap_or_default();
    // A key that is out of quota counts as usable: it is so for some models only, and callers get a 429 that says so.
    let usable = keys.iter().any(|key| !matches!(key.state, KeyState::Disabled { .. }));
    match (ends, usable) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: shutting down\n"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: the upstream refuses every key\n"),
        (false, true) => (StatusCode::OK, "ready\n"),
    }
}
