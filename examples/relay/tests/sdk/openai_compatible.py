"""OpenAI's Python SDK, unmodified, through a relay whose upstream fails.

    python openai_compatible.py http://127.0.0.1:8787

Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.
"""

import asyncio
import json
import sys

import openai

MODEL = "gemini-2.5-flash"
BASE_URL = f"{sys.argv[1]}/v1beta/openai/"

# A key of the caller's own, which must never go further than the relay; and no retries but the relay's.
client = openai.OpenAI(api_key="key-of-the-caller", base_url=BASE_URL, max_retries=0)


def equal(what, is_, should_be):
    if is_ != should_be:
        sys.exit(f"{what}: {is_!r} instead of {should_be!r}")


def generate():
    messages = [{"role": "user", "content": "please generate"}]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    equal("text", answer.choices[0].message.content, "You said: please generate")
    equal("finish reason", answer.choices[0].finish_reason, "stop")


def stream():
    messages = [{"role": "user", "content": "please stream"}]
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    equal("text", text, "You said: please stream")


def chat():
    messages = [{"role": "user", "content": "please chat"}]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    equal("first turn", answer.choices[0].message.content, "You said: please chat")
    messages += [answer.choices[0].message, {"role": "user", "content": "and go on"}]
    with client.chat.completions.stream(model=MODEL, messages=messages) as events:
        equal("second turn", events.get_final_completion().choices[0].message.content, "You said: and go on")


WEATHER = {
    "name": "weather",
    "description": "How the weather is in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": WEATHER}]


def tools():
    messages = [{"role": "user", "content": "how is the weather?"}]
    asks = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS).choices[0]
    equal("finish reason", asks.finish_reason, "tool_calls")
    (call,) = asks.message.tool_calls
    equal("call", (call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Oslo"}))
    messages += [asks.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain in Oslo."}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
    equal("text", answer.choices[0].message.content, "You said: Rain in Oslo.")


def stream_tools():
    messages = [{"role": "user", "content": "how is the weather?"}]
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS, stream=True))
    calls = [call.function for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    equal("call", [(call.name, json.loads(call.arguments)) for call in calls], [("weather", {"city": "Oslo"})])


def embed():
    answer = client.embeddings.create(model="gemini-embedding-001", input="one", dimensions=8, encoding_format="float")
    equal("dimensions", len(answer.data[0].embedding), 8)


def list_models():
    names = [model.id for model in client.models.list()]
    equal("among them", f"models/{MODEL}" in names, True)


def wrong_model():
    try:
        messages = [{"role": "user", "content": "please fail"}]
        client.chat.completions.create(model="gemini-2.5-flsh", messages=messages)
    except openai.NotFoundError as error:
        equal("whose words", "gemini-2.5-flsh is not found" in str(error.body), True)
    else:
        sys.exit("a misspelt model was answered")


def asynchronous():
    async def both():
        client = openai.AsyncOpenAI(api_key="key-of-the-caller", base_url=BASE_URL, max_retries=0)
        ask, stream = ([{"role": "user", "content": text}] for text in ("and so on", "piece by piece"))
        answer = await client.chat.completions.create(model=MODEL, messages=ask)
        chunks = await client.chat.completions.create(model=MODEL, messages=stream, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])
        return [answer.choices[0].message.content, text]

    equal("texts", asyncio.run(both()), ["You said: and so on", "You said: piece by piece"])


for check in (generate, stream, chat, tools, stream_tools, embed, list_models, wrong_model, asynchronous):
    check()
    print(f"openai {openai.__version__}: {check.__name__}")
