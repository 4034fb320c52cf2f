// Vercel's AI SDK with its provider for Gemini.

import { KEY, Told, require, run } from './cells.mjs';

const { generateText, streamText } = require('ai');
const { createGoogleGenerativeAI } = require('@ai-sdk/google');

const asked = (cell) => ({
  model: createGoogleGenerativeAI({ apiKey: KEY, baseURL: `${cell.base}/v1beta` })(cell.model),
  prompt: cell.prompt,
  ...(cell.retries ? {} : { maxRetries: 0 }),
});

run({
  ai: {
    async *unary(cell) {
      yield (await generateText(asked(cell))).text;
    },
    async *stream(cell) {
      for await (const part of streamText({ ...asked(cell), onError() {} }).fullStream) {
        if (part.type === 'text-delta') yield part.text;
        if (part.type === 'error') yield new Told(part.error);
      }
    },
  },
});
