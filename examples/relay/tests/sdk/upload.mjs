// Google's JavaScript SDK, unmodified, uploads files through a relay that wants a token.
//
//     NODE_PATH=…/node_modules node upload.mjs http://127.0.0.1:8787
//
// Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the requests.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// `require` looks where NODE_PATH says, which `import` does not.
const { GoogleGenAI } = createRequire(import.meta.url)('@google/genai');

// One part and the beginning of the next: the SDK cuts at 8 MiB.
const sizes = [10, 8 * 1024 * 1024 + 100];
const mimeType = 'text/plain';
const client = new GoogleGenAI({ apiKey: 'token-of-the-caller', httpOptions: { baseUrl: process.argv[2] } });

function check(kept, size) {
  assert.deepEqual([Number(kept.sizeBytes), kept.state], [size, 'ACTIVE']);
}

for (const size of sizes) {
  check(await client.files.upload({ file: new Blob(['x'.repeat(size)], { type: mimeType }) }), size);
}
console.log('@google/genai: upload, blobs');

const folder = await mkdtemp(join(tmpdir(), 'uploads-'));
try {
  for (const size of sizes) {
    const file = join(folder, 'notes.txt');
    await writeFile(file, 'x'.repeat(size));
    check(await client.files.upload({ file, config: { mimeType } }), size);
  }
} finally {
  await rm(folder, { recursive: true });
}
console.log('@google/genai: upload, paths');
