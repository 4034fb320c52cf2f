"""openai for Python, at the surface that is compatible with it."""

from openai import OpenAI

import cells


def ask(cell, **more):
    options = {} if cell["retries"] else {"max_retries": 0}
    client = OpenAI(api_key=cells.KEY, base_url=f"{cell['base']}/v1beta/openai/", **options)
    messages = [{"role": "user", "content": cell["prompt"]}]
    return client.chat.completions.create(model=cell["model"], messages=messages, **more)


def unary(cell):
    yield ask(cell).choices[0].message.content


def stream(cell):
    for chunk in ask(cell, stream=True):
        yield chunk.choices[0].delta.content


cells.run({"openai-py": {"unary": unary, "stream": stream}})
