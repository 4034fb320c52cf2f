#!/usr/bin/env bash
# The words of a 429 decide how often LangChain for JavaScript asks: once, or again and again; its header decides nothing.
#
# Guess: a 429 is tried again after a delay, or after its Retry-After, as a 503 is.
# Is: Google's own text, "Please retry in 1s" with a RetryInfo and a Retry-After, is one request, and so is "rate limited" alone. "try again in 1 s" or
#   "retry after 1s" in the message makes the same refusal up to seven requests; "please check your plan and billing details" anywhere beside it makes it one again.
# Version: @langchain/google-genai 2.3.2, @langchain/core 1.4.0.
# Matters: a relay's own 429, from a queue in which a second is all it takes, is final without these words; and a relay that writes them into a
#   429 for which it has spent its attempts multiplies them.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --no-audit --no-fund --loglevel=error --ignore-scripts @langchain/google-genai@2.3.2 @langchain/core@1.4.0 >/dev/null
cat > run.mjs <<'JS'
import http from "node:http";
import { ChatGoogleGenerativeAI } from "@langchain/google-genai";
const texts = [
  "Please retry in 1s.",
  "Rate limited.",
  "Rate limited, try again in 1 s.",
  "Rate limited, retry after 1s.",
  "Rate limited, try again in 1 s, or check your plan and billing details.",
];
const seen = texts.map(() => 0);
const server = http.createServer((request, response) => {
  const at = Number(request.url.split("/")[1]);
  seen[at] += 1;
  request.resume();
  const details = [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: "1s" }];
  const error = { code: 429, message: texts[at], status: "RESOURCE_EXHAUSTED", details };
  response.writeHead(429, { "content-type": "application/json", "retry-after": "1" }).end(JSON.stringify({ error }));
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const calls = texts.map((_, at) => {
  const baseUrl = `http://127.0.0.1:${server.address().port}/${at}`;
  return new ChatGoogleGenerativeAI({ model: "m", apiKey: "k", baseUrl }).invoke("hi").catch(() => {});
});
await new Promise((done) => setTimeout(done, 9000));
texts.forEach((text, at) => console.log(`${seen[at] > 2 ? "more than two requests" : `${seen[at]} request`}: ${text}`));
process.exit(0);
JS
node run.mjs 2>/dev/null | tee seen
diff seen - <<'EXPECTED' && echo "as found"
1 request: Please retry in 1s.
1 request: Rate limited.
more than two requests: Rate limited, try again in 1 s.
more than two requests: Rate limited, retry after 1s.
1 request: Rate limited, try again in 1 s, or check your plan and billing details.
EXPECTED
