// The published schemas: fetched once from where `ce_dataschema` points.

import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

const PATIENCE_MS = 120_000;
const PAUSE_MS = 1_000;
const REQUEST_MS = 10_000;

export class Schemas {
  #ajv = new Ajv2020({ strict: false });
  #validators = new Map();
  #server;
  #fetch;

  /**
   * `server` is where Parlance answers. A record names the address that the server has for the world, which need not lead
   * anywhere from here, and is no reason to call anybody: only the path is taken from it.
   */
  constructor(server, fetch = fetchJson) {
    addFormats.default(this.#ajv);
    this.#server = server;
    this.#fetch = fetch;
  }

  /** Throws where the data are not what their schema says. Members that it does not know may be there. */
  async check(dataschema, data) {
    const validate = await this.#validator(new URL(dataschema).pathname);
    if (!validate(data)) {
      // Where, and by which rule; never the content.
      const [{ instancePath, keyword }] = validate.errors;
      throw new Error(`${instancePath || '/'} breaks \`${keyword}\` of ${dataschema}`);
    }
  }

  async #validator(path) {
    if (!this.#validators.has(path)) {
      if (!path.startsWith('/schemas/')) throw new Error(`${path} is no schema of Parlance's`);
      this.#validators.set(path, this.#ajv.compile(await this.#fetch(new URL(path, this.#server))));
    }
    return this.#validators.get(path);
  }
}

/** What is at an address, asked for until it is there or patience ends. */
async function fetchJson(url) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(REQUEST_MS) });
      if (answer.ok) return await answer.json();
      // Only what may pass by itself is asked for again.
      if (answer.status < 500 && answer.status !== 429) throw new Refused(`${url}: ${answer.status}`);
      if (Date.now() > end) throw new Refused(`${url}: ${answer.status}`);
    } catch (error) {
      if (error instanceof Refused || Date.now() > end) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

class Refused extends Error {}
