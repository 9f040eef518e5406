import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { sha256 } from "../crypto/hash.ts";
import { Sealer } from "../crypto/seal.ts";
import { hexOf, parsePackId } from "../format/ids.ts";
import { HEADER_LENGTH_BYTES, parseHeader, parseHeaderLength } from "../format/pack.ts";
import { BlobDecoder } from "./blob-reader.ts";
import { type FinishedPack, PackBuilder, type PackBuilderOptions } from "./pack-builder.ts";
import { PackBuffers } from "./pack-buffers.ts";

const sealer = new Sealer({ encrypt: randomBytes(32), macK: randomBytes(16), macR: randomBytes(16) });

interface KeptPack {
  readonly pack: FinishedPack;
  readonly bytes: Buffer;
}

/** A builder whose packs are copied and whose buffers are given back at once. */
function build(options: Partial<PackBuilderOptions> = {}, bufferBytes = 200_000): { builder: PackBuilder; packs: KeptPack[] } {
  const packs: KeptPack[] = [];
  const buffers = PackBuffers.create(1, bufferBytes);
  const emit = (pack: FinishedPack): void => {
    packs.push({ pack, bytes: Buffer.from(pack.own ?? buffers.bytes(pack.buffer).subarray(0, pack.sizeBytes)) });
    if (pack.buffer >= 0) buffers.release(pack.buffer);
  };
  return { packs, builder: new PackBuilder({ type: "data", sealer, buffers, targetBytes: 100_000, level: 1, emit, ...options }) };
}

/** Reads a pack as anyone would who has nothing but the file. @returns the plain blobs, in order */
function readPack({ pack, bytes }: KeptPack, type = "data"): Buffer[] {
  assert.equal(bytes.length, pack.sizeBytes);
  assert.equal(hexOf(sha256(bytes)), hexOf(pack.id));
  const file = { id: parsePackId(hexOf(pack.id)), sizeBytes: bytes.length };
  const headerBytes = parseHeaderLength(bytes, file);
  const header = sealer.open(bytes.subarray(bytes.length - HEADER_LENGTH_BYTES - headerBytes, bytes.length - HEADER_LENGTH_BYTES));
  assert.deepEqual(header, Buffer.from(pack.header));
  return [...parseHeader(header, file).entries()].map((entry) => {
    assert.equal(entry.type, type);
    const sealed = Buffer.from(bytes.subarray(entry.offsetBytes, entry.offsetBytes + entry.sealedBytes));
    return Buffer.from(new BlobDecoder(sealer).decode(entry.id, sealed, entry.plainBytes));
  });
}

const blob = fc.oneof(
  fc.uint8Array({ maxLength: 3000 }),
  fc.tuple(fc.nat(60_000), fc.nat(255)).map(([sizeBytes, fill]) => new Uint8Array(sizeBytes).fill(fill)),
  fc.tuple(fc.nat(60_000), fc.nat()).map(([sizeBytes, seed]) => new Uint8Array(Buffer.alloc(sizeBytes, sha256(Buffer.from(String(seed)))))),
  fc.constant(new Uint8Array(randomBytes(250_000))),
);

test("whatever blobs are added at whatever level, all are in the packs, in order", () => {
  fc.assert(
    fc.property(
      fc.array(blob, { maxLength: 40 }),
      fc.constantFrom(0, 1, 3),
      fc.constantFrom("data" as const, "tree" as const),
      (blobs, level, type) => {
        const { builder, packs } = build({ level, type });
        let sealedBytes = 0;
        for (const plain of blobs) sealedBytes += builder.add(sha256(plain), plain);
        builder.finish();
        builder.finish();
        const found = packs.flatMap((pack) => readPack(pack, type));
        assert.deepEqual(
          found,
          blobs.map((plain) => Buffer.from(plain)),
        );
        const headers = packs.reduce((sum, { pack }) => sum + pack.header.length + 36, 0);
        assert.equal(
          packs.reduce((sum, { pack }) => sum + pack.sizeBytes, 0),
          sealedBytes + headers,
        );
        for (const { pack } of packs) assert.ok(pack.buffer < 0 || pack.sizeBytes <= 200_704);
      },
    ),
    { seed: 6, numRuns: 100 },
  );
});

test("a pack is closed when it has its size, and not before", () => {
  const { builder, packs } = build({ level: 0 });
  for (let at = 0; at < 10; at++) builder.add(sha256(Buffer.from([at])), Buffer.alloc(9_900, at));
  assert.equal(packs.length, 0);
  builder.add(sha256(Buffer.from([11])), Buffer.alloc(1000));
  assert.equal(packs.length, 1);
  builder.finish();
  assert.equal(packs.length, 1);
});

