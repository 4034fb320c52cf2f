#!/usr/bin/env bash
# Google's SDKs send "create an interaction" five times, the JavaScript one even if the connection was lost and even with attempts 1.
#
# Guess: a POST that stores something and may start paid work in the background is sent once, as generateContent is; with
#   retryOptions {attempts: 1} certainly so; and nothing is sent again where the first may have arrived.
# Is: on a 503 and on a 409 both send five within 6 to 12 s (generateContent: one). Where the server has
#   read the request and closes the connection, Python sends it once, JavaScript five times. attempts 1 stops Python,
#   but not JavaScript.
# Version: google-genai 3.6.1, @google/genai 3.3.0.
# Matters: a relay that drops a connection to say "broken" may make five interactions for one, all stored, all billed, all running
#   if it is in the background. Answer with a status that is not retried; never break off before the head of an answer.
set -euo pipefail
dir=$(mktemp -d); server=; trap 'kill $server 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check google-genai==3.6.1
npm init -y >/dev/null && npm install --no-audit --no-fund --loglevel=error --ignore-scripts @google/genai@3.3.0 >/dev/null

cat > server.py <<'EOF'
import socket, threading
seen = {}
STATUS = {"503": b"503 Service Unavailable", "409": b"409 Conflict"}
BODY = b'{"error":{"code":"busy","message":"try again"}}'

def serve(connection):
    reader = connection.makefile("rb")
    while line := reader.readline():
        path, length = line.decode().split()[1], 0
        while (header := reader.readline().strip()):
            name, value = header.decode().split(":", 1)
            length = int(value) if name.lower() == "content-length" else length
        reader.read(length)
        _, verb, case = path.split("/")[:3]
        if verb == "count":
            status, body = b"200 OK", str(seen.pop(case, 0)).encode()
        else:
            seen[case] = seen.get(case, 0) + 1
            if verb == "drop":
                connection.shutdown(socket.SHUT_RDWR)
                return
            status, body = STATUS[verb], BODY
        connection.sendall(b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
EOF
cat > client.py <<'EOF'
import sys, urllib.request, warnings
warnings.filterwarnings("ignore")
from google import genai
from google.genai import types
base, wrong = f"http://127.0.0.1:{sys.argv[1]}", 0
once = types.HttpRetryOptions(attempts=1)
for verb, retry, operation, expected in [
    ("503", None, "generate", 1), ("503", None, "interaction", 5), ("503", once, "interaction", 1),
    ("409", None, "interaction", 5), ("drop", None, "interaction", 1)]:
    client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=f"{base}/{verb}/py", retry_options=retry))
    try:
        if operation == "generate":
            client.models.generate_content(model="m", contents="hi")
        else:
            client.interactions.create(model="m", input="hi")
    except Exception:
        pass
    n = int(urllib.request.urlopen(f"{base}/count/py").read())
    print(f"google-genai {genai.__version__}: {operation}, {verb}{', attempts 1' if retry else ''}: sent {n} times")
    wrong += n != expected
sys.exit(wrong)
EOF
cat > client.mjs <<'EOF'
import { GoogleGenAI } from "@google/genai";
const base = `http://127.0.0.1:${process.argv[2]}`;
let wrong = 0;
for (const [verb, attempts, operation, expected] of [
  ["503", undefined, "generate", 1], ["503", undefined, "interaction", 5], ["503", 1, "interaction", 5],
  ["409", 1, "interaction", 5], ["drop", undefined, "interaction", 5], ["drop", 1, "interaction", 5], ["drop", undefined, "generate", 1]]) {
  const retry = attempts ? { retryOptions: { attempts } } : {};
  const ai = new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: `${base}/${verb}/js`, ...retry } });
  try {
    if (operation === "generate") await ai.models.generateContent({ model: "m", contents: "hi" });
    else await ai.interactions.create({ model: "m", input: "hi" });
  } catch {}
  const n = +(await (await fetch(`${base}/count/js`)).text());
  console.log(`@google/genai 3.3.0: ${operation}, ${verb}${attempts ? ", attempts 1" : ""}: sent ${n} times`);
  wrong += n !== expected;
}
process.exit(wrong);
EOF
python3 server.py > port & server=$!
until [ -s port ]; do sleep 0.1; done
venv/bin/python client.py "$(cat port)"
node client.mjs "$(cat port)"
echo "as expected"
