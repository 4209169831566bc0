// The same listing in Node, as the official tool's language has it: readdir, a stat each, sorted by name.
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

const directory = process.argv[2];
const names = await readdir(directory);
const found = await Promise.all(
  names.map(async (name) => ({ name, size: (await stat(join(directory, name))).size })),
);
found.sort((a, b) => (a.name < b.name ? -1 : 1));
