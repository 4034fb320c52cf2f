"""LlamaIndex's class for Gemini."""

from llama_index.llms.google_genai import GoogleGenAI

import cells


def model(cell):
    options = {} if cell["retries"] else {"max_retries": 0}
    # With its sizes given, it does not ask for the model's.
    sizes = {"max_tokens": 1000, "context_window": 100_000}
    return GoogleGenAI(model=cell["model"], api_key=cells.KEY, http_options={"base_url": cell["base"]}, **sizes, **options)


def unary(cell):
    yield model(cell).complete(cell["prompt"]).text


def stream(cell):
    mine = model(cell)
    for chunk in mine.stream_complete(cell["prompt"]):
        yield chunk.delta


cells.run({"llama-index": {"unary": unary, "stream": stream}})
