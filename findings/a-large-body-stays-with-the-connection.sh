#!/usr/bin/env bash
# hyper's HTTP/1.1 server keeps the buffer that the largest body made it grow to: one prompt with a picture, and an idle connection costs half a megabyte.
#
# Guess: a kept connection that waits for its next request needs some 20 KB, or gives back what a large body took when small ones follow.
# Is: after small requests a connection holds 20 KB (28 KB of hyper-util's auto Builder); after a single body of 8 MB that the handler read piece by piece and
#   dropped, 430 to 520 KB, and as much after 50 small requests more. max_buf_size(65,536) makes 77 KB of it; it bounds the
#   largest head as well.
# Version: hyper 1.12.0, hyper-util 0.1.21; bytes are counted in the allocator.
# Matters: callers of Gemini send pictures and PDFs inline, now and then, over connections that they keep. 10,000 of them are 5 GB of a relay that
#   does nothing, and every load test with short prompts says 280 MB.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
hyper = { version = "=1.12.0", features = ["http1", "server"] }
hyper-util = { version = "=0.1.21", features = ["http1", "http2", "server-auto", "tokio"] }
http-body-util = "0.1"
tokio = { version = "1", features = ["io-util", "macros", "net", "rt", "time"] }
EOF
cat > src/main.rs <<'EOF'
use http_body_util::{BodyExt, Full};
use hyper::{body::{Bytes, Incoming}, server::conn::http1, service::service_fn, Request, Response};
use hyper_util::{rt::{TokioExecutor, TokioIo}, server::conn::auto};
use std::{alloc::{GlobalAlloc, Layout, System}, sync::atomic::{AtomicIsize, Ordering::Relaxed}, time::Duration};
use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::{TcpListener, TcpStream}};

struct Counting;
static HELD: AtomicIsize = AtomicIsize::new(0);
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 { HELD.fetch_add(layout.size() as isize, Relaxed); System.alloc(layout) }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) { HELD.fetch_sub(layout.size() as isize, Relaxed); System.dealloc(at, layout) }
}
#[global_allocator]
static ALLOCATOR: Counting = Counting;

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    while let Some(frame) = request.body_mut().frame().await { frame?; }
    Ok(Response::new(Full::new(Bytes::from_static(b"done"))))
}

async fn post(stream: &mut TcpStream, length: usize) {
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &vec![b'x'; length]].concat()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"done") { stream.read_buf(&mut got).await.unwrap(); }
}

/// Returns the bytes that one idle connection holds after a body of `length` and `small` requests with short ones.
async fn held(server: &'static str, length: usize, small: usize) -> isize {
    const CONNECTIONS: usize = 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            let io = TokioIo::new(listener.accept().await.unwrap().0);
            tokio::spawn(async move {
                let _ = match server {
                    "auto" => auto::Builder::new(TokioExecutor::new()).serve_connection(io, service_fn(answer)).await.is_ok(),
                    "http1" => http1::Builder::new().serve_connection(io, service_fn(answer)).await.is_ok(),
                    _ => http1::Builder::new().max_buf_size(65_536).serve_connection(io, service_fn(answer)).await.is_ok(),
                };
            });
        }
    });
    let (mut kept, mut before) = (Vec::new(), 0);
    // The first connection pays for what all share.
    for connection in 0..=CONNECTIONS {
        if connection == 1 { before = HELD.load(Relaxed); }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        post(&mut stream, length).await;
        for _ in 0..small { post(&mut stream, 10).await; }
        kept.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let held = (HELD.load(Relaxed) - before) / CONNECTIONS as isize;
    println!("{server}: a body of {length} bytes, then {small} short ones: {held} bytes a connection");
    accepting.abort();
    drop(kept);
    tokio::time::sleep(Duration::from_millis(50)).await;
    held
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    assert!((10_000..40_000).contains(&held("http1", 10, 50).await));
    assert!((10_000..40_000).contains(&held("auto", 10, 50).await));
    for (server, range) in [("http1", 200_000..900_000), ("auto", 200_000..900_000), ("http1, max_buf_size 65536", 40_000..200_000)] {
        for small in [0, 50] {
            assert!(range.contains(&held(server, 8_000_000, small).await));
        }
    }
    println!("hyper 1.12.0: as found");
}
EOF
cargo run --quiet
