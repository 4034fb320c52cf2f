#!/usr/bin/env bash
# A streamed image costs some readers of server-sent events time by the square of its size.
#
# Guess: one event of 8 MB (an image as inlineData) takes eight times as long to read as one of 1 MB.
# Is: forty times and more in @google/genai and in the crate eventsource-stream, where one of 2 MB takes over a second, optimised. With
#   each piece that arrives, they search their whole buffer for an end from the start (@google/genai for three kinds of end).
#   eventsource-parser (npm) and sseer (crate) go on where they stopped: 62 ms and less. In JavaScript the event loop is blocked
#   meanwhile, for all other calls of the process.
# Version: @google/genai 3.3.0, eventsource-parser 4.1.3, eventsource-stream 0.2.3 (in async-openai 0.43, gemini-rust 2.1,
#   adk-gemini 2.3 and reqwest-eventsource 0.6), sseer 0.3.1.
# Matters: the time goes by size times number of pieces. A relay that passes a stream on in smaller pieces than it got makes it worse;
#   time-outs of the client then look like a slow model.
set -euo pipefail
dir=$(mktemp -d); server=; trap 'kill $server 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --no-audit --no-fund --loglevel=error --ignore-scripts @google/genai@3.3.0 eventsource-parser@4.1.3 >/dev/null
cat > server.py <<'EOF'
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        size = int(self.path.split("/")[1])
        event = '{"candidates":[{"content":{"role":"model","parts":[{"inlineData":{"mimeType":"image/png","data":"%s"}}]},"finishReason":"STOP"}]}'
        body = ("data: " + event % ("A" * size) + "\r\n\r\n").encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for i in range(0, len(body), 8192):
            piece = body[i:i + 8192]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
EOF
cat > client.mjs <<'EOF'
import { GoogleGenAI } from "@google/genai";
import { createParser } from "eventsource-parser";
const base = (size) => `http://127.0.0.1:${process.argv[2]}/${size}`;
async function sdk(size) {
  const ai = new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: base(size) } });
  let n = 0;
  for await (const chunk of await ai.models.generateContentStream({ model: "m", contents: "hi" }))
    n += chunk.candidates[0].content.parts[0].inlineData.data.length;
  return n;
}
async function parser(size) {
  let n = 0;
  const { feed } = createParser({ onEvent: (event) => (n += JSON.parse(event.data).candidates[0].content.parts[0].inlineData.data.length) });
  const decoder = new TextDecoder();
  for await (const piece of (await fetch(base(size), { method: "POST", body: "{}" })).body) feed(decoder.decode(piece, { stream: true }));
  return n;
}
async function best(read, size) {
  let least = Infinity;
  for (let i = 0; i < 3; i++) {
    const start = process.cpuUsage();
    if ((await read(size)) !== size) throw new Error("incomplete");
    const { user, system } = process.cpuUsage(start);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}
await best(sdk, 1 << 16);
await best(parser, 1 << 16);
const [a, b, c, d] = [await best(sdk, 1 << 20), await best(sdk, 8 << 20), await best(parser, 1 << 20), await best(parser, 8 << 20)];
console.log(`@google/genai 3.3.0: 1 MB ${a | 0} ms, 8 MB ${b | 0} ms; eventsource-parser 4.1.3: ${c | 0} ms, ${d | 0} ms (processor time)`);
process.exit(b > 16 * a && b > 5 * d ? 0 : 1);
EOF
python3 server.py > port & server=$!
until [ -s port ]; do sleep 0.1; done
node client.mjs "$(cat port)"

mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
eventsource-stream = "=0.2.3"
sseer = { version = "=0.3.1", default-features = false }
bytes = "1"
futures = { version = "0.3", default-features = false, features = ["executor"] }
[profile.dev]
opt-level = 3
EOF
cat > src/main.rs <<'EOF'
use bytes::Bytes;
use futures::{executor::block_on, stream, StreamExt};
use std::{convert::Infallible, time::{Duration, Instant}};

fn pieces(size: usize) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Unpin {
    let mut event = b"data: ".to_vec();
    event.resize(6 + size, b'A');
    event.extend_from_slice(b"\r\n\r\n");
    stream::iter(event.chunks(8192).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>())
}

fn best(read: impl Fn(usize) -> usize, size: usize) -> Duration {
    let once = || { let start = Instant::now(); assert_eq!(read(size), size); start.elapsed() };
    (0..3).map(|_| once()).min().unwrap()
}

fn main() {
    let quadratic = |size| block_on(async { eventsource_stream::EventStream::new(pieces(size)).next().await.unwrap().unwrap().data.len() });
    let linear = |size| block_on(async { sseer::event_stream::EventStream::new(pieces(size)).next().await.unwrap().unwrap().data.len() });
    let (a, b, c, d) = (best(quadratic, 1 << 19), best(quadratic, 1 << 21), best(linear, 1 << 19), best(linear, 1 << 21));
    println!("eventsource-stream 0.2.3: 0.5 MB {a:?}, 2 MB {b:?}; sseer 0.3.1: {c:?}, {d:?}");
    assert!(b > 8 * a && b > 20 * d);
}
EOF
cargo run --quiet
echo "as expected"
