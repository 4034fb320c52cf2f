"""Google's Python SDK, unmodified, uploads files through a relay that wants a token: the SDK sends the parts without it.

    python upload.py http://127.0.0.1:8787

Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the requests.
"""

import asyncio
import io
import re
import sys
import time

import httpx2
from google import genai
from google.genai import errors, types

# One part and the beginning of the next: the SDK cuts at 8 MiB.
TWO_PARTS = (8 << 20) + 100
TEXT = {"mime_type": "text/plain"}


def client_with(**options):
    return genai.Client(
        api_key="token-of-the-caller", http_options=types.HttpOptions(base_url=sys.argv[1], **options)
    )


client = client_with()


def equal(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: {got!r} in place of {expected!r}")


def sync():
    for size in (10, TWO_PARTS):
        kept = client.files.upload(file=io.BytesIO(b"x" * size), config=TEXT)
        equal("size", (kept.size_bytes, kept.state), (size, types.FileState.ACTIVE))


def asynchronous():
    async def upload_with(client):
        for size in (10, TWO_PARTS):
            kept = await client.aio.files.upload(file=io.BytesIO(b"x" * size), config=TEXT)
            equal("size", (kept.size_bytes, kept.state), (size, types.FileState.ACTIVE))

    # It takes aiohttp where that is installed, unless it is given a client of httpx2, its own default elsewhere.
    asyncio.run(upload_with(client_with()))
    asyncio.run(upload_with(client_with(httpx_async_client=httpx2.AsyncClient())))


def refused():
    # The address as the relay hands it out, and then another one.
    started = httpx2.post(
        f"{sys.argv[1]}/upload/v1beta/files",
        headers={
            "x-goog-api-key": "token-of-the-caller",
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": "10",
            "x-goog-upload-header-content-type": "text/plain",
        },
        json={"file": {}},
    )
    url = started.headers["x-goog-upload-url"]
    other = re.sub("upload_id=", "upload_id=x", url)
    equal("another address", other == url, False)
    began = time.monotonic()
    try:
        # As `files.upload` sends its parts: with options of their own, which have no key.
        options = types.HttpOptions(base_url=sys.argv[1])
        client._api_client.upload_file(io.BytesIO(b"some notes"), other, 10, http_options=options)
    except errors.ClientError as error:
        equal("error", (error.code, error.status), (401, "UNAUTHENTICATED"))
        equal("whose words", "this relay wants a token" in error.message, True)
    else:
        sys.exit("a part went where nobody has begun an upload")
    # Three tries take three seconds at least.
    equal("one try", time.monotonic() - began < 1.0, True)


for check in (sync, asynchronous, refused):
    check()
    print(f"google-genai {genai.__version__}: upload, {check.__name__}")
