"""google-genai: its two halves, and the surface of interactions."""

from google import genai
from google.genai import types

import cells


def client(cell):
    options = types.HttpOptions(base_url=cell["base"])
    if not cell["retries"]:
        options.retry_options = types.HttpRetryOptions(attempts=1)
    return genai.Client(api_key=cells.KEY, http_options=options)


def unary(cell):
    # The client ends its connections when it is dropped.
    mine = client(cell)
    yield mine.models.generate_content(model=cell["model"], contents=cell["prompt"]).text


def stream(cell):
    mine = client(cell)
    for chunk in mine.models.generate_content_stream(model=cell["model"], contents=cell["prompt"]):
        yield chunk.text


def chat(cell):
    mine = client(cell)
    chat = mine.chats.create(model=cell["model"])
    for chunk in chat.send_message_stream(cell["prompt"]):
        yield chunk.text
    yield history(chat)


def history(chat):
    return ["".join(part.text or "" for part in turn.parts) for turn in chat.get_history(curated=True)]


async def unary_async(cell):
    async with client(cell).aio as mine:
        yield (await mine.models.generate_content(model=cell["model"], contents=cell["prompt"])).text


async def stream_async(cell):
    async with client(cell).aio as mine:
        async for chunk in await mine.models.generate_content_stream(model=cell["model"], contents=cell["prompt"]):
            yield chunk.text


async def chat_async(cell):
    async with client(cell).aio as mine:
        chat = mine.chats.create(model=cell["model"])
        async for chunk in await chat.send_message_stream(cell["prompt"]):
            yield chunk.text
        yield history(chat)


def interaction(cell):
    mine = client(cell)
    yield mine.interactions.create(model=cell["model"], input=cell["prompt"]).output_text


def interaction_stream(cell):
    mine = client(cell)
    for event in mine.interactions.create(model=cell["model"], input=cell["prompt"], stream=True):
        if event.event_type == "step.delta":
            yield event.delta.text
        elif event.event_type == "error":
            yield cells.Told(event.error.code, event.error.message)


cells.run(
    {
        "genai-py": {"unary": unary, "stream": stream, "chat": chat},
        "genai-py-async": {"unary": unary_async, "stream": stream_async, "chat": chat_async},
        "genai-py-interactions": {"unary": interaction, "stream": interaction_stream},
    }
)
