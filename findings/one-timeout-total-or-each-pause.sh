#!/usr/bin/env bash
# One timeout of Google's two SDKs is the whole call in JavaScript and each pause in Python, until somebody installs aiohttp.
#
# Guess: httpOptions.timeout of 1,500 ms ends a call after 1.5 s, and a stream that keeps coming is not ended by it.
# Is: an answer that takes 4.8 s with a piece each 0.6 s. Python ends neither a plain answer nor a stream, sync or async; JavaScript both after 1.5 s, the
#   stream after its third chunk, out of the loop. With aiohttp in the same environment, unasked and not imported, async Python does as JavaScript
#   does, and sync Python as before. All send "X-Server-Timeout: 2", rounded up, of a stream too; for interactions Python sends none.
# Version: google-genai 3.6.1 without and with aiohttp 3.14.5, @google/genai 3.3.0.
# Matters: the same code, the same setting, another package's dependency: a stream that was whole yesterday ends in the middle. A relay that takes
#   X-Server-Timeout as the caller's patience cuts off the long streams of one caller, and is half a second late for the other.
set -euo pipefail
dir=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check google-genai==3.6.1
npm init -y >/dev/null && npm install --no-audit --no-fund --loglevel=error --ignore-scripts @google/genai@3.3.0 >/dev/null
cat > server.py <<'EOF'
import http.server, json, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        with open("told", "a") as told: print(self.path.split("?")[0].split("/")[-1].split(":")[-1], self.headers.get("x-server-timeout"), file=told)
        answer = {"candidates": [{"content": {"role": "model", "parts": [{"text": "word"}]}, "finishReason": "STOP"}]}
        stream = "streamGenerateContent" in self.path
        pieces = [b"data: %s\r\n\r\n" % json.dumps(answer).encode()] * 8
        if not stream:
            body = json.dumps(answer if "generateContent" in self.path else {"id": "i", "status": "completed", "outputs": []}).encode().ljust(400)
            pieces = [body[start:start + 50] for start in range(0, 400, 50)]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if stream else "application/json")
        self.send_header("content-length", str(sum(map(len, pieces))))
        self.end_headers()
        try:
            for piece in pieces:
                self.wfile.write(piece); self.wfile.flush(); time.sleep(0.6)
        except OSError:
            pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
EOF
cat > call.py <<'EOF'
import asyncio, sys, time, warnings
warnings.simplefilter("ignore")
from google import genai
from google.genai import types
client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=sys.argv[1], timeout=1500))
ask, got = {"model": "m", "contents": "hi"}, []
def plain(): got.append(client.models.generate_content(**ask))
def stream(): got.extend(client.models.generate_content_stream(**ask))
def interaction(): got.append(client.interactions.create(model="m", input="hi"))
async def async_plain(): got.append(await client.aio.models.generate_content(**ask))
async def async_stream():
    async for chunk in await client.aio.models.generate_content_stream(**ask): got.append(chunk)
async def all_async():
    for call in (async_plain, async_stream): await timed(call)
async def timed(call):
    start, end = time.monotonic(), "whole"
    got.clear()
    try:
        waiting = call()
        if waiting is not None: await waiting
    except asyncio.TimeoutError as error:
        end = type(error).__name__
    took = time.monotonic() - start
    print(f"{sys.argv[2]}, {call.__name__}: {end}, {len(got)} piece(s), {'after 1.5 s' if abs(took - 1.5) < 0.4 else 'after the end' if took > 4 else took}")
for call in (plain, stream, interaction): asyncio.run(timed(call))
asyncio.run(all_async())
EOF
cat > call.mjs <<'EOF'
import { GoogleGenAI } from "@google/genai";
const client = new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: process.argv[2], timeout: 1500 } });
const ask = { model: "m", contents: "hi" };
const got = [];
for (const [name, call] of [
  ["plain", async () => got.push(await client.models.generateContent(ask))],
  ["stream", async () => { for await (const chunk of await client.models.generateContentStream(ask)) got.push(chunk); }]]) {
  const start = Date.now();
  got.length = 0;
  const end = await call().then(() => "whole", (error) => error.name);
  console.log(`@google/genai, ${name}: ${end}, ${got.length} piece(s), ${Math.abs(Date.now() - start - 1500) < 400 ? "after 1.5 s" : "else"}`);
}
EOF
python3 server.py > port & until [ -s port ]; do sleep 0.1; done
base="http://127.0.0.1:$(cat port)"
{ venv/bin/python call.py "$base" google-genai
  venv/bin/pip install -q --disable-pip-version-check aiohttp==3.14.5
  venv/bin/python call.py "$base" "with aiohttp"
  node call.mjs "$base"
  sort told | uniq -c | sed 's/^ */X-Server-Timeout, times and values: /'; } | tee seen
diff seen - <<'EOF' && echo "as found"
google-genai, plain: whole, 1 piece(s), after the end
google-genai, stream: whole, 8 piece(s), after the end
google-genai, interaction: whole, 1 piece(s), after the end
google-genai, async_plain: whole, 1 piece(s), after the end
google-genai, async_stream: whole, 8 piece(s), after the end
with aiohttp, plain: whole, 1 piece(s), after the end
with aiohttp, stream: whole, 8 piece(s), after the end
with aiohttp, interaction: whole, 1 piece(s), after the end
with aiohttp, async_plain: TimeoutError, 0 piece(s), after 1.5 s
with aiohttp, async_stream: TimeoutError, 3 piece(s), after 1.5 s
@google/genai, plain: AbortError, 0 piece(s), after 1.5 s
@google/genai, stream: AbortError, 3 piece(s), after 1.5 s
X-Server-Timeout, times and values: 5 generateContent 2
X-Server-Timeout, times and values: 2 interactions None
X-Server-Timeout, times and values: 5 streamGenerateContent 2
EOF
