"""LiteLLM."""

import litellm

import cells

litellm.suppress_debug_info = True


def ask(cell, **more):
    # The base has to name the version: LiteLLM adds none.
    options = {"api_base": f"{cell['base']}/v1beta", "api_key": cells.KEY} | ({} if cell["retries"] else {"num_retries": 0})
    messages = [{"role": "user", "content": cell["prompt"]}]
    return litellm.completion(model=f"gemini/{cell['model']}", messages=messages, **options, **more)


def unary(cell):
    yield ask(cell).choices[0].message.content


def stream(cell):
    for chunk in ask(cell, stream=True):
        yield chunk.choices[0].delta.content


cells.run({"litellm": {"unary": unary, "stream": stream}})
