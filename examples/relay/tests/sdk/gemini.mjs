// Google's JavaScript SDK, unmodified, through a relay whose upstream fails.
//
//     NODE_PATH=…/node_modules node gemini.mjs http://127.0.0.1:8787
//
// Prints a line for each check, and ends with an error at the first wrong answer. tests/sdk.rs counts the attempts.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// `require` looks where NODE_PATH says, which `import` does not.
const require = createRequire(import.meta.url);
const genai = require('@google/genai');
const { ApiError, FinishReason, GoogleGenAI, JobState, Type } = genai;
const { createPartFromFunctionResponse, createPartFromUri, createUserContent } = genai;

const model = 'gemini-2.5-flash';

// A key of the caller's own, which must never go further than the relay. The SDK retries nothing unless told to.
const client = new GoogleGenAI({ apiKey: 'key-of-the-caller', httpOptions: { baseUrl: process.argv[2] } });

async function collect(pieces) {
  const all = [];
  for await (const piece of pieces) all.push(piece);
  return all;
}

const parameters = { type: Type.OBJECT, properties: { city: { type: Type.STRING } }, required: ['city'] };
const description = 'How the weather is in a city.';
const tools = [{ functionDeclarations: [{ name: 'weather', description, parameters }] }];

const checks = {
  async generate() {
    const answer = await client.models.generateContent({ model, contents: 'please generate' });
    assert.equal(answer.text, 'You said: please generate');
    assert.equal(answer.candidates[0].finishReason, FinishReason.STOP);
    const usage = answer.usageMetadata;
    assert.equal(usage.promptTokenCount + usage.candidatesTokenCount, usage.totalTokenCount);
  },

  async stream() {
    const chunks = await collect(await client.models.generateContentStream({ model, contents: 'please stream' }));
    assert.equal(chunks.length, 3);
    assert.equal(chunks.map((chunk) => chunk.text).join(''), 'You said: please stream');
    assert.equal(chunks.at(-1).candidates[0].finishReason, FinishReason.STOP);
  },

  async chat() {
    const conversation = client.chats.create({ model });
    assert.equal((await conversation.sendMessage({ message: 'please chat' })).text, 'You said: please chat');
    const second = await collect(await conversation.sendMessageStream({ message: 'and go on' }));
    assert.equal(second.map((chunk) => chunk.text).join(''), 'You said: and go on');
    const turns = conversation.getHistory(true).map((turn) => turn.role);
    assert.deepEqual(turns.slice(0, 3), ['user', 'model', 'user']);
    assert(turns.slice(3).every((role) => role === 'model')); // a turn for each piece
  },

  async tools() {
    const asked = createUserContent('how is the weather?');
    const answer = await client.models.generateContent({ model, contents: [asked], config: { tools } });
    const [call] = answer.functionCalls;
    assert.deepEqual([call.name, call.args], ['weather', { city: 'Oslo' }]);
    const result = createPartFromFunctionResponse(call.id ?? '', call.name, { result: 'Rain in Oslo.' });
    const contents = [asked, answer.candidates[0].content, createUserContent([result, 'and so?'])];
    const said = await client.models.generateContent({ model, contents, config: { tools } });
    assert.equal(said.text, 'You said: and so?');
  },

  async stream_tools() {
    const asked = { model, contents: 'how is the weather?', config: { tools } };
    const chunks = await collect(await client.models.generateContentStream(asked));
    const calls = chunks.flatMap((chunk) => chunk.functionCalls ?? []).map((call) => [call.name, call.args]);
    assert.deepEqual(calls, [['weather', { city: 'Oslo' }]]);
  },

  async count_tokens() {
    const counted = await client.models.countTokens({ model, contents: 'twelve bytes' });
    assert.equal(counted.totalTokens, 3);
  },

  async embed() {
    const config = { outputDimensionality: 8 };
    const answer = await client.models.embedContent({ model: 'gemini-embedding-001', contents: ['one', 'two'], config });
    assert.deepEqual(answer.embeddings.map((embedding) => embedding.values.length), [8, 8]);
    assert.notDeepEqual(answer.embeddings[0].values, answer.embeddings[1].values);
  },

  async list_models() {
    const names = (await collect(await client.models.list({ config: { pageSize: 6 } }))).map((model) => model.name);
    assert.equal(names.length, 11);
    assert(names.includes(`models/${model}`));
  },

  async files() {
    const notes = new Blob(['some notes'], { type: 'text/plain' });
    const kept = await client.files.upload({ file: notes, config: { displayName: 'notes' } });
    assert.deepEqual([kept.displayName, Number(kept.sizeBytes), kept.state], ['notes', 10, 'ACTIVE']);
    const contents = createUserContent([createPartFromUri(kept.uri, kept.mimeType), 'what is it?']);
    assert.equal((await client.models.generateContent({ model, contents })).text, 'You said: what is it?');
    assert.equal((await client.files.get({ name: kept.name })).uri, kept.uri);
    assert.deepEqual((await collect(await client.files.list())).map((file) => file.name), [kept.name]);
    await client.files.delete({ name: kept.name });
  },

  async caches() {
    const cached = await client.caches.create({ model, config: { contents: 'a long book', ttl: '300s' } });
    const config = { cachedContent: cached.name };
    const answer = await client.models.generateContent({ model, contents: 'how does it end?', config });
    assert.equal(answer.text, 'You said: how does it end?');
    await client.caches.delete({ name: cached.name });
  },

  async interactions() {
    const first = await client.interactions.create({ model, input: 'please interact' });
    assert.deepEqual([first.status, first.output_text], ['completed', 'You said: please interact']);
    assert.equal(first.usage.total_input_tokens + first.usage.total_output_tokens, first.usage.total_tokens);
    assert.equal((await client.interactions.get(first.id)).output_text, first.output_text);
    const next = { model, input: 'and go on', previous_interaction_id: first.id };
    const second = await client.interactions.create(next);
    assert.deepEqual([second.previous_interaction_id, second.output_text], [first.id, 'You said: and go on']);
    await client.interactions.delete(first.id);
    await assert.rejects(client.interactions.create(next), (error) => {
      assert.equal(error.status, 404);
      assert.match(error.message, /not found/);
      return true;
    });
  },

  async stream_interaction() {
    const asked = { model, input: 'please stream an interaction', stream: true };
    const events = await collect(await client.interactions.create(asked));
    assert.equal(events[0].event_type, 'interaction.created');
    const deltas = events.filter((event) => event.event_type === 'step.delta').map((event) => event.delta.text);
    assert.equal(deltas.join(''), 'You said: please stream an interaction');
    const { event_type, interaction } = events.at(-1);
    assert.deepEqual([event_type, interaction.status], ['interaction.completed', 'completed']);
    const { total_input_tokens, total_output_tokens, total_tokens } = interaction.usage;
    assert.equal(total_input_tokens + total_output_tokens, total_tokens);
  },

  async continued_interaction() {
    const answer = await client.interactions.create({ model, input: 'tell it in parts' });
    assert.deepEqual([answer.status, answer.output_text], ['completed', 'You said: tell it in parts']);
    assert.equal(answer.continuation_ids.length, 2);
  },

  async batches() {
    const src = [{ contents: [createUserContent('one by one')] }];
    const inline = await client.batches.create({ model, src, config: { displayName: 'inline' } });
    assert.equal(inline.state, JobState.JOB_STATE_PENDING);
    const done = await client.batches.get({ name: inline.name });
    assert.deepEqual([done.name, done.state], [inline.name, JobState.JOB_STATE_SUCCEEDED]);
    assert.equal(done.dest.inlinedResponses[0].response.candidates[0].content.parts[0].text, 'You said: one by one');
    const lines = '{"key": "a", "request": {"contents": [{"parts": [{"text": "hi"}]}]}}\n'.repeat(2);
    const file = new Blob([lines], { type: 'application/jsonl' });
    const job = await client.batches.create({ model, src: (await client.files.upload({ file })).name });
    const { fileName } = (await client.batches.get({ name: job.name })).dest;
    const folder = await mkdtemp(join(tmpdir(), 'results-'));
    try {
      const downloadPath = join(folder, 'results.jsonl');
      await client.files.download({ file: fileName, downloadPath });
      assert.equal((await readFile(downloadPath, 'utf8')).trim().split('\n').length, 2);
    } finally {
      await rm(folder, { recursive: true });
    }
    // A batch of its own requests may be another project's than the one that lists.
    assert((await collect(await client.batches.list())).some((each) => each.name === job.name));
    await client.batches.delete({ name: inline.name });
    await client.batches.delete({ name: job.name });
  },

  async wrong_model() {
    await assert.rejects(client.models.generateContent({ model: 'gemini-2.5-flsh', contents: 'please fail' }), (error) => {
      assert(error instanceof ApiError);
      assert.equal(error.status, 404);
      assert.match(error.message, /gemini-2\.5-flsh is not found/);
      return true;
    });
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`@google/genai: ${name}`);
}
