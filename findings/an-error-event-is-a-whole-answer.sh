#!/usr/bin/env bash
# A stream that ends in an error event is a whole answer for three clients, and for a fourth if the error stands in a list.
#
# Guess: `data: {"error":{"code":503,…}}` after some text raises an error, as Google's and OpenAI's own SDKs do.
# Is: @langchain/google-genai, @langchain/google and genkit hand out the half of the answer and end as after a whole one: no error, no reason. They notice
#   only a connection that breaks. @google/genai raises an ApiError for it, but of `data: [{"error":…}]`, which is how the same API sends errors elsewhere, it makes an empty chunk.
# Version: @langchain/google-genai 2.3.2, @langchain/google 0.2.6 (@langchain/core 1.4.0), genkit 1.42.0 with @genkit-ai/google-genai 1.42.0, @google/genai 3.3.0.
# Matters: a server or a proxy that says the error and then closes the stream politely has lost it for those; it has to say the error as an object, and then break the connection.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --no-audit --no-fund --loglevel=error --ignore-scripts @langchain/google-genai@2.3.2 @langchain/google@0.2.6 @langchain/core@1.4.0 \
  genkit@1.42.0 @genkit-ai/google-genai@1.42.0 @google/genai@3.3.0 >/dev/null
cat > run.mjs <<'JS'
import http from "node:http";
import { ChatGoogleGenerativeAI } from "@langchain/google-genai";
import { ChatGoogle } from "@langchain/google";
import { googleAI } from "@genkit-ai/google-genai";
import { genkit } from "genkit";
import { GoogleGenAI } from "@google/genai";

const text = `data: ${JSON.stringify({ candidates: [{ content: { role: "model", parts: [{ text: "Half of" }] }, index: 0 }] })}\r\n\r\n`;
const error = { error: { code: 503, message: "The model is overloaded.", status: "UNAVAILABLE" } };
const endings = { event: [error, false], list: [[error], false], "event, then a break": [error, true] };
const server = http.createServer((request, response) => {
  request.resume();
  const [said, breaks] = endings[decodeURIComponent(request.url.split("/")[1])];
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(text);
  response.write(`data: ${JSON.stringify(said)}\r\n\r\n`);
  setTimeout(() => (breaks ? response.destroy() : response.end()), 100);
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const base = (ending) => `http://127.0.0.1:${server.address().port}/${encodeURIComponent(ending)}`;

async function* langchain(ending) {
  const model = new ChatGoogleGenerativeAI({ model: "m", apiKey: "k", baseUrl: base(ending), maxRetries: 0 });
  for await (const chunk of await model.stream("hi")) yield chunk.text;
}
async function* langchainGoogle(ending) {
  const to = (url, init) => fetch(String(url).replace(/^https:\/\/[^/]+/, base(ending)), init);
  const apiClient = { hasApiKey: () => true, fetch: (request) => to(request.url, { method: "POST", body: "{}" }) };
  const model = new ChatGoogle({ model: "gemini-2.5-flash", apiClient, maxRetries: 0 });
  for await (const chunk of await model.stream("hi")) yield chunk.text;
}
async function* withGenkit(ending) {
  const ai = genkit({ plugins: [googleAI({ apiKey: "k", baseUrl: base(ending) })] });
  const { stream, response } = ai.generateStream({ model: googleAI.model("gemini-2.5-flash"), prompt: "hi" });
  response.catch(() => {});
  for await (const chunk of stream) yield chunk.text;
  await response;
}
async function* google(ending) {
  const ai = new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: base(ending) } });
  for await (const chunk of await ai.models.generateContentStream({ model: "m", contents: "hi" })) yield chunk.text ?? "";
}
// genkit leaves a promise of its own behind that nobody waits for.
process.on("unhandledRejection", () => {});
const clients = { "@google/genai": google, "@langchain/google": langchainGoogle, "@langchain/google-genai": langchain, genkit: withGenkit };
for (const ending of Object.keys(endings)) {
  for (const [name, client] of Object.entries(clients)) {
    let said = "", end = "ends well";
    try { for await (const piece of client(ending)) said += piece; } catch (error) { end = "throws"; if (process.env.DEBUG) console.error(error); }
    console.log(`${ending}: ${name}: ${JSON.stringify(said)}, ${end}`);
  }
}
process.exit(0);
JS
node run.mjs 2>/dev/null | tee seen
diff seen - <<'EXPECTED' && echo "as found"
event: @google/genai: "Half of", throws
event: @langchain/google: "Half of", ends well
event: @langchain/google-genai: "Half of", ends well
event: genkit: "Half of", ends well
list: @google/genai: "Half of", ends well
list: @langchain/google: "Half of", ends well
list: @langchain/google-genai: "Half of", ends well
list: genkit: "Half of", ends well
event, then a break: @google/genai: "Half of", throws
event, then a break: @langchain/google: "Half of", throws
event, then a break: @langchain/google-genai: "Half of", throws
event, then a break: genkit: "Half of", throws
EXPECTED
