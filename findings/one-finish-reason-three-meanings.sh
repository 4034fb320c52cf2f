#!/usr/bin/env bash
# The newer finish reasons mean something else in each client; in litellm most of them are a success.
#
# Guess: clients that translate finish reasons agree on what they know, and say "other" or nothing for what they do not.
# Is: MODEL_ARMOR, a verdict on content, is "stop" in litellm, "content_filter" in pydantic-ai, "other" in ai. ESCALATION is
#   "content_filter", None, "other". MALFORMED_RESPONSE, PUP_LIMITED_DISABLED and any word that does not exist yet are "stop" in litellm, a good
#   end. CONTINUATION (go on with the token that came along) is "length" in all three, as if maxOutputTokens were too small.
# Version: litellm 1.110.2, pydantic-ai-slim 2.68.0 with google-genai 2.34.0, ai 7.0.173 with @ai-sdk/google 4.0.121.
# Matters: callers behind litellm do not learn that an answer was blocked or broken; a log beside the relay's then shows a success where
#   this crate says "content" or "empty". A caller that reacts to "length" by raising maxOutputTokens pays for CONTINUATION twice.
set -euo pipefail
dir=$(mktemp -d); server=; trap 'kill $server 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv lite && lite/bin/pip install -q --disable-pip-version-check litellm==1.110.2
python3 -m venv pyd && pyd/bin/pip install -q --disable-pip-version-check 'pydantic-ai-slim[google]==2.68.0' google-genai==2.34.0
npm init -y >/dev/null && npm install --no-audit --no-fund --loglevel=error --ignore-scripts ai@7.0.173 @ai-sdk/google@4.0.121 >/dev/null
cat > server.py <<'EOF'
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        candidate = {"content": {"role": "model", "parts": [{"text": "hi"}]}, "index": 0, "finishReason": self.path.split("/")[1]}
        usage = {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3}
        body = json.dumps({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3.8-flash", "responseId": "r"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
EOF
reasons="STOP MODEL_ARMOR ESCALATION MALFORMED_RESPONSE PUP_LIMITED_DISABLED CONTINUATION NOT_INVENTED_YET"
cat > lite.py <<'EOF'
import os, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
for reason in sys.argv[2:]:
    answer = litellm.completion(model="gemini/gemini-3.8-flash", messages=[{"role": "user", "content": "hi"}], api_key="k",
                                api_base=f"http://127.0.0.1:{sys.argv[1]}/{reason}")
    print("litellm", reason, answer.choices[0].finish_reason)
EOF
cat > pyd.py <<'EOF'
import sys, warnings
warnings.filterwarnings("ignore")
from pydantic_ai import Agent
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.google import GoogleProvider
for reason in sys.argv[2:]:
    provider = GoogleProvider(api_key="k", base_url=f"http://127.0.0.1:{sys.argv[1]}/{reason}")
    print("pydantic-ai", reason, Agent(GoogleModel("gemini-3.8-flash", provider=provider)).run_sync("hi").response.finish_reason)
EOF
cat > ai.mjs <<'EOF'
import { generateText } from "ai";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
const [, , port, ...reasons] = process.argv;
for (const reason of reasons) {
  const google = createGoogleGenerativeAI({ apiKey: "k", baseURL: `http://127.0.0.1:${port}/${reason}` });
  console.log("ai", reason, (await generateText({ model: google("gemini-3.8-flash"), prompt: "hi", maxRetries: 0 })).finishReason);
}
EOF
python3 server.py > port & server=$!
until [ -s port ]; do sleep 0.1; done
{ lite/bin/python lite.py "$(cat port)" $reasons
  pyd/bin/python pyd.py "$(cat port)" $reasons
  node ai.mjs "$(cat port)" $reasons; } | tee seen
diff seen - <<'EOF'
litellm STOP stop
litellm MODEL_ARMOR stop
litellm ESCALATION content_filter
litellm MALFORMED_RESPONSE stop
litellm PUP_LIMITED_DISABLED stop
litellm CONTINUATION length
litellm NOT_INVENTED_YET stop
pydantic-ai STOP stop
pydantic-ai MODEL_ARMOR content_filter
pydantic-ai ESCALATION None
pydantic-ai MALFORMED_RESPONSE None
pydantic-ai PUP_LIMITED_DISABLED None
pydantic-ai CONTINUATION length
pydantic-ai NOT_INVENTED_YET None
ai STOP stop
ai MODEL_ARMOR other
ai ESCALATION other
ai MALFORMED_RESPONSE other
ai PUP_LIMITED_DISABLED other
ai CONTINUATION length
ai NOT_INVENTED_YET other
EOF
echo "as expected"
