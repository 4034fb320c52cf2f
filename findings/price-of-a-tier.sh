#!/usr/bin/env bash
# The tier that served a call is in its answer; who computes its price from that answer gets three prices.
#
# Guess: a call that was asked for as priority and served as standard (usageMetadata.serviceTier "standard"; priority falls back by
#   itself) is priced as standard; one served as flex costs half.
# Is: litellm believes the header x-gemini-service-tier alone. Without it, the two prices that it holds for one and the same answer
#   differ: response_cost takes the tier that was asked for (1.8 times), completion_cost takes standard; a flex call is
#   0.5 in the one, 1 in the other. pydantic-ai shows service_tier "flex" in the answer's details and prices it as standard.
# Version: litellm 1.110.2 with its bundled prices, pydantic-ai-slim 2.68.0 with genai-prices 0.2.3.
# Matters: a relay, cache or gateway that does not hand on x-gemini-service-tier changes what its callers believe to have spent by 80 %.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv lite && lite/bin/pip install -q --disable-pip-version-check litellm==1.110.2
python3 -m venv pyd && pyd/bin/pip install -q --disable-pip-version-check 'pydantic-ai-slim[google]==2.68.0' google-genai==2.34.0 genai-prices==0.2.3
cat > server.py <<'EOF'
import http.server, json, threading
served = {}
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        usage = {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100, "serviceTier": served["tier"]}
        candidate = {"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP", "index": 0}
        body = json.dumps({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3.8-flash"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        if served["header"]:
            self.send_header("x-gemini-service-tier", served["tier"])
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
BASE = f"http://127.0.0.1:{server.server_address[1]}"
EOF
cat > lite.py <<'EOF'
import os, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from server import BASE, served
MODEL, wrong = "gemini/gemini-3.8-flash", 0
def prices(asked, tier, header):
    served.update(tier=tier, header=header)
    answer = litellm.completion(model=MODEL, messages=[{"role": "user", "content": "hi"}], api_key="k", api_base=BASE, service_tier=asked)
    return answer._hidden_params["response_cost"], litellm.completion_cost(answer, model=MODEL)
standard = prices("default", "standard", True)[0]
for asked, tier, header, expected in [
    ("priority", "standard", True, (1, 1)), ("priority", "standard", False, (1.8, 1)),
    ("flex", "flex", True, (0.5, 0.5)), ("flex", "flex", False, (0.5, 1))]:
    ratios = tuple(round(price / standard, 3) for price in prices(asked, tier, header))
    print(f"litellm 1.110.2: asked {asked}, served {tier}, header {header}: response_cost, completion_cost = {ratios} times standard")
    wrong += ratios != expected
sys.exit(wrong)
EOF
cat > pyd.py <<'EOF'
import sys, warnings
warnings.filterwarnings("ignore")
from pydantic_ai import Agent
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.google import GoogleProvider
from server import BASE, served
agent = Agent(GoogleModel("gemini-3.8-flash", provider=GoogleProvider(api_key="k", base_url=BASE)))
def answer(tier):
    served.update(tier=tier, header=True)
    return agent.run_sync("hi").response
standard, flex = answer("standard"), answer("flex")
ratio = float(flex.cost().total_price / standard.cost().total_price)
print("pydantic-ai-slim 2.68.0:", flex.provider_details["service_tier"], "costs", ratio, "times standard")
sys.exit(not (ratio == 1 and flex.provider_details["service_tier"] == "flex"))
EOF
lite/bin/python lite.py
pyd/bin/python pyd.py
echo "as expected"
