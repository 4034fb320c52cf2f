// Genkit with its plugin for Gemini.

import { KEY, require, run } from './cells.mjs';

const { genkit } = require('genkit');
const { googleAI } = require('@genkit-ai/google-genai');

const ai = genkit({ plugins: [googleAI({ apiKey: KEY })] });
const asked = (cell) => ({ model: googleAI.model(cell.model), prompt: cell.prompt, config: { baseUrl: cell.base } });

run({
  genkit: {
    async *unary(cell) {
      yield (await ai.generate(asked(cell))).text;
    },
    async *stream(cell) {
      const { stream, response } = ai.generateStream(asked(cell));
      for await (const chunk of stream) yield chunk.text;
      await response;
    },
  },
});
