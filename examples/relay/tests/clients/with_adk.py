"""Google's Agent Development Kit."""

from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.models import Gemini
from google.adk.runners import InMemoryRunner
from google.genai import types

import cells


async def events(cell, mode):
    model = Gemini(model=cell["model"], base_url=cell["base"], client_kwargs={"api_key": cells.KEY})
    runner = InMemoryRunner(agent=LlmAgent(name="agent", model=model), app_name="matrix")
    session = await runner.session_service.create_session(app_name="matrix", user_id="user")
    asked = types.Content(role="user", parts=[types.Part(text=cell["prompt"])])
    run = {"user_id": "user", "session_id": session.id, "new_message": asked, "run_config": RunConfig(streaming_mode=mode)}
    async for event in runner.run_async(**run):
        if event.error_code:
            yield cells.Told(event.error_code, event.error_message), None
        for part in event.content.parts or [] if event.content else []:
            yield part.text, event.partial


async def unary(cell):
    async for piece, _ in events(cell, StreamingMode.NONE):
        yield piece


async def stream(cell):
    async for piece, partial in events(cell, StreamingMode.SSE):
        # The last event repeats the whole.
        if partial or isinstance(piece, cells.Told):
            yield piece


cells.run({"adk": {"unary": unary, "stream": stream}})
