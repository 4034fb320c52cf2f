// @google/genai, and its surface of interactions.

import { KEY, Told, require, run } from './cells.mjs';

const { GoogleGenAI } = require('@google/genai');

const client = (cell) => new GoogleGenAI({ apiKey: KEY, httpOptions: { baseUrl: cell.base } });
const interact = (cell, more) =>
  client(cell).interactions.create(
    { model: cell.model, input: cell.prompt, ...more },
    cell.retries ? {} : { maxRetries: 0 },
  );

run({
  'genai-js': {
    async *unary(cell) {
      yield (await client(cell).models.generateContent({ model: cell.model, contents: cell.prompt })).text;
    },
    async *stream(cell) {
      const chunks = await client(cell).models.generateContentStream({ model: cell.model, contents: cell.prompt });
      for await (const chunk of chunks) yield chunk.text;
    },
    async *chat(cell) {
      const chat = client(cell).chats.create({ model: cell.model });
      for await (const chunk of await chat.sendMessageStream({ message: cell.prompt })) yield chunk.text;
      yield chat.getHistory(true).map((turn) => turn.parts.map((part) => part.text ?? '').join(''));
    },
  },
  'genai-js-interactions': {
    async *unary(cell) {
      yield (await interact(cell)).output_text;
    },
    async *stream(cell) {
      for await (const event of await interact(cell, { stream: true })) {
        if (event.event_type === 'step.delta') yield event.delta.text;
        if (event.event_type === 'error') yield new Told(event.error, event.error.code);
      }
    },
  },
});
