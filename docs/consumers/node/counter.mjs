// Takes records into a tally: each once, in the order of its partition.

import { Gap } from './tally.mjs';

/** A topic that was wiped is whole again within a minute: what is missing for longer is lost. */
const PATIENCE_MS = 120_000;

export class Counter {
  #tally;
  #schemas;
  #missingSince = new Map();

  constructor(tally, schemas) {
    this.#tally = tally;
    this.#schemas = schemas;
  }

  /**
   * Takes the records of a partition. False where one is missing: what came before it counts, and the partition has to be
   * read again from its beginning.
   */
  async take(place, messages) {
    for (const message of messages) {
      const sequence = Number(header(message, 'ce_sequence'));
      try {
        if (this.#tally.isNew(place, sequence)) await this.#count(place, message);
      } catch (error) {
        if (!(error instanceof Gap)) throw error;
        this.#missing(place, error);
        return false;
      }
      this.#tally.read(place, sequence, message.offset);
    }
    return true;
  }

  async #count(place, message) {
    const data = JSON.parse(message.value.toString());
    await this.#schemas.check(header(message, 'ce_dataschema'), data);
    // Every type is counted, also one that this program has never heard of.
    this.#tally.count(header(message, 'ce_type'), header(message, 'ce_time'));
    this.#missingSince.delete(place);
  }

  #missing(place, gap) {
    const since = this.#missingSince.get(place) ?? Date.now();
    this.#missingSince.set(place, since);
    if (Date.now() - since > PATIENCE_MS) throw new Error(`lost: ${gap.message}`);
    console.error(`reading again: ${gap.message}`);
  }
}

function header(message, name) {
  return message.headers[name].toString();
}
