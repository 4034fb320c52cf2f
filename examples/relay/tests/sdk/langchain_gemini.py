"""LangChain's classes for Gemini, unmodified, through a relay whose upstream fails.

    python langchain_gemini.py http://127.0.0.1:8787

Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.
"""

import asyncio
import sys
from importlib.metadata import version

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings

MODEL = "gemini-2.5-flash"

# A key of the caller's own, which must never go further than the relay; and one attempt a call: its own default is six.
model = ChatGoogleGenerativeAI(model=MODEL, api_key="key-of-the-caller", base_url=sys.argv[1], max_retries=1)


def equal(what, is_, should_be):
    if is_ != should_be:
        sys.exit(f"{what}: {is_!r} instead of {should_be!r}")


def generate():
    answer = model.invoke("please generate")
    equal("text", answer.text, "You said: please generate")
    equal("finish reason", answer.response_metadata["finish_reason"], "STOP")
    usage = answer.usage_metadata
    equal("tokens", usage["input_tokens"] + usage["output_tokens"], usage["total_tokens"])


def stream():
    chunks = [chunk.text for chunk in model.stream("please stream")]
    equal("pieces", len([chunk for chunk in chunks if chunk]), 3)
    equal("text", "".join(chunks), "You said: please stream")


def chat():
    first = HumanMessage("please chat")
    answer = model.invoke([first])
    equal("first turn", answer.text, "You said: please chat")
    second = "".join(chunk.text for chunk in model.stream([first, answer, HumanMessage("and go on")]))
    equal("second turn", second, "You said: and go on")


def count_tokens():
    equal("tokens", model.get_num_tokens("twelve bytes"), 3)


@tool
def weather(city: str) -> str:
    """How the weather is in a city."""
    return f"Rain in {city}."


def tools():
    with_tools = model.bind_tools([weather])
    question = HumanMessage("how is the weather?")
    asks = with_tools.invoke([question])
    equal("call", [(call["name"], call["args"]) for call in asks.tool_calls], [("weather", {"city": "Oslo"})])
    result = weather.invoke(asks.tool_calls[0])
    equal("result", (type(result), result.content), (ToolMessage, "Rain in Oslo."))
    answer = with_tools.invoke([question, asks, result, HumanMessage("and so?")])
    equal("text", answer.text, "You said: and so?")


def stream_tools():
    chunks = list(model.bind_tools([weather]).stream("how is the weather?"))
    calls = [call for chunk in chunks for call in chunk.tool_calls]
    equal("call", [(call["name"], call["args"]) for call in calls], [("weather", {"city": "Oslo"})])


def embed():
    embeddings = GoogleGenerativeAIEmbeddings(
        model="gemini-embedding-001", api_key="key-of-the-caller", base_url=sys.argv[1], output_dimensionality=8
    )
    documents = embeddings.embed_documents(["one", "two"])
    equal("dimensions", [len(values) for values in documents], [8, 8])
    equal("the same", documents[0] == documents[1], False)


def wrong_model():
    wrong = ChatGoogleGenerativeAI(
        model="gemini-2.5-flsh", api_key="key-of-the-caller", base_url=sys.argv[1], max_retries=1
    )
    try:
        wrong.invoke("please fail")
    except Exception as error:  # its class has changed with each of its versions
        equal(f"whose words {error!r}", "gemini-2.5-flsh is not found" in str(error), True)
    else:
        sys.exit("a misspelt model was answered")


def asynchronous():
    async def both():
        answer = await model.ainvoke("and so on")
        return [answer.text, "".join([piece.text async for piece in model.astream("piece by piece")])]

    equal("texts", asyncio.run(both()), ["You said: and so on", "You said: piece by piece"])


for check in (generate, stream, chat, count_tokens, tools, stream_tools, embed, wrong_model, asynchronous):
    check()
    print(f"langchain-google-genai {version('langchain-google-genai')}: {check.__name__}")
