//! Tests of the client against servers on loopback: connections, errors, and the bytes on the wire.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    error::Error,
    io::{Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{io::AsyncReadExt, net::TcpListener, sync::Barrier, time::timeout};
use tower::{Service, ServiceExt};
use tower_gemini::client::{Client, ClientBuilder, STREAMS};

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A limit that is long enough for a loaded machine. A passing test never waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback server that lets 100 streams in a connection, as Google does, and counts its connections.
async fn serve<F, Fut>(answer: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let response = answer(request);
                async { Ok::<_, std::convert::Infallible>(response.await) }
            });
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().timer(TokioTimer::new()).max_concurrent_streams(100);
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, connections)
}

fn client_of(address: SocketAddr) -> ClientBuilder {
    Client::builder().base_url(format!("http://{address}"))
}

fn text(text: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed())
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

/// Sends `calls` at once to a server that answers none before `meet` of them have arrived.
async fn meet(meet: usize, calls: usize, configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Option<usize> {
    let barrier = Arc::new(Barrier::new(meet));
    let (address, connections) = serve(move |_| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            text("met")
        }
    })
    .await;
    let client: Client<Full<Bytes>> = configure(client_of(address)).build().unwrap();
    let answers = join_all((0..calls).map(|_| client.clone().oneshot(get("/"))));
    let limit = if calls < meet { Duration::from_millis(300) } else { PATIENCE };
    let answers = timeout(limit, answers).await.ok()?;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert_eq!(client.in_flight(), 0);
    Some(connections.load(Ordering::SeqCst))
}

#[tokio::test]
async fn of_250_calls_at_once_none_waits_for_another() {
    let connections = meet(250, 250, ClientBuilder::http2_prior_knowledge).await;
    assert_eq!(connections, Some(250_usize.div_ceil(STREAMS)));
}

#[tokio::test]
async fn an_upstream_that_takes_fewer_streams_gets_more_connections() {
    let connections = meet(40, 40, |builder| builder.http2_prior_knowledge().streams(10)).await;
    assert_eq!(connections, Some(4));
}

#[tokio::test]
async fn past_the_last_connections_limit_the_least_loaded_one_is_used() {
    // Two connections hold 160 calls up to the threshold, and share the next 40 evenly.
    let connections = meet(200, 200, |builder| builder.http2_prior_knowledge().connections(2)).await;
    assert_eq!(connections, Some(2));
}

#[tokio::test]
async fn over_http_1_1_each_call_has_a_connection_and_nothing_is_limited() {
    let connections = meet(90, 90, |builder| builder.connections(1)).await;
    assert_eq!(connections, Some(90));
}

#[tokio::test]
async fn a_call_is_in_flight_until_its_body_ends_or_is_dropped() {
    let (address, connections) = serve(|_| async {
        let never_ends = futures_util::stream::pending::<Result<Frame<Bytes>, hyper::Error>>();
        Response::new(BodyExt::boxed(StreamBody::new(never_ends)))
    })
    .await;
    let client: Client<Full<Bytes>> = client_of(address).http2_prior_knowledge().build().unwrap();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(client.clone().oneshot(get("/")).await.unwrap());
    }
    assert_eq!((client.in_flight(), connections.load(Ordering::SeqCst)), (STREAMS, 1));

    let one_more = client.clone().oneshot(get("/")).await.unwrap();
    assert_eq!((client.in_flight(), connections.load(Ordering::SeqCst)), (STREAMS + 1, 2));

    drop((one_more, streams));
    assert_eq!(client.in_flight(), 0);
    let again = client.clone().oneshot(get("/")).await.unwrap();
    assert_eq!((client.in_flight(), connections.load(Ordering::SeqCst)), (1, 2), "the first one has room again");
    drop(again);

    let unanswered = client.clone().call(get("/"));
    assert_eq!(client.in_flight(), 1);
    drop(unanswered);
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test]
async fn a_body_read_to_its_end_is_no_longer_in_flight() {
    let (address, _) = serve(|_| async { text("all of it") }).await;
    for builder in [client_of(address), client_of(address).http2_prior_knowledge()] {
        let client: Client<Full<Bytes>> = builder.build().unwrap();
        let mut response = client.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(client.in_flight(), 1);
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(9));
        while let Some(frame) = response.frame().await {
            frame.unwrap();
        }
        assert_eq!(client.in_flight(), 0);
    }
}

