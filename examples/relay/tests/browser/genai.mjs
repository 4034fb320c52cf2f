// A page in which Google's JavaScript SDK, unmodified, calls a relay of another origin. tests/relay_browser.rs judges it.

import { GoogleGenAI } from '@google/genai';

const { relay, token } = Object.fromEntries(new URLSearchParams(location.search));
const client = new GoogleGenAI({ apiKey: token, httpOptions: { baseUrl: relay } });
const model = 'gemini-2.5-flash';

export async function run() {
  const answer = await client.models.generateContent({ model, contents: 'hello' });
  let stream = '';
  for await (const chunk of await client.models.generateContentStream({ model, contents: 'stream this' })) {
    stream += chunk.text ?? '';
  }
  const overloaded = await client.models.generateContent({ model, contents: 'overload' }).catch((error) => error);
  // One part and the beginning of the next: the SDK cuts at 8 MiB.
  const file = new Blob(['x'.repeat(8 * 1024 * 1024 + 100)], { type: 'text/plain' });
  const kept = await client.files.upload({ file });
  return {
    answer: answer.text,
    stream,
    overloaded: { status: overloaded.status, message: overloaded.message },
    kept: { size: Number(kept.sizeBytes), state: kept.state },
  };
}
