"""Google's Python SDK, unmodified, through a relay whose upstream fails.

    python gemini.py http://127.0.0.1:8787

Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.
"""

import asyncio
import io
import sys

from google import genai
from google.genai import errors, types

MODEL = "gemini-2.5-flash"

# A key of the caller's own, which must never go further than the relay. The SDK retries nothing unless told to.
client = genai.Client(api_key="key-of-the-caller", http_options=types.HttpOptions(base_url=sys.argv[1]))


def equal(what, is_, should_be):
    if is_ != should_be:
        sys.exit(f"{what}: {is_!r} instead of {should_be!r}")


def generate():
    answer = client.models.generate_content(model=MODEL, contents="please generate")
    equal("text", answer.text, "You said: please generate")
    equal("finish reason", answer.candidates[0].finish_reason, types.FinishReason.STOP)
    usage = answer.usage_metadata
    equal("tokens", usage.prompt_token_count + usage.candidates_token_count, usage.total_token_count)


def stream():
    chunks = list(client.models.generate_content_stream(model=MODEL, contents="please stream"))
    equal("pieces", len(chunks), 3)
    equal("text", "".join(chunk.text for chunk in chunks), "You said: please stream")
    equal("finish reason", chunks[-1].candidates[0].finish_reason, types.FinishReason.STOP)


def chat():
    conversation = client.chats.create(model=MODEL)
    equal("first turn", conversation.send_message("please chat").text, "You said: please chat")
    second = "".join(chunk.text for chunk in conversation.send_message_stream("and go on"))
    equal("second turn", second, "You said: and go on")
    roles = [turn.role for turn in conversation.get_history()]
    equal("roles", (roles[:3], set(roles[3:])), (["user", "model", "user"], {"model"}))  # a turn for each piece


def weather(city: str) -> str:
    """How the weather is in a city."""
    return f"Rain in {city}."


def tools():
    # The SDK calls the function itself, and asks again with what came of it.
    config = types.GenerateContentConfig(tools=[weather])
    answer = client.models.generate_content(model=MODEL, contents="how is the weather?", config=config)
    turns = answer.automatic_function_calling_history
    equal("call", turns[1].parts[0].function_call.args, {"city": "Oslo"})
    equal("result", turns[2].parts[0].function_response.response, {"result": "Rain in Oslo."})
    equal("finish reason", answer.candidates[0].finish_reason, types.FinishReason.STOP)


def stream_tools():
    declared = types.FunctionDeclaration.from_callable(client=client._api_client, callable=weather)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
    chunks = list(client.models.generate_content_stream(model=MODEL, contents="how is the weather?", config=config))
    calls = [call for chunk in chunks for call in chunk.function_calls or []]
    equal("call", [(call.name, call.args) for call in calls], [("weather", {"city": "Oslo"})])


def count_tokens():
    counted = client.models.count_tokens(model=MODEL, contents="twelve bytes")
    equal("tokens", counted.total_tokens, 3)


def embed():
    config = types.EmbedContentConfig(output_dimensionality=8)
    answer = client.models.embed_content(model="gemini-embedding-001", contents=["one", "two"], config=config)
    equal("dimensions", [len(embedding.values) for embedding in answer.embeddings], [8, 8])
    equal("the same", answer.embeddings[0].values == answer.embeddings[1].values, False)


def list_models():
    names = [model.name for model in client.models.list(config={"page_size": 6})]
    equal("models", len(names), 11)
    equal("among them", f"models/{MODEL}" in names, True)


def files():
    kept = client.files.upload(file=io.BytesIO(b"some notes"), config={"mime_type": "text/plain", "display_name": "notes"})
    equal("file", (kept.display_name, kept.size_bytes, kept.state), ("notes", 10, types.FileState.ACTIVE))
    answer = client.models.generate_content(model=MODEL, contents=[kept, "what is it?"])
    equal("text", answer.text, "You said: what is it?")
    equal("the same", client.files.get(name=kept.name).uri, kept.uri)
    equal("files", [file.name for file in client.files.list()], [kept.name])
    client.files.delete(name=kept.name)