/// Answers with the version, authority, path and Host of the request.
async fn echo(request: Request<Incoming>) -> Answer {
    let host = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap());
    let host = host.collect::<Vec<_>>().join(",");
    text(format!("{:?} {} [{host}]", request.version(), request.uri()))
}

#[tokio::test]
async fn a_request_goes_out_right_whatever_it_came_in_as() {
    let (address, _) = serve(echo).await;
    let at = address.to_string();
    for came_over in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3] {
        for uri in ["/v1/models?a=b", "https://relay.example:8787/v1/models?a=b"] {
            for (builder, expected) in [
                (client_of(address), format!("HTTP/1.1 /v1/models?a=b [{at}]")),
                (client_of(address).http2_prior_knowledge(), format!("HTTP/2.0 http://{at}/v1/models?a=b []")),
            ] {
                let mut request = get(uri);
                *request.version_mut() = came_over;
                request.headers_mut().insert(header::HOST, "relay.example:8787".parse().unwrap());
                let client: Client<Full<Bytes>> = builder.build().unwrap();
                let answer = client.oneshot(request).await.unwrap();
                let answer = answer.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(answer, expected, "{came_over:?} {uri}");
            }
        }
    }
}

#[tokio::test]
async fn a_base_urls_path_goes_before_the_requests_own() {
    let (address, _) = serve(echo).await;
    let client: Client<Full<Bytes>> = Client::builder().base_url(format!("http://{address}/gemini/")).build().unwrap();
    let answer = client.oneshot(get("/v1/models")).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answer, format!("HTTP/1.1 /gemini/v1/models [{address}]"));
}

/// Returns the first error of type `T` in a chain.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + Send + Sync + 'static)) -> Option<&'a T> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[tokio::test]
async fn a_refused_connection_is_a_connect_error_with_the_systems_own_inside() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for scheme in ["http", "https"] {
        let client: Client<Full<Bytes>> =
            Client::builder().base_url(format!("{scheme}://127.0.0.1:{port}")).build().unwrap();
        let error = client.clone().oneshot(get("/")).await.unwrap_err();
        assert!(find::<legacy::Error>(&*error).unwrap().is_connect());
        assert_eq!(find::<std::io::Error>(&*error).unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(client.in_flight(), 0);
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_is_a_connect_error() {
    let (address, _) = serve(|_| async { text("plain") }).await;
    let client: Client<Full<Bytes>> = Client::builder().base_url(format!("https://{address}")).build().unwrap();
    let error = client.oneshot(get("/")).await.unwrap_err();
    assert!(find::<legacy::Error>(&*error).unwrap().is_connect());
}

#[tokio::test]
async fn over_tls_http_2_is_offered_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client: Client<Full<Bytes>> = Client::builder().base_url(format!("https://localhost:{port}")).build().unwrap();
    let call = tokio::spawn(client.oneshot(get("/")));
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut hello = vec![0; 4096];
    let length = stream.read(&mut hello).await.unwrap();
    let hello = hello[..length].escape_ascii().to_string();
    assert!(hello.contains(r"\x02h2\x08http/1.1") && hello.contains("localhost"), "{hello}");
    call.abort();
}

/// The upstream's machine has gone without closing the connection.
#[tokio::test]
async fn a_dead_connection_is_found_by_pings() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let request = connection.accept().await;
        std::future::pending::<()>().await; // and nothing drives the connection any more
        drop((connection, request));
    });
    let builder = client_of(address).http2_prior_knowledge();
    let (interval, limit) = (Duration::from_millis(50), Duration::from_millis(50));
    let client: Client<Full<Bytes>> = builder.keep_alive_interval(interval).keep_alive_timeout(limit).build().unwrap();
    let error = timeout(PATIENCE, client.oneshot(get("/"))).await.expect("nobody noticed").unwrap_err();
    let hyper = find::<hyper::Error>(&*error).unwrap();
    assert!(hyper.is_timeout() || hyper.to_string().contains("keep-alive"), "{error:?}");
}

