// LangChain's class for Gemini in JavaScript, unmodified, through a relay whose upstream fails.
//
//     NODE_PATH=…/node_modules node langchain.mjs http://127.0.0.1:8787
//
// Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// `require` looks where NODE_PATH says, which `import` does not.
const require = createRequire(import.meta.url);
const { ChatGoogleGenerativeAI } = require('@langchain/google-genai');

// A key of the caller's own, which must never go further than the relay; and no retries but the relay's.
const options = { apiKey: 'key-of-the-caller', baseUrl: process.argv[2], maxRetries: 0 };
const model = new ChatGoogleGenerativeAI({ model: 'gemini-2.5-flash', ...options });

const checks = {
  async generate() {
    const answer = await model.invoke('please generate');
    assert.equal(answer.content, 'You said: please generate');
    const { input_tokens, output_tokens, total_tokens } = answer.usage_metadata;
    assert.equal(input_tokens + output_tokens, total_tokens);
  },

  async stream() {
    const pieces = [];
    for await (const piece of await model.stream('please stream')) pieces.push(piece.content);
    assert.equal(pieces.filter((piece) => piece).length, 3);
    assert.equal(pieces.join(''), 'You said: please stream');
  },

  async wrong_model() {
    const wrong = new ChatGoogleGenerativeAI({ model: 'gemini-2.5-flsh', ...options });
    await assert.rejects(wrong.invoke('please fail'), (error) => {
      assert.equal(error.status, 404);
      assert.match(error.message, /gemini-2\.5-flsh is not found/);
      return true;
    });
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`@langchain/google-genai: ${name}`);
}
