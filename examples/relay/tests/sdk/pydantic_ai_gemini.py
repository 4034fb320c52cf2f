"""Pydantic AI, unmodified, through a relay whose upstream fails.

    python pydantic_ai_gemini.py http://127.0.0.1:8787

Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.
"""

import asyncio
import sys
from importlib.metadata import version

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.google import GoogleProvider


def agent(model="gemini-2.5-flash"):
    # A key of the caller's own, which must never go further than the relay.
    return Agent(GoogleModel(model, provider=GoogleProvider(api_key="key-of-the-caller", base_url=sys.argv[1])))


def equal(what, is_, should_be):
    if is_ != should_be:
        sys.exit(f"{what}: {is_!r} instead of {should_be!r}")


async def generate():
    answer = await agent().run("please generate")
    equal("text", answer.output, "You said: please generate")


async def stream():
    async with agent().run_stream("please stream") as answer:
        pieces = [piece async for piece in answer.stream_text(delta=True)]
    equal("text", "".join(pieces), "You said: please stream")


async def wrong_model():
    try:
        await agent("gemini-2.5-flsh").run("please fail")
    except ModelHTTPError as error:
        equal(f"whose words {error!r}", "gemini-2.5-flsh is not found" in str(error), True)
        equal("status", error.status_code, 404)
    else:
        sys.exit("a misspelt model was answered")


for check in (generate, stream, wrong_model):
    asyncio.run(check())
    print(f"pydantic-ai {version('pydantic-ai-slim')}: {check.__name__}")
