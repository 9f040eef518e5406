import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { isFailure } from "@granary/base/errors";
import { buildData, buildRandomData, type DataSection } from "../../test/vectors/chunk-data.ts";
import type { Cutter } from "./cutter.ts";
import { mod, parsePolynomial } from "./polynomial.ts";
import { createRabinCutter } from "./rabin.ts";

interface RabinVectors {
  readonly vectors: readonly {
    readonly polynomial: string;
    readonly data: readonly DataSection[];
    readonly dataSha256: string;
    readonly cutBytes: readonly number[];
    readonly blobIds: readonly string[];
  }[];
}

// The file is ours, and a wrong shape fails the tests that read it.
const { vectors } = JSON.parse(readFileSync(new URL("../../test/vectors/chunk-rabin.json", import.meta.url), "utf8")) as RabinVectors;

const pol = 0x36e5e1594d87b7n;
const minBytes = 512 * 1024;
const maxBytes = 8 * 1024 * 1024;

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function cutAll(bytes: Uint8Array, cutter: Cutter): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = cutter.nextCut(bytes, at, bytes.length);
    assert.ok(length > 0);
    chunks.push(bytes.subarray(at, at + length));
    at += length;
  }
  return chunks;
}

const reduceTable = Array.from({ length: 256 }, (_, byte) => mod(BigInt(byte) << 53n, pol));
const leaveTable = Array.from({ length: 256 }, (_, byte) => mod(BigInt(byte) << 512n, pol));

/** The length of the first chunk as the format's description has it: a ring of 64 bytes, 64-bit numbers, one byte at a time. */
function cutByDescription(bytes: Uint8Array): number {
  const ring = new Uint8Array(64);
  let fingerprint = 0n;
  let slides = 0;
  const slide = (byte: number): void => {
    const outgoing = ring[slides % 64] ?? 0;
    ring[slides++ % 64] = byte;
    const shifted = (fingerprint << 8n) | BigInt(byte);
    fingerprint = BigInt.asUintN(53, shifted) ^ (reduceTable[Number(shifted >> 53n)] ?? 0n) ^ (leaveTable[outgoing] ?? 0n);
  };
  slide(1);
  for (let length = minBytes - 63; length <= bytes.length; length++) {
    slide(bytes[length - 1] ?? 0);
    if (length >= minBytes && (fingerprint & 0xfffffn) === 0n) return length;
    if (length === maxBytes) return length;
  }
  return bytes.length;
}

for (const [index, vector] of vectors.entries()) {
  test(`the Rabin cutter cuts where restic cut vector ${index + 1}`, () => {
    const bytes = buildData(vector.data);
    assert.equal(sha256(bytes), vector.dataSha256);
    const chunks = cutAll(bytes, createRabinCutter(parsePolynomial(vector.polynomial)));
    assert.deepEqual(
      chunks.map((chunk) => chunk.length),
      vector.cutBytes,
    );
    assert.deepEqual(chunks.map(sha256), vector.blobIds);
  });
}

test("the Rabin cutter cuts a new file where the restic on this machine cuts it", (t) => {
  if (spawnSync("restic", ["version"]).error !== undefined) {
    t.skip("restic is not installed");
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), "granary-rabin-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const environment = { ...process.env, RESTIC_PASSWORD: "test", RESTIC_REPOSITORY: join(folder, "repository") };
  const runRestic = (...args: string[]): string =>
    execFileSync("restic", ["--no-cache", "--quiet", ...args], { cwd: folder, env: environment, encoding: "utf8" });

  const bytes = buildData([
    { kind: "random", seed: "restic on this machine", sizeBytes: 12_345_678 },
    { kind: "repeat", hex: "00", sizeBytes: 1_500_000 },
    { kind: "repeat", hex: "6162636465666768", sizeBytes: 9_000_000 },
    { kind: "random", seed: "restic on this machine, end", sizeBytes: 600_001 },
  ]);
  writeFileSync(join(folder, "data"), bytes);
  runRestic("init", "--repository-version", "2");
  runRestic("backup", "data");
  // What restic prints is taken at its word: a wrong shape fails the comparison.
  const config = JSON.parse(runRestic("cat", "config")) as { chunker_polynomial: string };
  const snapshots = JSON.parse(runRestic("snapshots", "--json")) as { tree: string }[];
  const tree = JSON.parse(runRestic("cat", "blob", snapshots[0]?.tree ?? "")) as { nodes: { content: string[] }[] };

  const chunks = cutAll(bytes, createRabinCutter(parsePolynomial(config.chunker_polynomial)));
  assert.ok(chunks.length >= 5);
  assert.deepEqual(chunks.map(sha256), tree.nodes[0]?.content);
});

