#!/usr/bin/env bash
# LangChain's JavaScript client adds up the cached tokens of a stream: one for each chunk.
#
# Guess: usageMetadata grows from chunk to chunk, and its last one counts, for all of its members, streamed or not.
# Is: prompt and total are the last chunk's, cached tokens are a sum over the chunks. Three chunks: 240 cached tokens of a prompt of
#   100. A long answer has hundreds of chunks. Thoughts are in no member, so that input and output do not make the total; the
#   tokens of tools are missing from the input. The Python package of the same name counts right.
# Version: @langchain/google-genai 2.3.2, langchain-google-genai 4.4.3.
# Matters: who compares its numbers with this crate's metrics or the relay's, finds more tokens cached than sent. Cost computed as
#   input - cached is negative.
set -euo pipefail
dir=$(mktemp -d); server=; trap 'kill $server 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check langchain-google-genai==4.4.3
npm init -y >/dev/null
npm install --no-audit --no-fund --loglevel=error --ignore-scripts @langchain/google-genai@2.3.2 @langchain/core@1 >/dev/null

cat > server.py <<'EOF'
import http.server, json
def chunk(i):
    candidate = {"content": {"role": "model", "parts": [{"text": f"w{i} "}]}, "index": 0}
    if i == 2:
        candidate["finishReason"] = "STOP"
    usage = {"promptTokenCount": 100, "cachedContentTokenCount": 80, "toolUsePromptTokenCount": 30, "thoughtsTokenCount": 50,
             "candidatesTokenCount": i + 1, "totalTokenCount": 181 + i}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3.8-flash", "responseId": "r"}

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = "".join(f"data: {json.dumps(chunk(i))}\r\n\r\n" for i in range(3)).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
EOF
cat > client.mjs <<'EOF'
import { ChatGoogleGenerativeAI } from "@langchain/google-genai";
const model = new ChatGoogleGenerativeAI({ model: "gemini-3.8-flash", apiKey: "k", baseUrl: `http://127.0.0.1:${process.argv[2]}` });
let answer;
for await (const chunk of await model.stream("hi")) answer = answer ? answer.concat(chunk) : chunk;
const u = answer.usage_metadata;
console.log("@langchain/google-genai 2.3.2:", JSON.stringify(u));
const same = u.input_tokens === 100 && u.output_tokens === 3 && u.total_tokens === 183 && u.input_token_details.cache_read === 240;
process.exit(same ? 0 : 1);
EOF
cat > client.py <<'EOF'
import sys, warnings
warnings.filterwarnings("ignore")
from langchain_google_genai import ChatGoogleGenerativeAI
model = ChatGoogleGenerativeAI(model="gemini-3.8-flash", google_api_key="k", base_url=f"http://127.0.0.1:{sys.argv[1]}")
answer = None
for chunk in model.stream("hi"):
    answer = chunk if answer is None else answer + chunk
u = answer.usage_metadata
print("langchain-google-genai 4.4.3:", u)
sys.exit((u["input_tokens"], u["output_tokens"], u["total_tokens"], u["input_token_details"]["cache_read"]) != (130, 53, 183, 80))
EOF
python3 server.py > port & server=$!
until [ -s port ]; do sleep 0.1; done
node client.mjs "$(cat port)"
venv/bin/python client.py "$(cat port)"
echo "as expected"
