import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { sha256 } from "../crypto/hash.ts";
import { Sealer } from "../crypto/seal.ts";
import { compressInto } from "../format/zstd.ts";
import { BlobIndex } from "./blob-index.ts";
import { BlobDecoder, BlobReader } from "./blob-reader.ts";

const sealer = new Sealer({ encrypt: randomBytes(32), macK: randomBytes(16), macR: randomBytes(16) });

function seal(plain: Uint8Array, isCompressed: boolean): Buffer {
  if (!isCompressed) return sealer.seal(plain);
  const frame = Buffer.alloc(plain.length + 1000);
  return sealer.seal(frame.subarray(0, compressInto(frame, plain, 1)));
}

/** Blobs back to back in one pack in memory, with an index that says where they are. */
function packOf(blobs: readonly { plain: Uint8Array; isCompressed: boolean }[]): { reader: BlobReader; index: BlobIndex; bytes: Buffer } {
  const index = new BlobIndex();
  const pack = index.addPack(Buffer.alloc(32, 1));
  const sealed = blobs.map(({ plain, isCompressed }) => seal(plain, isCompressed));
  const bytes = Buffer.concat(sealed);
  let offsetBytes = 0;
  blobs.forEach(({ plain, isCompressed }, at) => {
    const sealedBytes = sealed[at]?.length ?? 0;
    index.add(sha256(plain), 0, { pack, offsetBytes, sealedBytes, plainBytes: isCompressed ? plain.length : 0, isTree: false });
    offsetBytes += sealedBytes;
  });
  const packs = {
    read: (_: Uint8Array, offset: number, target: Uint8Array): void => target.set(bytes.subarray(offset, offset + target.length)),
    close: (): void => undefined,
  };
  return { reader: new BlobReader(index, packs, sealer), index, bytes };
}

const blobs = fc.array(
  fc.record({
    plain: fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 2000 }),
      fc.nat(50_000).map((n) => new Uint8Array(n + 1).fill(n)),
    ),
    isCompressed: fc.boolean(),
  }),
  { minLength: 1, maxLength: 10 },
);

test("blobs are read in any order, compressed or not", () => {
  fc.assert(
    fc.property(blobs, fc.infiniteStream(fc.nat(9)), (list, order) => {
      const { reader } = packOf(list);
      for (let round = 0; round < 20; round++) {
        const { plain } = list[(order.next().value ?? 0) % list.length] ?? { plain: new Uint8Array(0) };
        assert.deepEqual(Buffer.from(reader.read(sha256(plain))), Buffer.from(plain));
      }
    }),
    { seed: 7, numRuns: 60 },
  );
});

test("any change of any byte is found, and does not disturb the next read", () => {
  const list = [
    { plain: randomBytes(100), isCompressed: false },
    { plain: Buffer.alloc(1000, "text"), isCompressed: true },
  ];
  const { reader, bytes } = packOf(list);
  for (let at = 0; at < bytes.length; at++) {
    bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
    const failures = list.filter(({ plain }) => {
      try {
        return Buffer.compare(reader.read(sha256(plain)), plain) !== 0;
      } catch (error) {
        assert.equal((error as Error & { code: string }).code, "BlobInvalid"); // what decode() throws
        return true;
      }
    });
    assert.equal(failures.length, 1, `byte ${at}`);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
  }
  for (const { plain } of list) assert.deepEqual(Buffer.from(reader.read(sha256(plain))), plain);
});

test("a blob under another's name, of another length than said, or swapped, is refused", () => {
  const decoder = new BlobDecoder(sealer);
  const plain = Buffer.alloc(1000, "text");
  const id = sha256(plain);
  assert.throws(() => decoder.decode(sha256(randomBytes(3)), seal(plain, true), 1000), { code: "BlobInvalid", message: /hash/ });
  assert.throws(() => decoder.decode(id, seal(plain, true), 999), { code: "BlobInvalid" });
  assert.throws(() => decoder.decode(id, seal(plain, true), 1001), { code: "BlobInvalid", message: /1000 bytes, 1001 expected/ });
  assert.throws(() => decoder.decode(id, seal(plain, true), 0), { code: "BlobInvalid" });
  assert.throws(() => decoder.decode(id, seal(plain, false), 1000), { code: "BlobInvalid", message: /nothing, 1000 expected/ });
  assert.throws(() => decoder.decode(id, Buffer.alloc(20), 0), { code: "BlobInvalid", message: /authentication/ });
  assert.deepEqual(Buffer.from(decoder.decode(id, seal(plain, true), 1000)), plain);
});

test("an index entry with impossible lengths is refused before memory is taken, and a blob without a place is missing", () => {
  const { reader, index } = packOf([{ plain: randomBytes(10), isCompressed: false }]);
  const add = (seed: string, sealedBytes: number): Buffer => {
    const id = sha256(Buffer.from(seed));
    index.add(id, 0, { pack: 0, offsetBytes: 0, sealedBytes, plainBytes: 0, isTree: false });
    return id;
  };
  assert.throws(() => reader.read(add("short", 31)), { code: "BlobInvalid" });
  assert.throws(() => reader.read(add("none", 0)), { code: "BlobInvalid" });
  const claimed = sha256(Buffer.from("claimed"));
  index.claim(claimed, 0, false);
  assert.throws(() => reader.read(claimed), { code: "BlobMissing" });
  assert.throws(() => reader.read(sha256(Buffer.from("unknown"))), { code: "BlobMissing" });
});

test("a bomb, a small blob that says it is large and is not, or is larger than it says, takes no more than it says", () => {
  const decoder = new BlobDecoder(sealer);
  const bomb = Buffer.alloc(50_000_000);
  const sealed = seal(bomb, true);
  assert.ok(sealed.length < 10_000);
  assert.throws(() => decoder.decode(sha256(bomb), Buffer.from(sealed), 1000), { code: "BlobInvalid" });
  assert.deepEqual(Buffer.from(decoder.decode(sha256(bomb), sealed, bomb.length)).length, bomb.length);
});
