#!/usr/bin/env bash
# One Retry-After suits nobody: of the same header five clients make a wait, nothing at all, or the end of the call.
#
# Guess: "Retry-After: 90" on a 503 is waited for, or cut to a bound, and 2.5 is two or three seconds everywhere.
# Is: of 90, openai for Node and ai make nothing, and are back after 0.5 and 2 s; @google/genai's interactions make 8 s of it; openai for Python and
#   google-genai's interactions in Python sleep through it (the latter whatever the number: 130 as well, of which openai for Python makes the end of the call).
#   2.5 is waited for by all but @google/genai's interactions, which read whole seconds only and come back in half a second.
# Version: openai 3.57.0 (Python) and 7.59.0 (Node), google-genai 3.6.1, @google/genai 3.3.0, ai 7.0.173 with @ai-sdk/google 4.0.121.
# Matters: a server that says the true time is hammered by those that it wanted to keep away, and blocks a thread of the others, up to four times
#   in a row. The header has to be whole seconds and no more than its reader uses; the true time belongs into the body.
set -euo pipefail
dir=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check openai==3.57.0 google-genai==3.6.1
npm init -y >/dev/null
npm install --no-audit --no-fund --loglevel=error --ignore-scripts openai@7.59.0 @google/genai@3.3.0 ai@7.0.173 @ai-sdk/google@4.0.121 >/dev/null
cat > server.py <<'EOF'
import http.server, json, threading, time
SEEN = {}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_GET(self):
        body = json.dumps(SEEN).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        _, client, wait, *_ = self.path.split("/")
        SEEN.setdefault(f"{client} {wait}", []).append(time.monotonic())
        body = b'{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}'
        self.send_response(503)
        self.send_header("retry-after", wait); self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
EOF
cat > call.py <<'EOF'
import sys, threading, warnings
warnings.simplefilter('ignore')
from google import genai
from google.genai import types
import openai
base = sys.argv[1]
def with_openai(wait):
    client = openai.OpenAI(api_key="k", base_url=f"{base}/openai-python/{wait}/v1")
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
def with_interactions(wait):
    client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=f"{base}/interactions-python/{wait}"))
    client.interactions.create(model="m", input="hi")
def quiet(call, wait):
    try: call(wait)
    except Exception: print(call.__name__, wait, "ended", flush=True)
for wait in sys.argv[2:]:
    for call in (with_openai, with_interactions):
        threading.Thread(target=quiet, args=(call, wait), daemon=True).start()
threading.Event().wait(12)
EOF
cat > call.mjs <<'EOF'
import OpenAI from "openai";
import { GoogleGenAI } from "@google/genai";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { generateText } from "ai";
const [base, ...waits] = process.argv.slice(2);
for (const wait of waits) {
  const openai = new OpenAI({ apiKey: "k", baseURL: `${base}/openai-node/${wait}/v1` });
  openai.chat.completions.create({ model: "m", messages: [{ role: "user", content: "hi" }] }).catch(() => {});
  const genai = new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: `${base}/interactions-js/${wait}` } });
  genai.interactions.create({ model: "m", input: "hi" }).catch(() => {});
  const google = createGoogleGenerativeAI({ apiKey: "k", baseURL: `${base}/ai/${wait}/v1beta` });
  generateText({ model: google("m"), prompt: "hi" }).catch(() => {});
}
setTimeout(() => process.exit(0), 12000);
EOF
python3 server.py > port & until [ -s port ]; do sleep 0.2; done
base="http://127.0.0.1:$(cat port)"
venv/bin/python call.py "$base" 2.5 90 130 > ended 2>/dev/null & python=$!
node call.mjs "$base" 2.5 90 130 2>/dev/null
wait "$python"
cat > show.py <<'EOF'
import json, sys, urllib.request
seen = json.load(urllib.request.urlopen(sys.argv[1] + "/"))
def shown(name):
    times = seen[name]
    # The first gap tells; half a second is the clients' own first delay, with some chance in it.
    return "not back within 12 s" if len(times) == 1 else f"back after {min((0.5, 2, 2.5, 8), key=lambda s: abs(s - (times[1] - times[0])))} s"
for name in sorted(seen): print(f"{name}: {shown(name)}")
print("ended:", [line for line in sorted(open("ended").read().splitlines()) if "2.5" not in line])
EOF
python3 show.py "$base" | tee seen
diff seen - <<'EOF' && echo "as found"
ai 130: back after 2 s
ai 2.5: back after 2.5 s
ai 90: back after 2 s
interactions-js 130: back after 8 s
interactions-js 2.5: back after 0.5 s
interactions-js 90: back after 8 s
interactions-python 130: not back within 12 s
interactions-python 2.5: back after 2.5 s
interactions-python 90: not back within 12 s
openai-node 130: back after 0.5 s
openai-node 2.5: back after 2.5 s
openai-node 90: back after 0.5 s
openai-python 130: not back within 12 s
openai-python 2.5: back after 2.5 s
openai-python 90: not back within 12 s
ended: ['with_openai 130 ended']
EOF
