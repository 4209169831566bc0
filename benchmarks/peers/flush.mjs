// The official tool's way to flush a spool, in Node: read each file, gzip it, fetch, unlink; one after another.
// `node flush.mjs JOB` delivers what the JSON file JOB says and writes one line of JSON: what it took.
import { readFileSync } from "node:fs";
import { readdir, readFile, unlink } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const COMPRESS_ABOVE_BYTES = 1024;

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const url = job.url + "/api/traces";

function peakBytes() {
  try {
    return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "latin1"))[1]) * 1024;
  } catch {
    return process.resourceUsage().maxRSS * 1024;
  }
}

async function deliver(name) {
  const path = join(job.directory, name);
  const data = await readFile(path);
  const gzipped = data.length > COMPRESS_ABOVE_BYTES;
  const body = gzipped ? gzipSync(data) : data;
  const headers = {
    Authorization: `Bearer ${job.token}`,
    "Content-Type": "application/json",
    "User-Agent": "cirron-spool/benchmark",
    "X-Cirron-SDK-Version": "cirron-spool/benchmark",
    "X-Cirron-Batch-Id": name.slice(name.indexOf("-") + 1, -".json".length),
  };
  if (gzipped) headers["Content-Encoding"] = "gzip";
  const answer = await fetch(url, { method: "POST", headers, body });
  await answer.text();
  if (!answer.ok) throw new Error(`not accepted: ${name}: HTTP ${answer.status}`);
  await unlink(path);
  return body.length;
}

const start_bytes = peakBytes();
const started_ns = Number(process.hrtime.bigint());
const cpu = process.cpuUsage();
const start = performance.now();
let batches = 0;
let sent_bytes = 0;
try {
  for (const name of (await readdir(job.directory)).sort()) {
    sent_bytes += await deliver(name);
    batches += 1;
  }
} catch (error) {
  console.error(`${error.message}${error.cause ? `: ${error.cause.message}` : ""}`);
  process.exit(1);
}
const seconds = (performance.now() - start) / 1000;
const used = process.cpuUsage(cpu);
console.log(
  JSON.stringify({
    seconds,
    cpu_seconds: (used.user + used.system) / 1e6,
    peak_bytes: peakBytes(),
    start_bytes,
    started_ns,
    batches,
    sent_bytes,
  }),
);
