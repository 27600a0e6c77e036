// What is counted, and what is not: `npm test`.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { Counter } from '../counter.mjs';
import { Schemas } from '../schemas.mjs';
import { Tally } from '../tally.mjs';

const PLACE = 'parlance.conversations.v1/3';

function message(sequence, type = 'message.sent', data = { at: '2026-11-26T08:59:59.999Z' }) {
  const headers = {
    ce_type: type,
    ce_sequence: String(sequence).padStart(20, '0'),
    ce_time: '2026-11-26T08:59:59.999Z',
    ce_dataschema: `https://parlance.invalid/schemas/${type}/1.json`,
  };
  const bytes = Object.entries(headers).map(([name, value]) => [name, Buffer.from(value)]);
  return { offset: String(sequence + 100), value: Buffer.from(JSON.stringify(data)), headers: Object.fromEntries(bytes) };
}

function schemas(fetched = []) {
  const schema = { type: 'object', required: ['at'], properties: { at: { type: 'string', format: 'date-time' } } };
  return new Schemas('http://server/', async (url) => {
    fetched.push(String(url));
    return schema;
  });
}

test('each event counts once, whatever its type', async () => {
  const [tally, fetched] = [new Tally(), []];
  const counter = new Counter(tally, schemas(fetched));
  await counter.take(PLACE, [message(1), message(2), message(1), message(2), message(3, 'message.pinned')]);
  const counts = { 'message.pinned': 1, 'message.sent': 2 };
  assert.deepEqual(tally.report(), { '2026-11-26T08:00:00Z': counts });
  assert.deepEqual(fetched, ['message.sent', 'message.pinned'].map((type) => `http://server/schemas/${type}/1.json`));
});

test('after a gap the partition is read again, and what it had counts once', async () => {
  const tally = new Tally();
  const counter = new Counter(tally, schemas());
  assert.equal(await counter.take(PLACE, [message(1), message(3), message(4)]), false);
  assert.deepEqual(tally.position(PLACE), { sequence: 1, offset: null });
  assert.equal(await counter.take(PLACE, [message(1), message(2), message(3)]), true);
  assert.deepEqual(tally.report(), { '2026-11-26T08:00:00Z': { 'message.sent': 3 } });
});

test('what breaks its schema is refused, without its content', async () => {
  const counter = new Counter(new Tally(), schemas());
  const refused = counter.take(PLACE, [message(1, 'message.sent', { at: 'a secret' })]);
  await assert.rejects(refused, (error) => /breaks `format`/.test(error.message) && !/secret/.test(error.message));
});

test('what was counted and how far is there after a restart', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'hours-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = join(folder, 'hours.json');
  const tally = await Tally.load(file);
  await new Counter(tally, schemas()).take(PLACE, [message(1)]);
  await tally.save(file);
  const again = await Tally.load(file);
  assert.deepEqual(again.report(), tally.report());
  assert.deepEqual(again.position(PLACE), { sequence: 1, offset: '102' });
});
