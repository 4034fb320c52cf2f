"""LiteLLM, unmodified, through a relay whose upstream fails.

    python litellm_gemini.py http://127.0.0.1:8787

Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.
"""

import sys
from importlib.metadata import version

import litellm

# The base has to name the version: LiteLLM adds none. The key is the caller's own, and must not go further than the relay.
OPTIONS = {"api_base": f"{sys.argv[1]}/v1beta", "api_key": "key-of-the-caller", "num_retries": 0}


def equal(what, is_, should_be):
    if is_ != should_be:
        sys.exit(f"{what}: {is_!r} instead of {should_be!r}")


def ask(text, model="gemini/gemini-2.5-flash", **more):
    return litellm.completion(model=model, messages=[{"role": "user", "content": text}], **OPTIONS, **more)


def generate():
    answer = ask("please generate")
    equal("text", answer.choices[0].message.content, "You said: please generate")
    equal("finish reason", answer.choices[0].finish_reason, "stop")
    equal("tokens", answer.usage.prompt_tokens + answer.usage.completion_tokens, answer.usage.total_tokens)


def stream():
    chunks = list(ask("please stream", stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    equal("text", text, "You said: please stream")
    equal("finish reason", chunks[-1].choices[0].finish_reason, "stop")


def wrong_model():
    try:
        ask("please fail", model="gemini/gemini-2.5-flsh")
    except litellm.NotFoundError as error:
        equal(f"whose words {error!r}", "gemini-2.5-flsh is not found" in str(error), True)
    else:
        sys.exit("a misspelt model was answered")


for check in (generate, stream, wrong_model):
    check()
    print(f"litellm {version('litellm')}: {check.__name__}")
