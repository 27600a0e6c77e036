// What was counted and how far, as one value: it is written whole or not at all, so the two never part.

import { readFile, rename, writeFile } from 'node:fs/promises';

/** A record that is missing: everything of its partition has to be read again. */
export class Gap extends Error {}

/** Counts of events by hour and type, and the position in each partition up to which they are counted. */
export class Tally {
  #positions = {};
  #hours = {};

  static async load(file) {
    const tally = new Tally();
    try {
      const { positions, hours } = JSON.parse(await readFile(file, 'utf8'));
      tally.#positions = positions;
      tally.#hours = hours;
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
    return tally;
  }

  /** Replaces the file in one step: whoever is killed meanwhile leaves the old one. */
  async save(file) {
    await writeFile(`${file}.new`, JSON.stringify({ positions: this.#positions, hours: this.#hours }));
    await rename(`${file}.new`, file);
  }

  /** How far a partition is counted: the sequence of its last event, and the offset to read on at. */
  position(place) {
    return this.#positions[place] ?? { sequence: 0, offset: null };
  }

  /** Whether the event of this sequence is yet to be counted. One that comes too early follows one that is missing. */
  isNew(place, sequence) {
    const last = this.position(place).sequence;
    if (sequence > last + 1) {
      this.#positions[place] = { sequence: last, offset: null };
      throw new Gap(`${place}: ${sequence} comes after ${last}`);
    }
    return sequence === last + 1;
  }

  count(type, at) {
    const hour = `${at.slice(0, 13)}:00:00Z`;
    const types = (this.#hours[hour] ??= {});
    types[type] = (types[type] ?? 0) + 1;
  }

  /** Notes that a record was read, counted or known already. */
  read(place, sequence, offset) {
    this.#positions[place] = {
      sequence: Math.max(sequence, this.position(place).sequence),
      offset: String(BigInt(offset) + 1n),
    };
  }

  /** The counts, hours and types sorted. */
  report() {
    const sorted = (object, of) => Object.fromEntries(Object.keys(object).sort().map((key) => [key, of(object[key])]));
    return sorted(this.#hours, (types) => sorted(types, (count) => count));
  }
}
