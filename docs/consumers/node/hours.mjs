// `node hours.mjs [--once] [--file FILE]`: counts events by type and hour, and prints the counts at its end.

import { parseArgs } from 'node:util';
import { randomUUID } from 'node:crypto';
import kafkajs from 'kafkajs';

import { Counter } from './counter.mjs';
import { Schemas } from './schemas.mjs';
import { Tally } from './tally.mjs';

const TOPICS = ['parlance.users.v1', 'parlance.conversations.v1'];
const PAUSE_MS = 1_000;
/** A topic that is made anew is missing for a while. */
const PATIENCE_MS = 120_000;

const { values: options } = parseArgs({
  options: {
    brokers: { type: 'string', default: process.env.KAFKA_BROKERS ?? 'localhost:9092' },
    server: { type: 'string', default: process.env.PARLANCE_URL ?? 'http://localhost:8080' },
    file: { type: 'string', default: 'hours.json' },
    once: { type: 'boolean', default: false },
  },
});

const kafka = new kafkajs.Kafka({
  clientId: 'parlance-hours',
  brokers: options.brokers.split(','),
  logLevel: kafkajs.logLevel.ERROR,
  // A Kafka that is away is waited for, some two minutes.
  retry: { initialRetryTime: 300, maxRetryTime: 5_000, retries: 30 },
});
const tally = await Tally.load(options.file);
const counter = new Counter(tally, new Schemas(options.server));
// kafkajs reads by groups alone. One of our own each time waits for no member that was killed; nothing is committed to it.
const consumer = kafka.consumer({ groupId: `parlance-hours-${randomUUID()}` });

let finish;
const finished = new Promise((resolve) => (finish = resolve));
process.once('SIGINT', () => finish());
process.once('SIGTERM', () => finish());
consumer.on(consumer.events.CRASH, ({ payload }) => {
  // What may pass by itself is tried again by the library.
  if (!payload.restart) finish(payload.error);
});

const ends = await endsNow();
if (options.once && ends.size === 0) finish();

await consumer.connect();
await patiently(() => consumer.subscribe({ topics: TOPICS, fromBeginning: true }));
await consumer.run({
  autoCommit: false,
  eachBatchAutoResolve: false,
  eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
    const place = `${batch.topic}/${batch.partition}`;
    try {
      const whole = await counter.take(place, batch.messages);
      await tally.save(options.file);
      if (!whole) return readAgain(batch);
    } catch (error) {
      // A fault of this kind is there the next time too: better no count than a wrong one.
      finish(error);
      consumer.pause([{ topic: batch.topic }]);
      return;
    }
    resolveOffset(batch.lastOffset());
    await heartbeat();
    if (ends.has(place) && BigInt(batch.lastOffset()) + 1n >= ends.get(place)) ends.delete(place);
    if (options.once && ends.size === 0) finish();
  },
});
for (const topic of TOPICS) {
  for (const { partition, low, high } of await offsets(topic)) {
    const { offset } = tally.position(`${topic}/${partition}`);
    // A hint alone: what was read already is dropped by its sequence, and a partition that was wiped is shorter.
    if (offset !== null && BigInt(offset) <= BigInt(high)) consumer.seek({ topic, partition, offset });
    else consumer.seek({ topic, partition, offset: low });
  }
}

const failure = await finished;
await consumer.disconnect().catch(() => {});
console.log(JSON.stringify(tally.report(), null, 2));
if (failure) {
  console.error(`the count stands where it was: ${failure.message}`);
  process.exitCode = 1;
}

/** Where the partitions end that hold more than was counted. */
async function endsNow() {
  const ends = new Map();
  for (const topic of TOPICS) {
    for (const { partition, low, high } of await offsets(topic)) {
      const place = `${topic}/${partition}`;
      if (BigInt(high) > BigInt(low) && tally.position(place).offset !== high) ends.set(place, BigInt(high));
    }
  }
  return ends;
}

async function offsets(topic) {
  return patiently(async () => {
    const admin = kafka.admin();
    await admin.connect();
    try {
      return await admin.fetchTopicOffsets(topic);
    } finally {
      await admin.disconnect();
    }
  });
}

/** Does what may fail while a topic is not there, again and again for so long. */
async function patiently(work) {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (Date.now() > until) throw error;
      console.error(`trying again: ${error.message}`);
      await pause();
    }
  }
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
}

/** Goes back to a partition's first record, after a while. */
async function readAgain({ topic, partition }) {
  await pause();
  const offset = await patiently(async () => {
    const found = (await offsets(topic)).find((offsets) => offsets.partition === partition);
    if (!found) throw new Error(`${topic} has no partition ${partition} yet`);
    return found.low;
  });
  consumer.seek({ topic, partition, offset });
}