def caches():
    cached = client.caches.create(model=MODEL, config={"contents": "a long book", "ttl": "300s"})
    config = types.GenerateContentConfig(cached_content=cached.name)
    answer = client.models.generate_content(model=MODEL, contents="how does it end?", config=config)
    equal("text", answer.text, "You said: how does it end?")
    client.caches.delete(name=cached.name)


def interactions():
    first = client.interactions.create(model=MODEL, input="please interact")
    equal("answer", (first.status, first.output_text), ("completed", "You said: please interact"))
    equal("tokens", first.usage.total_input_tokens + first.usage.total_output_tokens, first.usage.total_tokens)
    equal("the same", client.interactions.get(id=first.id).output_text, first.output_text)
    second = client.interactions.create(model=MODEL, input="and go on", previous_interaction_id=first.id)
    equal("second turn", (second.previous_interaction_id, second.output_text), (first.id, "You said: and go on"))
    client.interactions.delete(id=first.id)
    try:
        client.interactions.create(model=MODEL, input="and go on", previous_interaction_id=first.id)
    except Exception as error:  # its class is not public
        equal(f"whose words {error!r}", (error.status_code, "not_found" in str(error)), (404, True))
    else:
        sys.exit("an interaction that is gone was continued")


def stream_interaction():
    events = list(client.interactions.create(model=MODEL, input="please stream an interaction", stream=True))
    equal("begin", events[0].event_type, "interaction.created")
    text = "".join(event.delta.text for event in events if event.event_type == "step.delta")
    equal("text", text, "You said: please stream an interaction")
    equal("end", (events[-1].event_type, events[-1].interaction.status), ("interaction.completed", "completed"))
    usage = events[-1].interaction.usage
    equal("tokens", usage.total_input_tokens + usage.total_output_tokens, usage.total_tokens)


def continued_interaction():
    answer = client.interactions.create(model=MODEL, input="tell it in parts")
    equal("answer", (answer.status, answer.output_text), ("completed", "You said: tell it in parts"))
    equal("parts", len(answer.continuation_ids), 2)


def batches():
    inline = client.batches.create(model=MODEL, src=[{"contents": "one by one"}], config={"display_name": "inline"})
    equal("begin", inline.state, types.JobState.JOB_STATE_PENDING)
    done = client.batches.get(name=inline.name)
    equal("end", (done.name, done.state), (inline.name, types.JobState.JOB_STATE_SUCCEEDED))
    equal("text", done.dest.inlined_responses[0].response.text, "You said: one by one")
    lines = b'{"key": "a", "request": {"contents": [{"parts": [{"text": "hi"}]}]}}\n' * 2
    asked = client.files.upload(file=io.BytesIO(lines), config={"mime_type": "application/jsonl"})
    job = client.batches.create(model=MODEL, src=asked.name)
    done = client.batches.get(name=job.name)
    equal("results", len(client.files.download(file=done.dest.file_name).splitlines()), 2)
    # A batch of its own requests may be another project's than the one that lists.
    equal("among them", job.name in [each.name for each in client.batches.list()], True)
    client.batches.delete(name=inline.name)
    client.batches.delete(name=job.name)


def wrong_model():
    try:
        client.models.generate_content(model="gemini-2.5-flsh", contents="please fail")
    except errors.ClientError as error:
        equal("error", (error.code, error.status), (404, "NOT_FOUND"))
        equal("whose words", "gemini-2.5-flsh is not found" in error.message, True)
    else:
        sys.exit("a misspelt model was answered")


def asynchronous():
    async def both():
        answer = await client.aio.models.generate_content(model=MODEL, contents="and so on")
        pieces = await client.aio.models.generate_content_stream(model=MODEL, contents="piece by piece")
        return [answer.text, "".join([piece.text async for piece in pieces])]

    equal("texts", asyncio.run(both()), ["You said: and so on", "You said: piece by piece"])


CHECKS = (
    generate,
    stream,
    chat,
    tools,
    stream_tools,
    count_tokens,
    embed,
    list_models,
    files,
    caches,
    interactions,
    stream_interaction,
    continued_interaction,
    batches,
    wrong_model,
    asynchronous,
)
for check in CHECKS:
    check()
    print(f"google-genai {genai.__version__}: {check.__name__}")
