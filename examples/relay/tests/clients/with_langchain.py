"""LangChain's class for Gemini in Python."""

from langchain_google_genai import ChatGoogleGenerativeAI

import cells


def model(cell):
    options = {} if cell["retries"] else {"max_retries": 1}
    return ChatGoogleGenerativeAI(model=cell["model"], api_key=cells.KEY, base_url=cell["base"], **options)


def unary(cell):
    yield model(cell).invoke(cell["prompt"]).text


def stream(cell):
    mine = model(cell)
    for chunk in mine.stream(cell["prompt"]):
        yield chunk.text


cells.run({"langchain-google-genai": {"unary": unary, "stream": stream}})
