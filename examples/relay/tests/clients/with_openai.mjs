// openai for JavaScript, at the surface that is compatible with it.

import { KEY, require, run } from './cells.mjs';

const { OpenAI } = require('openai');

const ask = (cell, more) =>
  new OpenAI({
    apiKey: KEY,
    baseURL: `${cell.base}/v1beta/openai/`,
    ...(cell.retries ? {} : { maxRetries: 0 }),
  }).chat.completions.create({ model: cell.model, messages: [{ role: 'user', content: cell.prompt }], ...more });

run({
  'openai-js': {
    async *unary(cell) {
      yield (await ask(cell)).choices[0].message.content;
    },
    async *stream(cell) {
      for await (const chunk of await ask(cell, { stream: true })) yield chunk.choices[0].delta.content;
    },
  },
});
