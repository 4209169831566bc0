// The way of the official tool in Node: read, gzip, fetch, unlink each file in turn.
// `node flush.mjs JOB` delivers the spool in the JSON file JOB and prints an Outcome (see harness.py) as JSON.
import { readFileSync } from "node:fs";
import { readdir, readFile, unlink } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const GZIP_ABOVE_BYTES = 1024;

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));

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
  const gzipped = data.length > GZIP_ABOVE_BYTES;
  const body = gzipped ? gzipSync(data) : data;
  const headers = {
    Authorization: `Bearer ${job.token}`,
    "Content-Type": "application/json",
    "User-Agent": "cirron-spool/benchmark",
    "X-Cirron-SDK-Version": "cirron-spool/benchmark",
    "X-Cirron-Batch-Id": name.slice(name.indexOf("-") + 1, -".json".length),
  };
  if (gzipped) headers["Content-Encoding"] = "gzip";
  const answer = await fetch(job.url + "/api/traces", { method: "POST", headers, body });
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
const cpu_seconds = (used.user + used.system) / 1e6;
const peak_bytes = peakBytes();
console.log(JSON.stringify({ seconds, cpu_seconds, peak_bytes, start_bytes, started_ns, batches, sent_bytes }));
