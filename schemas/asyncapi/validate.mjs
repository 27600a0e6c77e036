// Holds AsyncAPI documents against the official parser; see validate.sh.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

/** What the parser calls its findings, from the worst. Hints are about matters of taste. */
const SEVERITIES = ["error", "warning", "information", "hint"];
const WORST_ALLOWED = SEVERITIES.indexOf("information");

const [folder, ...documents] = process.argv.slice(2);
const { Parser } = createRequire(join(folder, "package.json"))("@asyncapi/parser");
// Nothing is fetched: what a document refers to stands in it.
const parser = new Parser({ __unstable: { resolver: { cache: false, resolvers: [] } } });

let failed = false;
for (const path of documents) {
  const { document, diagnostics } = await parser.parse(await readFile(path, "utf8"));
  const wrong = diagnostics.filter(({ severity }) => severity < WORST_ALLOWED);
  for (const { severity, code, message, path: place } of diagnostics) {
    console.log(`${path}: ${SEVERITIES[severity]} ${code} at /${place.join("/")}: ${message}`);
  }
  if (document === undefined || wrong.length > 0) {
    failed = true;
    console.log(`${path}: refused`);
  } else {
    console.log(`${path}: ${document.channels().length} channels, ${document.allMessages().length} messages, valid`);
  }
}
process.exitCode = failed ? 1 : 0;