test("the Rabin cutter agrees with the format's description at every byte", () => {
  const cutter = createRabinCutter(pol);
  const whole = buildData([
    { kind: "random", seed: "by description", sizeBytes: 3_000_000 },
    { kind: "repeat", hex: "00", sizeBytes: 700_000 },
    { kind: "repeat", hex: "0102030405", sizeBytes: 600_000 },
  ]);
  for (const offset of [0, 3]) {
    const bytes = whole.subarray(offset);
    let at = 0;
    for (const chunk of cutAll(bytes, cutter)) {
      assert.equal(chunk.length, cutByDescription(bytes.subarray(at)));
      at += chunk.length;
    }
  }
  // No byte but those of the window counts: by definition, the fingerprint is the remainder of one large polynomial.
  const end = cutter.nextCut(whole, 0, whole.length);
  const window = BigInt(`0x${Buffer.from(whole.subarray(end - 64, end)).toString("hex")}`);
  assert.equal(mod(window, pol) & 0xfffffn, 0n);
});

test("the Rabin cutter finds a window at every edge: of the minimum, of its lanes, of the maximum", () => {
  const cutter = createRabinCutter(pol);
  const random = buildRandomData("windows", 4_000_000);
  const cutAt = cutter.nextCut(random, 0, random.length);
  const window = random.slice(cutAt - 64, cutAt);
  // Background without a cut of its own: its window, and so its fingerprint, is the same everywhere.
  const background = 0x55;
  const memory = new ArrayBuffer(maxBytes + 64);
  const laneBytes = 16 * 1024;
  const edges = [0, 4, laneBytes, 2 * laneBytes, 3 * laneBytes, 100 * laneBytes].map((more) => minBytes + more);
  for (const offset of [0, 1, 2, 3]) {
    const bytes = new Uint8Array(memory, offset, maxBytes + 40).fill(background);
    assert.equal(cutter.nextCut(bytes, 0, bytes.length), maxBytes);
    for (const edge of [...edges, maxBytes - 2 * laneBytes, maxBytes]) {
      for (let length = edge - 4; length <= edge + 4; length++) {
        bytes.set(window, length - 64);
        const expected = length < minBytes || length > maxBytes ? maxBytes : length;
        assert.equal(cutter.nextCut(bytes, 0, bytes.length), expected, `window at ${length}, offset ${offset}`);
        bytes.fill(background, length - 64, length);
      }
    }
  }
});

test("of two windows, in the two lanes of the Rabin cutter, the first one counts", () => {
  const cutter = createRabinCutter(pol);
  const random = buildRandomData("windows", 4_000_000);
  const cutAt = cutter.nextCut(random, 0, random.length);
  const window = random.slice(cutAt - 64, cutAt);
  const bytes = new Uint8Array(maxBytes).fill(0x55);
  const laneBytes = 16 * 1024;
  const first = minBytes + laneBytes - 100;
  bytes.set(window, first - 64);
  // The second lane meets its window long before the first lane does.
  bytes.set(window, minBytes + laneBytes + 10);
  assert.equal(cutter.nextCut(bytes, 0, bytes.length), first);
});

test("the end of the stream ends a chunk, at every distance from the minimum and the maximum", () => {
  const cutter = createRabinCutter(pol);
  const bytes = new Uint8Array(maxBytes + 64).fill(0x55);
  for (const edge of [1, minBytes, minBytes + 32 * 1024, maxBytes]) {
    for (let length = Math.max(1, edge - 5); length <= edge + 5; length++) {
      for (const start of [0, 1, 2, 3]) {
        assert.equal(cutter.nextCut(bytes, start, start + length), Math.min(length, maxBytes));
      }
    }
  }
});

test("createRabinCutter() refuses polynomials of another degree", () => {
  for (const wrong of [0n, 0b1011n, pol << 1n]) {
    assert.throws(
      () => createRabinCutter(wrong),
      (error) => isFailure(error, "InvalidArgument"),
    );
  }
});
