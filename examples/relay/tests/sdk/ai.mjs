// Vercel's AI SDK with its provider for Gemini, unmodified, through a relay whose upstream fails.
//
//     NODE_PATH=…/node_modules node ai.mjs http://127.0.0.1:8787
//
// Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// `require` looks where NODE_PATH says, which `import` does not.
const require = createRequire(import.meta.url);
const { APICallError, generateText, streamText } = require('ai');
const { createGoogleGenerativeAI } = require('@ai-sdk/google');

// A key of the caller's own, which must never go further than the relay; and no retries but the relay's.
const google = createGoogleGenerativeAI({ apiKey: 'key-of-the-caller', baseURL: `${process.argv[2]}/v1beta` });
const asked = (prompt, model = 'gemini-2.5-flash') => ({ model: google(model), prompt, maxRetries: 0 });

const checks = {
  async generate() {
    const answer = await generateText(asked('please generate'));
    assert.deepEqual([answer.text, answer.finishReason], ['You said: please generate', 'stop']);
  },

  async stream() {
    const answer = streamText(asked('please stream'));
    const pieces = [];
    for await (const piece of answer.textStream) pieces.push(piece);
    assert.equal(pieces.join(''), 'You said: please stream');
    assert.equal(await answer.finishReason, 'stop');
  },

  async wrong_model() {
    await assert.rejects(generateText(asked('please fail', 'gemini-2.5-flsh')), (error) => {
      assert(APICallError.isInstance(error));
      assert.equal(error.statusCode, 404);
      assert.match(error.message, /gemini-2\.5-flsh is not found/);
      return true;
    });
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`ai: ${name}`);
}
