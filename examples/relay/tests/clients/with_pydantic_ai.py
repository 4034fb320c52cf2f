"""Pydantic AI."""

from pydantic_ai import Agent
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.google import GoogleProvider

import cells


def agent(cell):
    # Its own tries are about answers that it cannot use.
    options = {} if cell["retries"] else {"retries": 0}
    provider = GoogleProvider(api_key=cells.KEY, base_url=cell["base"])
    return Agent(GoogleModel(cell["model"], provider=provider), **options)


async def unary(cell):
    yield (await agent(cell).run(cell["prompt"])).output


async def stream(cell):
    async with agent(cell).run_stream(cell["prompt"]) as answer:
        async for piece in answer.stream_text(delta=True, debounce_by=None):
            yield piece


cells.run({"pydantic-ai": {"unary": unary, "stream": stream}})
