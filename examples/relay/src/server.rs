//! Listens, serves, and ends when it is told to.

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
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tower::{ServiceExt, service_fn};
use tower_gemini::{BoxError, key_pool::KeyState};

use crate::{Source, house::House, log, proxy, settings::Settings, status};

/// Serves until SIGTERM or Ctrl-C, and then until the calls in flight have ended; a second signal ends at once. SIGHUP reads
/// the settings again.
pub(crate) async fn run(source: Source, settings: Settings) -> Result<(), BoxError> {
    // First of all: a signal that comes early must not kill.
    let told = signals()?;
    let hung_up = hung_up()?;
    let address = settings.listen;
    let house = Arc::new(House::new(source, settings)?);
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    stdout.flush()?;
    tokio::spawn(reload(hung_up, house.clone()));

    let app = app(house.clone(), told.clone(), status::router(house.clone())?);
    let graceful = GracefulShutdown::new();
    // By then, whoever asks whether it is ready has been told no, and sends nobody any more.
    let closing = {
        let (told, house) = (told.clone(), house.clone());
        async move {
            count(told.clone(), 1).await;
            tokio::select! {
                () = sleep(house.now().settings.lame_duck) => {}
                () = count(told, 2) => {}
            }
        }
    };
    tokio::pin!(closing);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut closing => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let header_timeout = house.now().settings.header_timeout;
                let served = serve(stream, peer, app.clone(), header_timeout, &graceful);
                tokio::spawn(served);
            }
            // Out of file descriptors, or a peer that has gone again: neither is for ever.
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
    drop(listener);
    let grace = house.now().settings.drain;
    tracing::info!(grace = %humantime::format_duration(grace), "told to end: calls in flight may end");
    tokio::select! {
        () = graceful.shutdown() => Ok(()),
        () = sleep(grace) => Err(format!("calls still in flight after {grace:?} were broken off").into()),
        () = count(told, 2) => Err("told to end twice: calls in flight were broken off".into()),
    }
}

/// Everything that is served: the API, and what those ask who look after the relay.
fn app(house: Arc<House>, told: watch::Receiver<u32>, pages: Router) -> Router {
    let watched = house.clone();
    let ready = move || {
        let ready = readiness(&watched, *told.borrow() > 0);
        async move { ready }
    };
    let calls = service_fn(move |request: Request| house.now().service.clone().oneshot(request));
    let calls = Router::new()
        .fallback_service(calls)
        .layer(middleware::from_fn(proxy::pass))
        .layer(middleware::from_fn(log::line));
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        // No caller's token opens them.
        .merge(pages)
        .fallback_service(calls)
}

/// Whether new calls should come here.
fn readiness(house: &House, ends: bool) -> (StatusCode, &'static str) {
    let stack = house.now();
    let keys = stack.gemini.keys().map(|pool| pool.snapshot()).unwrap_or_default();
    // Out of quota is no reason: that is so for some models only, and is told to callers in their own terms.
    let usable = keys.iter().any(|key| !matches!(key.state, KeyState::Disabled { .. }));
    match (ends, usable) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: told to end\n"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: the upstream refuses every key\n"),
        (false, true) => (StatusCode::OK, "ready\n"),
    }
}

/// One connection, to its end.
fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    header_timeout: Duration,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + use<> {
    // Without it, small chunks wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let heard = Arc::new(Notify::new());
    let hear = heard.clone();
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        hear.notify_one();
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
        // hyper's own clock starts only when it knows the protocol.
        let first = timeout(header_timeout, heard.notified());
        let heard = tokio::select! {
            _ = &mut connection => return,
            first = first => first.is_ok(),
        };
        if heard {
            // Errors are peers that went away, or wrote what is no HTTP and have been told so.
            let _ = connection.await;
        }
    }
}

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

// === signals ===

/// How often the relay has been told to end.
fn signals() -> io::Result<watch::Receiver<u32>> {
    #[cfg(unix)]
    let (mut terminate, mut interrupt) = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    #[cfg(windows)]
    let (mut terminate, mut interrupt) = {
        use tokio::signal::windows::{ctrl_c, ctrl_close};
        (ctrl_close()?, ctrl_c()?)
    };
    let (tell, told) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tell.send_modify(|times| *times += 1);
        }
    });
    Ok(told)
}

async fn count(mut told: watch::Receiver<u32>, times: u32) {
    // The sender lives as long as the runtime.
    let _ = told.wait_for(|told| *told >= times).await;
}

#[cfg(unix)]
type HungUp = tokio::signal::unix::Signal;
#[cfg(windows)]
type HungUp = ();

#[cfg(unix)]
fn hung_up() -> io::Result<HungUp> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::hangup())
}

#[cfg(windows)]
fn hung_up() -> io::Result<HungUp> {
    Ok(()) // there is no such signal
}

#[cfg(unix)]
async fn reload(mut hung_up: HungUp, house: Arc<House>) {
    while hung_up.recv().await.is_some() {
        house.reload();
    }
}

#[cfg(windows)]
async fn reload((): HungUp, _: Arc<House>) {}
