//! Listens, serves, and ends when it is told to.

use std::{
    io::{self, Write},
    time::Duration,
};

use axum::{middleware, serve::ListenerExt};
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tower_gemini::BoxError;

use crate::{proxy, settings::Settings, stack::stack};

/// How long calls in flight may take once the relay was told to end. Kubernetes waits 30 s before it kills.
const GRACE: Duration = Duration::from_secs(25);

/// Serves until SIGTERM or Ctrl-C, and then until the calls in flight have ended; a second signal ends at once.
pub(crate) async fn run(settings: Settings) -> Result<(), BoxError> {
    // First of all: a signal that comes early must not kill.
    let told = signals()?;
    let address = settings.listen;
    let service = stack(settings)?.layer(middleware::from_fn(proxy::pass));

    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    stdout.flush()?;

    // Without it, small chunks wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let serving = axum::serve(listener, service).with_graceful_shutdown(count(told.clone(), 1));
    let patience = async {
        count(told.clone(), 1).await;
        tokio::select! {
            () = sleep(GRACE) => format!("calls still in flight after {GRACE:?} were broken off"),
            () = count(told, 2) => "told to end twice: calls in flight were broken off".to_owned(),
        }
    };
    tokio::select! {
        ended = serving.into_future() => Ok(ended?),
        broken_off = patience => Err(broken_off.into()),
    }
}

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
