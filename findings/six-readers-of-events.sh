#!/usr/bin/env bash
# Six readers of server-sent events disagree on three short streams: on how many events there are, that is.
#
# Guess: the format is small and has a standard: an event without data is none, an event that the end of the body cuts off is none, and
#   a line may end in CR alone.
# Is: sse-stream and httpx-sse hand out an event for "retry: 3000" or "event: ping" alone (its data is empty or missing, and the
#   usual json parse of it fails); parse-sse hands out the event that was cut, as if it were whole; eventsource-stream never hands out the last event
#   of a stream whose lines end in CR, because it waits for the LF that might follow. Only sseer and eventsource-parser do none of these.
# Version: eventsource-stream 0.2.3, sseer 0.3.1, sse-stream 0.3.0, eventsource-parser 4.1.3, parse-sse 0.1.0, httpx-sse 0.4.3.
# Matters: a server that these read may send neither "retry:" nor "event:" on its own, has to end events with LF LF or CR LF CR LF, and
#   must not break a stream off inside an event cleanly: half an answer's JSON, or whole JSON whose end was still to come, is an event then.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check httpx==0.28.1 httpx-sse==0.4.3
npm init -y >/dev/null
npm install --no-audit --no-fund --loglevel=error --ignore-scripts eventsource-parser@4.1.3 parse-sse@0.1.0 >/dev/null
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
eventsource-stream = "=0.2.3"
sseer = { version = "=0.3.1", default-features = false }
sse-stream = "=0.3.0"
bytes = "1"
futures = { version = "0.3", default-features = false, features = ["executor"] }
EOF
cat > src/main.rs <<'EOF'
use bytes::Bytes;
use futures::{executor::block_on, stream, StreamExt};
use std::convert::Infallible;

fn body(text: &'static str) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Unpin {
    stream::iter([Ok(Bytes::from_static(text.as_bytes()))])
}

fn main() {
    let streams = ["retry: 3000\n\ndata: a\n\n", "data: a\n\ndata: b\n", "data: a\r\rdata: b\r\r"];
    let count = |name: &str, read: &dyn Fn(&'static str) -> usize| println!("{name} {:?}", streams.map(read));
    count("eventsource-stream", &|text| block_on(eventsource_stream::EventStream::new(body(text)).count()));
    count("sseer", &|text| block_on(sseer::event_stream::EventStream::new(body(text)).count()));
    count("sse-stream", &|text| block_on(sse_stream::SseStream::from_bytes_stream(body(text)).count()));
}
EOF
cat > run.mjs <<'EOF'
import { createParser } from "eventsource-parser";
import { parseServerSentEvents } from "parse-sse";
const streams = ["retry: 3000\n\ndata: a\n\n", "data: a\n\ndata: b\n", "data: a\r\rdata: b\r\r"];
const first = [], second = [];
for (const text of streams) {
  let n = 0;
  createParser({ onEvent: () => n++ }).feed(text);
  first.push(n);
  n = 0;
  for await (const _ of parseServerSentEvents(new Response(text, { headers: { "content-type": "text/event-stream" } }))) n++;
  second.push(n);
}
console.log("eventsource-parser", `[${first.join(", ")}]`);
console.log("parse-sse", `[${second.join(", ")}]`);
EOF
cat > run.py <<'EOF'
import httpx, httpx_sse
streams = ["retry: 3000\n\ndata: a\n\n", "data: a\n\ndata: b\n", "data: a\r\rdata: b\r\r"]
answers = [httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text.encode()) for text in streams]
print("httpx-sse", [len(list(httpx_sse.EventSource(answer).iter_sse())) for answer in answers])
EOF
echo "events in: retry, a | a, half of b | a, b with CR"
{ cargo run --quiet; node run.mjs; venv/bin/python run.py; } | tee seen
diff seen - <<'EOF'
eventsource-stream [1, 1, 1]
sseer [1, 1, 2]
sse-stream [2, 1, 2]
eventsource-parser [1, 1, 2]
parse-sse [1, 2, 2]
httpx-sse [2, 1, 2]
EOF
echo "as expected"
