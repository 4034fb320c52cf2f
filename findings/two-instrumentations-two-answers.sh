#!/usr/bin/env bash
# Two OpenTelemetry instrumentations of the same SDK tell different tokens, and one a different text, of the same streamed answer.
#
# Guess: both add up to what the answer says (130 in with the tools' tokens, 53 out with the thoughts, 183 in all) and keep the streamed text.
# Is: opentelemetry-instrumentation-google-generativeai says input 100, output 3, and total 183 beside them; the message that it
#   records of a stream is the *last chunk's text alone*; a stream that its reader gives up leaves no span at all. openinference
#   says 130, 53 and 183, and leaves a span without a status for the stream that was given up.
# Version: opentelemetry-instrumentation-google-generativeai 0.62.4, openinference-instrumentation-google-genai 1.4.14, google-genai 3.6.1.
# Matters: beside this crate's gen_ai.usage the first one shows up to a twentieth of the output of a model that thinks, and
#   calls that callers gave up are missing from its latencies, which look better for that.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check google-genai==3.6.1 opentelemetry-sdk==1.45.2 \
  opentelemetry-instrumentation-google-generativeai==0.62.4 openinference-instrumentation-google-genai==1.4.14
cat > run.py <<'EOF'
import gc, http.server, json, sys, threading, warnings
warnings.filterwarnings("ignore")
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from google import genai
from google.genai import types

def chunk(i):
    candidate = {"content": {"role": "model", "parts": [{"text": f"w{i} "}]}, "index": 0}
    if i == 2:
        candidate["finishReason"] = "STOP"
    usage = {"promptTokenCount": 100, "toolUsePromptTokenCount": 30, "thoughtsTokenCount": 50, "candidatesTokenCount": i + 1,
             "totalTokenCount": 181 + i}
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
threading.Thread(target=server.serve_forever, daemon=True).start()
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
first = sys.argv[1] == "google-generativeai"
if first:
    from opentelemetry.instrumentation.google_generativeai import GoogleGenerativeAiInstrumentor as Instrumentor
else:
    from openinference.instrumentation.google_genai import GoogleGenAIInstrumentor as Instrumentor
Instrumentor().instrument(tracer_provider=provider)
client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=f"http://127.0.0.1:{server.server_address[1]}"))

text = "".join(c.text for c in client.models.generate_content_stream(model="gemini-3.8-flash", contents="hi"))
assert text == "w0 w1 w2 "
[span] = exporter.get_finished_spans()
names = ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.total_tokens"]
if not first:
    names = ["llm.token_count.prompt", "llm.token_count.completion", "llm.token_count.total"]
counts = tuple(span.attributes[name] for name in names)
recorded = " ".join(str(value) for name, value in span.attributes.items() if "output" in name)
whole, last_only = all(w in recorded for w in ("w0", "w1", "w2")), "w2" in recorded and "w0" not in recorded
exporter.clear()

stream = client.models.generate_content_stream(model="gemini-3.8-flash", contents="hi")
next(iter(stream))
del stream
gc.collect()
given_up = [span.status.status_code.name for span in exporter.get_finished_spans()]
print(f"{sys.argv[1]}: counts {counts}; text recorded: {'all' if whole else 'last chunk alone'}; given up: {given_up or 'no span'}")
expected = ((100, 3, 183), False, True, []) if first else ((130, 53, 183), True, False, ["UNSET"])
sys.exit((counts, whole, last_only, given_up) != expected)
EOF
venv/bin/python run.py google-generativeai
venv/bin/python run.py openinference
echo "as expected"
