// Runs cells of the clients' matrix: calls that end in some way, made with an unmodified client.
//
// A script says "ready" once its client is imported, reads a list of cells as JSON from its standard input, and reports each on
// a line "cell {…}". tests/clients.rs says what must come of them.

import { AsyncLocalStorage, createHook } from 'node:async_hooks';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

// `require` looks where NODE_PATH says, which `import` does not.
export const require = createRequire(import.meta.url);

// A key of the caller's own, which must never go further than the relay.
export const KEY = 'key-of-the-caller';

// An error that a client hands out among its events, as the user of its events meets it.
export class Told {
  constructor(error, code = null) {
    this.error = error;
    this.code = code;
  }
}

// A rejection that nobody handles ends the process of an ordinary user. Here it is noted, with the cell whose promise it was.
const running = new AsyncLocalStorage();
const owners = new WeakMap();
createHook({
  init(_id, type, _trigger, promise) {
    if (type === 'PROMISE' && running.getStore()) owners.set(promise, running.getStore());
  },
}).enable();
process.on('unhandledRejection', (_reason, promise) => {
  const owner = owners.get(promise);
  if (owner) owner.unhandled = true;
});

export async function run(clients) {
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    // Many cells wait most of their time.
    const cells = JSON.parse(line);
    const worker = async () => {
      for (let cell; (cell = cells.shift()); ) {
        const noted = { unhandled: false };
        const seen = await running.run(noted, () => report(clients[cell.client], cell));
        // Rejections are noticed once all that is ready has run.
        await new Promise((done) => setTimeout(done, 5));
        console.log(`cell ${JSON.stringify({ ...seen, ...noted })}`);
      }
    };
    await Promise.all(Array.from({ length: 8 }, worker));
    break;
  }
  // Connections that are kept alive do not keep the process.
  process.exit(0);
}

async function report(client, cell) {
  let [text, told, thrown, history] = ['', null, null, null];
  try {
    for await (const piece of client[cell.way](cell)) {
      if (piece instanceof Told) told = piece;
      else if (Array.isArray(piece)) history = piece;
      else text += piece ?? '';
    }
  } catch (error) {
    thrown = error;
  }
  return {
    key: cell.key,
    text,
    history,
    told: told !== null,
    thrown: thrown !== null,
    code: told?.code ?? code(told?.error) ?? code(thrown),
    words: String(thrown ?? told?.error?.message ?? JSON.stringify(told?.error) ?? ''),
  };
}

// Returns the code that a user finds on an error, or on the error that it was made from.
function code(error) {
  for (const seen = []; error && typeof error === 'object' && !seen.includes(error); error = error.cause) {
    seen.push(error);
    for (const name of ['statusCode', 'status', 'code']) {
      if (/^\d+$/.test(error[name])) return Number(error[name]);
    }
  }
  return null;
}
