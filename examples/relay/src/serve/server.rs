//! The server: listens, serves connections, and ends when it is told to.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, http::StatusCode, middleware, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_gemini::{BoxError, key_pool::KeyState};

use crate::{
    config::{Plan, Source},
    serve::{
        current::Current,
        headers, log,
        peer::Peer,
        proxy,
        signals::{Termination, Wish, Wishes},
    },
    show,
};

/// Serves until SIGTERM or Ctrl-C, and then until the calls in flight have ended; a second signal ends at once. SIGHUP
/// reads the settings again, and SIGUSR1 lifts what is parked.
pub(crate) async fn run(source: Source, plan: Plan) -> Result<(), BoxError> {
    // A signal that comes early must not kill, so this is first.
    let termination = Termination::listen()?;
    let wishes = Wishes::listen()?;
    let address = plan.settings.server.listen;
    let current = Arc::new(Current::new(source, plan)?);
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    stdout.flush()?;
    tokio::spawn(obey(wishes, current.clone()));

    let app = app(&current, termination.clone())?;
    let graceful = GracefulShutdown::new();
    accept(listener, &current, &termination, app, &graceful).await;
    let drain = current.stack().settings.server.drain;
    tracing::info!(drain = %humantime::format_duration(drain), "shutting down: waiting for calls in flight to end");
    tokio::select! {
        () = graceful.shutdown() => Ok(()),
        () = sleep(drain) => Err(format!("calls still in flight after {drain:?} were broken off; raise drain").into()),
        () = termination.second() => Err("a second signal to end: calls in flight were broken off".into()),
    }
}

/// Does what the operator wishes.
async fn obey(mut wishes: Wishes, current: Arc<Current>) {
    loop {
        match wishes.next().await {
            Wish::Reload => current.reload(),
            Wish::Lift => current.lift(),
        }
    }
}

/// Accepts connections until the relay was told to end, and its lame duck time after that is over.
async fn accept(
    listener: TcpListener,
    current: &Current,
    termination: &Termination,
    app: Router,
    graceful: &GracefulShutdown,
) {
    // By its end, load balancers have seen /readyz fail, and send no more calls.
    let closing = async {
        termination.first().await;
        tokio::select! {
            () = sleep(current.stack().settings.server.lame_duck) => {}
            () = termination.second() => {}
        }
    };
    tokio::pin!(closing);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut closing => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let header_timeout = current.stack().settings.server.header_timeout;
                tokio::spawn(connection(stream, peer, app.clone(), header_timeout, graceful));
            }
            // Too few file descriptors, or a peer that has left: neither lasts.
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Routes everything that is served: the API, health, and what is shown.
fn app(current: &Arc<Current>, termination: Termination) -> Result<Router, BoxError> {
    let (shown, rules) = (current.clone(), current.clone());
    let telemetry = current.stack().telemetry().gauges();
    let conventions = current.telemetry().conventions;
    let pages = show::router(telemetry, conventions, move || shown.stack().shown())?;
    let watched = current.clone();
    let ready = move || {
        let ready = readiness(&watched, termination.has_begun());
        async move { ready }
    };
    let (current, kept, keys) = (current.clone(), current.clone(), current.clone());
    let calls = service_fn(move |request: Request| current.stack().service.clone().oneshot(request));
    let calls = Router::new()
        .fallback_service(calls)
        .layer(middleware::from_fn(move |request, next| {
            let keys = keys.stack().known_keys();
            async move { proxy::pass(request, next, keys).await }
        }))
        .layer(middleware::from_fn(log::line));
    // Outside of the log, which has the true status of a call whose head went out early.
    let calls = service_fn(move |request: Request| {
        let layer = kept.stack().settings.server.keep_alive_layer();
        let calls = calls.clone();
        async move {
            match layer {
                Some(layer) => layer.layer(calls).oneshot(request).await.map(|response| response.map(Body::new)),
                None => calls.oneshot(request).await,
            }
        }
    });
    // Outside of everything that answers, and of the log: a preflight is no call.
    let calls = Router::new().fallback_service(calls).layer(middleware::from_fn(move |request, next| {
        let stack = rules.stack();
        async move { stack.cors.pass(request, next).await }
    }));
    Ok(Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        // No caller's token opens them.
        .merge(pages)
        .route_layer(middleware::from_fn(headers::with_host))
        .fallback_service(calls))
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

/// Serves one connection to its end.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    header_timeout: Duration,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + use<> {
    // Without it, a small chunk waits for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let arrived = Arc::new(Notify::new());
    let arrival = arrived.clone();
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        arrival.notify_one();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        app.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
    let connection = graceful.watch(connection);
    async move {
        tokio::pin!(connection);
        // hyper's own timer starts only when it knows the protocol.
        let first_request = timeout(header_timeout, arrived.notified());
        let in_time = tokio::select! {
            _ = &mut connection => return,
            first = first_request => first.is_ok(),
        };
        if in_time {
            // Errors are peers that went away, or that wrote something other than HTTP and got an answer that says so.
            let _ = connection.await;
        }
    }
}
