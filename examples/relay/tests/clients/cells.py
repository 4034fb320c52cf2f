"""Runs cells of the clients' matrix: calls that end in some way, made with an unmodified client.

A script says "ready" once its client is imported, reads a list of cells as JSON from its standard input, and reports each on a
line "cell {…}". tests/clients.rs says what must come of them.
"""

import asyncio
import json
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor, as_completed

# A key of the caller's own, which must never go further than the relay.
KEY = "key-of-the-caller"

# An error that a client hands out among its events, as the user of its events meets it.
Told = namedtuple("Told", "code words")


def run(clients):
    print("ready", flush=True)
    cells = json.loads(sys.stdin.readline())
    # Many cells wait most of their time.
    with ThreadPoolExecutor(8) as pool:
        for done in as_completed([pool.submit(report, clients[cell["client"]], cell) for cell in cells]):
            print("cell " + json.dumps(done.result()), flush=True)


def report(client, cell):
    pieces, told, thrown, history = [], None, None, None
    try:
        said = client[cell["way"]](cell)
        for piece in asyncio.run(collected(said)) if hasattr(said, "__aiter__") else said:
            if isinstance(piece, Told):
                told = piece
            elif isinstance(piece, list):
                history = piece
            elif isinstance(piece, BaseException):
                thrown = piece
            else:
                pieces.append(piece or "")
    except BaseException as error:
        thrown = error
    return {
        "key": cell["key"],
        "text": "".join(pieces),
        "history": history,
        "told": told is not None,
        "thrown": thrown is not None,
        # An interaction's code is a word.
        "code": told.code if told else code(thrown),
        "words": f"{type(thrown).__name__}: {thrown}" if thrown else told and str(told.words),
    }


async def collected(said):
    pieces = []
    try:
        async for piece in said:
            pieces.append(piece)
    except BaseException as error:
        pieces.append(error)
    return pieces


def code(error):
    """Returns the code that a user finds on an error, or on the error that it was made from."""
    seen = []
    # aiohttp's parser has codes of its own for broken connections.
    while error is not None and error not in seen and not type(error).__module__.startswith("aiohttp.http"):
        seen.append(error)
        for name in ("status_code", "code"):
            found = getattr(error, name, None)
            if isinstance(found, int) or (isinstance(found, str) and found.isdecimal()):
                return int(found)
        error = getattr(error, "__cause__", None)
    return None
