#!/usr/bin/env bash
# A stream that breaks ends a whole Node process that uses @langchain/google-genai, though the error was caught.
#
# Guess: `try { for await (const chunk of await model.stream("hi")) … } catch` is all that a server needs.
# Is: the loop throws and the error is caught; then Node ends with code 1, for a promise that was rejected and that nobody could handle. @google/generative-ai below
#   splits the stream, and gathers the other half into a `response` that LangChain never looks at. A half event and a comment line do the same. @langchain/google and genkit go on.
# Version: @langchain/google-genai 2.3.2 (@google/generative-ai 0.24.1, @langchain/core 1.4.0), @langchain/google 0.2.6, genkit 1.42.0, @genkit-ai/google-genai 1.42.0, Node 20.
# Matters: every connection that Google or a proxy breaks takes all other calls of that process with it; `process.on("unhandledRejection", …)` is not optional there.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --no-audit --no-fund --loglevel=error --ignore-scripts @langchain/google-genai@2.3.2 @langchain/google@0.2.6 @langchain/core@1.4.0 \
  genkit@1.42.0 @genkit-ai/google-genai@1.42.0 >/dev/null
cat > run.mjs <<'JS'
import http from "node:http";
import { ChatGoogleGenerativeAI } from "@langchain/google-genai";
import { ChatGoogle } from "@langchain/google";
import { googleAI } from "@genkit-ai/google-genai";
import { genkit } from "genkit";

const text = `data: ${JSON.stringify({ candidates: [{ content: { role: "model", parts: [{ text: "Half of" }] }, index: 0 }] })}\r\n\r\n`;
const server = http.createServer((request, response) => {
  request.resume();
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(text);
  setTimeout(() => response.destroy(), 100);
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const base = `http://127.0.0.1:${server.address().port}`;
const clients = {
  "@langchain/google-genai": () => new ChatGoogleGenerativeAI({ model: "m", apiKey: "k", baseUrl: base, maxRetries: 0 }).stream("hi"),
  "@langchain/google": () => new ChatGoogle({ model: "gemini-2.5-flash", apiKey: "k", endpoint: base, maxRetries: 0 }).stream("hi"),
  genkit: () => {
    const ai = genkit({ plugins: [googleAI({ apiKey: "k", baseUrl: base })] });
    return ai.generateStream({ model: googleAI.model("gemini-2.5-flash"), prompt: "hi" }).stream;
  },
};

const name = process.argv[2];
try {
  for await (const chunk of await clients[name]()) console.log(`${name}: ${JSON.stringify(chunk.text)}`);
} catch (error) {
  console.log(`${name}: caught, ${error.message.split("\n")[0]}`);
}
await new Promise((later) => setTimeout(later, 300));
console.log(`${name}: goes on`);
process.exit(0);
JS
for client in @langchain/google-genai @langchain/google genkit; do
  code=0; node run.mjs "$client" 2>/dev/null >said || code=$?
  grep "^$client: [cg]" said || true; echo "$client: ends with code $code"
done | tee seen
diff seen - <<'EXPECTED' && echo "as found"
@langchain/google-genai: caught, [GoogleGenerativeAI Error]: Error reading from the stream
@langchain/google-genai: ends with code 1
@langchain/google: caught, terminated
@langchain/google: goes on
@langchain/google: ends with code 0
genkit: caught, Error reading from the stream
genkit: goes on
genkit: ends with code 0
EXPECTED