test("a blob that no buffer holds gets a pack of its own, and the one under way goes on behind it", () => {
  const { builder, packs } = build({ level: 0 });
  const blobs = [randomBytes(100), randomBytes(250_000), randomBytes(200)];
  for (const plain of blobs) builder.add(sha256(plain), plain);
  builder.finish();
  assert.deepEqual(
    packs.map((pack) => readPack(pack)),
    blobs.map((plain) => [plain]),
  );
  assert.ok(packs[1]?.pack.own !== undefined);
});

test("blobs at the edge of a buffer's capacity fit or go into a pack of their own, never beyond it", () => {
  for (let short = -50; short <= 50; short++) {
    const capacity = 200_704;
    const { builder, packs } = build({ level: 0, targetBytes: 200_000 });
    const first = randomBytes(1000);
    const plain = randomBytes(capacity - 1032 - 32 - 41 * 2 - 36 + short);
    builder.add(sha256(first), first);
    builder.add(sha256(plain), plain);
    builder.finish();
    assert.deepEqual(
      packs.flatMap((pack) => readPack(pack)),
      [first, plain],
      `${short}`,
    );
  }
});

test("an empty blob is kept, uncompressed", () => {
  const { builder, packs } = build();
  builder.add(sha256(Buffer.alloc(0)), Buffer.alloc(0));
  builder.finish();
  assert.deepEqual(
    packs.flatMap((pack) => readPack(pack)),
    [Buffer.alloc(0)],
  );
});

test("a blob that is sealed already is taken as it stands", () => {
  const source = build();
  const plain = Buffer.from("text ".repeat(1000));
  source.builder.add(sha256(plain), plain);
  source.builder.finish();
  const [first] = source.packs;
  assert.ok(first !== undefined);
  const file = { id: parsePackId(hexOf(first.pack.id)), sizeBytes: first.pack.sizeBytes };
  const [entry] = [...parseHeader(first.pack.header, file).entries()];
  assert.ok(entry !== undefined && entry.plainBytes > 0);
  const target = build();
  const sealed = first.bytes.subarray(entry.offsetBytes, entry.offsetBytes + entry.sealedBytes);
  for (let at = 0; at < 3; at++) target.builder.addSealed(entry.id, sealed, entry.plainBytes);
  target.builder.finish();
  assert.deepEqual(
    target.packs.flatMap((pack) => readPack(pack)),
    [plain, plain, plain],
  );
});

test("what does not decode to what was given is found before its pack leaves", () => {
  // A sealer that flips a bit now and then, as failing memory does.
  let count = 0;
  const faulty: Sealer = Object.create(sealer, {
    sealInto: {
      value: (target: Uint8Array, at: number, plain: Uint8Array): number => {
        const damaged = Buffer.from(plain);
        if (++count === 3) damaged[damaged.length >> 1] = (damaged[damaged.length >> 1] ?? 0) ^ 4;
        return sealer.sealInto(target, at, damaged);
      },
    },
    openInto: { value: sealer.openInto.bind(sealer) },
  }) as Sealer; // only what the builder calls
  const { builder, packs } = build({ sealer: faulty, level: 0 });
  const add = (): number => builder.add(sha256(Buffer.alloc(500, 1)), Buffer.alloc(500, 1));
  add();
  add();
  assert.throws(add, { code: "BlobInvalid" });
  assert.equal(packs.length, 0);
});

test("a builder waits for a buffer until one is given back", async () => {
  const { Worker } = await import("node:worker_threads");
  const buffers = PackBuffers.create(1, 8192);
  const number = buffers.acquire();
  const url = new URL("./pack-buffers.ts", import.meta.url).href;
  const code = `
    const { workerData, parentPort } = require("node:worker_threads");
    import(workerData.url).then(({ PackBuffers }) => {
      const buffers = PackBuffers.attach(workerData.handle);
      parentPort.postMessage("waiting");
      const number = buffers.acquire();
      buffers.bytes(number)[0] = 7;
      parentPort.postMessage("got " + number);
    });`;
  const worker = new Worker(code, { eval: true, workerData: { url, handle: buffers.handle } });
  const heard: unknown[] = [];
  const next = (): Promise<unknown> => new Promise((resolve) => worker.once("message", resolve));
  heard.push(await next());
  const second = next();
  await new Promise((resolve) => setTimeout(resolve, 100));
  buffers.bytes(number)[0] = 1;
  buffers.release(number);
  heard.push(await second);
  assert.deepEqual(heard, ["waiting", "got 0"]);
  assert.equal(buffers.bytes(0)[0], 7);
  await worker.terminate();
});
