// OpenAI's JavaScript SDK, unmodified, through a relay whose upstream fails.
//
//     NODE_PATH=…/node_modules node openai.mjs http://127.0.0.1:8787
//
// Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// `require` looks where NODE_PATH says, which `import` does not.
const require = createRequire(import.meta.url);
const OpenAI = require('openai');

const model = 'gemini-2.5-flash';

// A key of the caller's own, which must never go further than the relay; and no retries but the relay's.
const client = new OpenAI({ apiKey: 'key-of-the-caller', baseURL: `${process.argv[2]}/v1beta/openai/`, maxRetries: 0 });

const ask = (content, more) => client.chat.completions.create({ model, messages: [{ role: 'user', content }], ...more });

const checks = {
  async generate() {
    const [choice] = (await ask('please generate')).choices;
    assert.deepEqual([choice.message.content, choice.finish_reason], ['You said: please generate', 'stop']);
  },

  async stream() {
    let text = '';
    let last;
    for await (const chunk of await ask('please stream', { stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? '';
      last = chunk.choices[0]?.finish_reason ?? last;
    }
    assert.deepEqual([text, last], ['You said: please stream', 'stop']);
  },

  async wrong_model() {
    await assert.rejects(ask('please fail', { model: 'gemini-2.5-flsh' }), (error) => {
      assert(error instanceof OpenAI.NotFoundError);
      assert.match(error.message, /gemini-2\.5-flsh is not found/);
      return true;
    });
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`openai for Node: ${name}`);
}
