// A page that calls a relay of another origin with fetch, and reports what it could read. tests/relay_browser.rs judges it.

const { relay, token } = Object.fromEntries(new URLSearchParams(location.search));
const ask = (model, method, text, headers = {}) =>
  fetch(`${relay}/v1beta/models/${model}:${method}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token && { 'x-goog-api-key': token }), ...headers },
    body: JSON.stringify({ contents: [{ parts: [{ text }] }] }),
  });

async function answer(response) {
  const { status, headers } = response;
  const body = await response.json();
  return { status, retryAfter: headers.get('retry-after'), body };
}

// The stream stalls behind its first event, which arrives all the same.
async function firstPiece() {
  const response = await ask('gemini-2.5-flash', 'streamGenerateContent?alt=sse', 'then stall');
  const reader = response.body.getReader();
  const { value } = await reader.read();
  await reader.cancel();
  return new TextDecoder().decode(value);
}

async function wholeStream() {
  const response = await ask('gemini-2.5-flash', 'streamGenerateContent?alt=sse', 'stream this');
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) text += piece.value;
  const events = text.split(/\r?\n\r?\n/).filter((event) => event.startsWith('data: '));
  return events.map((event) => JSON.parse(event.slice(6)).candidates[0].content.parts[0].text).join('');
}

async function simple() {
  // No browser asks first before a POST of plain text.
  const url = `${relay}/v1beta/models/gemini-2.5-flash:generateContent`;
  await fetch(url, { method: 'POST', mode: 'no-cors', body: '{"contents": [{"parts": [{"text": "spend"}]}]}' });
}

export async function run() {
  const failed = (error) => ({ failed: String(error) });
  return {
    answer: await ask('gemini-2.5-flash', 'generateContent', 'hello').then(answer).catch(failed),
    first: await firstPiece().catch(failed),
    stream: await wholeStream().catch(failed),
    overloaded: await ask('gemini-2.5-flash', 'generateContent', 'overload').then(answer).catch(failed),
    limited: [
      await ask('gemini-2.5-pro', 'generateContent', 'once').then(answer).catch(failed),
      await ask('gemini-2.5-pro', 'generateContent', 'twice').then(answer).catch(failed),
    ],
    stranger: await ask('gemini-2.5-flash', 'generateContent', 'hello', { 'x-goog-api-key': 'wrong' })
      .then(answer)
      .catch(failed),
    simple: await simple().catch(failed),
  };
}
