"""OpenAI's Python SDK, unmodified, through a relay whose upstream fails twice before each answer.

    python openai_compatible.py http://127.0.0.1:8787

Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.
"""

import sys

import openai

MODEL = "gemini-2.5-flash"

# A key of the caller's own, which must never go further than the relay; and no retries but the relay's.
client = openai.OpenAI(api_key="key-of-the-caller", base_url=f"{sys.argv[1]}/v1beta/openai/", max_retries=0)


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


for check in (generate, stream, embed, list_models, wrong_model):
    check()
    print(f"openai {openai.__version__}: {check.__name__}")
