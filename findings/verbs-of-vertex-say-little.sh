#!/usr/bin/env bash
# In Google's own description of the Vertex AI API, a GET restores a dataset, POSTs read, and nobody can ask for server-sent events.
#
# Guess: a GET may be sent again, a POST has to be looked at; an operation is waited for by one verb; a client made from the description can
#   stream generateContent as SSE.
# Is: datasetVersions:restore is a GET that starts an operation, twice in each version. ":wait" is a POST 118 times and a GET 8 times
#   in v1, and there that GET is not a wait: it lists operations. getIamPolicy and testIamPermissions are POSTs. "alt=sse" is refused by the client
#   before anything is sent ("not an allowed value"); two interactions methods that say that they stream or poll are GETs with one and the
#   same parameter "stream".
# Version: google-api-python-client 2.202.0, aiplatform v1 and v1beta1 of revision 20261106 (1,144 and 1,600 methods).
# Matters: a retry policy or a cache for Vertex AI cannot go by the verb. What repeats "every GET" repeats a restore.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check google-api-python-client==2.202.0
cat > run.py <<'EOF'
import json, pathlib
from collections import Counter
import googleapiclient
from googleapiclient.discovery import build
from googleapiclient.http import HttpMock

def methods(resource, prefix=""):
    for name, method in resource.get("methods", {}).items():
        yield prefix + name, method
    for name, inner in resource.get("resources", {}).items():
        yield from methods(inner, f"{prefix}{name}.")

for version, total, waits in [("v1", 1144, {"POST": 118, "GET": 8}), ("v1beta1", 1600, {"POST": 150})]:
    folder = pathlib.Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    document = json.loads((folder / f"aiplatform.{version}.json").read_text())
    found = list(methods(document))
    wait = [(name, m) for name, m in found if m["path"].endswith(":wait")]
    starts = [name for name, m in found if m["httpMethod"] == "GET" and m.get("response", {}).get("$ref") == "GoogleLongrunningOperation"
              and ":" in m["path"]]
    reads = [m for name, m in found if m["httpMethod"] == "POST" and name.endswith(("getIamPolicy", "testIamPermissions"))]
    listing = {m["response"]["$ref"] for _, m in wait if m["httpMethod"] == "GET"}
    verbs = Counter(m["httpMethod"] for _, m in wait)
    print(f"aiplatform {version} {document['revision']}: {len(found)} methods; :wait {dict(verbs)}, the GETs answer {listing or '-'};")
    print(f"  GETs that start an operation: {starts}; POSTs of IAM that read: {len(reads)}")
    assert document["revision"] == "20261106" and len(found) == total and verbs == waits and len(reads) > 10
    assert starts == ["datasets.datasetVersions.restore", "projects.locations.datasets.datasetVersions.restore"]
    assert listing <= {"GoogleLongrunningListOperationsResponse"}

service = build("aiplatform", "v1", static_discovery=True, developerKey="k", http=HttpMock(None, {"status": "200"}))
name = "projects/p/locations/l/datasets/1/datasetVersions/2"
restore = service.projects().locations().datasets().datasetVersions().restore(name=name)
print("the client restores by", restore.method)
assert restore.method == "GET"
try:
    service.publishers().models().streamGenerateContent(model="publishers/google/models/m", body={}, alt="sse")
    raise SystemExit("alt=sse is allowed")
except TypeError as error:
    print("alt=sse:", error)
for method in ("getStream", "getPoll"):
    parameters = dict(methods(json.loads((folder / "aiplatform.v1.json").read_text())))[f"interactions.{method}"]["parameters"]
    assert set(parameters) == {"lastEventId", "name", "stream"}
print("as expected")
EOF
venv/bin/python run.py