#[tokio::test]
async fn a_reset_stream_keeps_h2s_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    });
    let client: Client<Full<Bytes>> = Client::builder().base_url(base_url).http2_prior_knowledge().build().unwrap();
    let error = client.oneshot(get("/")).await.unwrap_err();
    assert!(!find::<legacy::Error>(&*error).unwrap().is_connect());
    assert!(find::<hyper::Error>(&*error).is_some());
    assert_eq!(find::<h2::Error>(&*error).unwrap().reason(), Some(h2::Reason::REFUSED_STREAM));
}

/// Runs on one thread, so that the client cannot see the close before it sends: the race that hidden retries conceal.
#[tokio::test(flavor = "current_thread")]
async fn a_pooled_connection_that_was_closed_surfaces_as_an_error_and_is_not_retried() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let step = Arc::new(std::sync::Barrier::new(2));
    let server = std::thread::spawn({
        let step = Arc::clone(&step);
        move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
            step.wait(); // the connection is in the pool
            drop(stream);
            step.wait(); // it is closed
            step.wait(); // the second call has ended
            listener.set_nonblocking(true).unwrap();
            listener.accept().is_ok()
        }
    });
    let mut client: Client<Full<Bytes>> = client_of(address).build().unwrap();
    let response = client.call(get("/")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    tokio::task::yield_now().await;
    step.wait();
    step.wait(); // the runtime stood still meanwhile
    // Its driver learns of the close, and this task runs before the connection's own.
    tokio::task::yield_now().await;

    let answer = timeout(PATIENCE, client.call(get("/"))).await;
    let error = answer.expect("it was sent again, to nobody").unwrap_err();
    step.wait();

    assert!(!find::<legacy::Error>(&*error).unwrap().is_connect(), "it was not a new connection that failed");
    assert!(find::<hyper::Error>(&*error).unwrap().is_canceled(), "nothing was sent: {error:?}");
    assert!(!server.join().unwrap(), "no second connection was made for it");
}

#[test]
fn what_cannot_work_is_refused_when_it_is_built() {
    let built = |builder: ClientBuilder| builder.build::<Full<Bytes>>().map(|_| ()).unwrap_err().to_string();
    assert!(built(Client::builder().base_url("generativelanguage")).contains("not a base URL"));
    assert!(built(Client::vertex("not a region")).contains("not a base URL"));
    assert!(built(Client::builder().connections(0)).contains("from 1 to 1024"));
    assert!(built(Client::builder().connections(usize::MAX)).contains("from 1 to 1024"));
    assert!(built(Client::builder().streams(0)).contains("at least 1"));
    assert!(built(Client::builder().connect_timeout(Duration::ZERO)).contains("connect_timeout is zero"));
}

#[test]
fn each_service_has_its_address() {
    let base = |builder: ClientBuilder| builder.build::<Full<Bytes>>().unwrap().base_url().to_owned();
    assert_eq!(base(Client::builder()), "https://generativelanguage.googleapis.com");
    assert_eq!(base(Client::vertex("europe-west4")), "https://europe-west4-aiplatform.googleapis.com");
    assert_eq!(base(Client::vertex("eu")), "https://aiplatform.eu.rep.googleapis.com");
    assert_eq!(base(Client::vertex("global")), "https://aiplatform.googleapis.com");
    assert_eq!(base(Client::builder().base_url("http://127.0.0.1:80/gate/")), "http://127.0.0.1:80/gate");
}
