// LangChain's two classes for Gemini in JavaScript.

import { KEY, require, run } from './cells.mjs';

const { ChatGoogleGenerativeAI } = require('@langchain/google-genai');
const { ChatGoogle } = require('@langchain/google');

const options = (cell) => ({ model: cell.model, apiKey: KEY, ...(cell.retries ? {} : { maxRetries: 0 }) });
const client = (model) => ({
  async *unary(cell) {
    yield (await model(cell).invoke(cell.prompt)).text;
  },
  async *stream(cell) {
    for await (const chunk of await model(cell).stream(cell.prompt)) yield chunk.text;
  },
});

run({
  '@langchain/google-genai': client((cell) => new ChatGoogleGenerativeAI({ ...options(cell), baseUrl: cell.base })),
  '@langchain/google': client((cell) => new ChatGoogle({ ...options(cell), endpoint: cell.base })),
});
