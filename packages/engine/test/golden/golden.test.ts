/** Check against repositories that restic wrote, whole and damaged in every way that is known, and against restic's own verdict. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { skipWithout } from "@granary/base/testing";
import { sha256Hex } from "../../src/crypto/hash.ts";
import { parseIndexId } from "../../src/format/ids.ts";
import { checkRepository } from "../../src/maintain/check.ts";
import type { CheckError } from "../../src/maintain/check-report.ts";
import { surveyIndexes } from "../../src/maintain/index-survey.ts";
import { loadFile, saveFile } from "../../src/repository/files.ts";
import { type GoldenName, GoldenCopy, goldenPassword } from "./golden.ts";

/** What an index file says. */
interface IndexJson {
  packs: { id: string; blobs: { id: string; type: string; offset: number; length: number; uncompressed_length?: number }[] }[];
}

/** The packs of a copy by what is in them, the largest first. */
async function findPacks(copy: GoldenCopy): Promise<{ data: string[]; tree: string[] }> {
  const survey = await surveyIndexes(await copy.open());
  const of = (isTree: boolean): string[] =>
    survey.packs
      .flatMap((pack, number) => (pack.hasTrees === isTree ? [{ id: survey.packIdOf(number), bytes: pack.expectedBytes }] : []))
      .sort((a, b) => b.bytes - a.bytes)
      .map(({ id }) => id);
  return { data: of(false), tree: of(true) };
}

async function readIndex(copy: GoldenCopy, name: string): Promise<IndexJson> {
  const json = await loadFile(await copy.open(), { kind: "index", id: parseIndexId(name) });
  return JSON.parse(Buffer.from(json).toString()) as IndexJson; // written by restic, and read by the check as well
}

async function writeIndex(copy: GoldenCopy, json: IndexJson): Promise<string> {
  return await saveFile(await copy.open(), { kind: "index", json: Buffer.from(JSON.stringify(json)) });
}

async function findIndexOf(copy: GoldenCopy, packId: string): Promise<string> {
  for (const name of copy.list("index")) if ((await readIndex(copy, name)).packs.some(({ id }) => id === packId)) return name;
  throw new Error(`no index file lists ${packId}`);
}

/** Replaces the index file that lists a pack by one that a change was made to. */
async function changeIndexOf(copy: GoldenCopy, packId: string, change: (pack: IndexJson["packs"][number]) => void): Promise<void> {
  const name = await findIndexOf(copy, packId);
  const json = await readIndex(copy, name);
  for (const pack of json.packs) if (pack.id === packId) change(pack);
  copy.remove("index", name);
  await writeIndex(copy, json);
}

function flipAt(offset: number): (bytes: Buffer) => Buffer {
  return (bytes) => {
    const flipped = Buffer.from(bytes);
    const at = offset < 0 ? bytes.length + offset : offset;
    flipped.writeUInt8(flipped.readUInt8(at) ^ 0x10, at);
    return flipped;
  };
}

/** What must be found: kinds of errors, each with the objects that it must name at least once. */
type Verdict = Readonly<Partial<Record<CheckError["kind"], readonly string[]>>>;

interface Case {
  readonly name: string;
  /** Damages the copy, and says what looking at the structure, and reading everything, must find beyond that. */
  readonly damage: (copy: GoldenCopy) => Promise<{ readonly structure: Verdict; readonly content?: Verdict }>;
  /** Where restic says something else, or is not asked, and why. */
  readonly restic?: { readonly structure?: boolean; readonly content?: boolean; readonly because: string };
  /** Also tried on a repository of version 1. */
  readonly ofBothVersions?: boolean;
}

const tooSlow = "the content it is not asked about, since it tries for minutes to read what is not there";

const everyError: readonly Case[] = [
  {
    name: "a healthy repository",
    ofBothVersions: true,
    damage: async () => ({ structure: {} }),
  },
  {
    name: "a data pack that is missing",
    damage: async (copy) => {
      const { data } = await findPacks(copy);
      copy.remove("data", data[0] ?? "");
      return { structure: { packMissing: data.slice(0, 1) } };
    },
    restic: { structure: false, because: tooSlow },
  },
  {
    name: "a tree pack that is missing",
    damage: async (copy) => {
      const { tree } = await findPacks(copy);
      copy.remove("data", tree[0] ?? "");
      return { structure: { packMissing: tree.slice(0, 1), treeDamaged: tree.slice(0, 1) } };
    },
    restic: { because: tooSlow },
  },
  {
    name: "a data pack that is cut short",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      copy.change("data", pack, (bytes) => bytes.subarray(0, bytes.length / 2));
      return { structure: { packSize: [pack] }, content: { packHash: [pack], packHeader: [pack], blobDamaged: [pack] } };
    },
    restic: { structure: false, because: tooSlow },
  },
  {
    name: "a data pack with something behind its end",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      copy.change("data", pack, (bytes) => Buffer.concat([bytes, Buffer.alloc(64, 1)]));
      return { structure: { packSize: [pack] }, content: { packHash: [pack], packHeader: [pack] } };
    },
  },
  {
    name: "a data pack without content",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      copy.write("data", pack, Buffer.alloc(0));
      return { structure: { packSize: [pack] }, content: { packHash: [pack], packHeader: [pack], blobDamaged: [pack] } };
    },
    restic: { structure: false, because: tooSlow },
  },
  {
    name: "a flipped bit in a data blob",
    ofBothVersions: true,
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      copy.change("data", pack, flipAt(40));
      return { structure: {}, content: { packHash: [pack], blobDamaged: [pack] } };
    },
  },
  {
    name: "a flipped bit in a pack's header",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      copy.change("data", pack, flipAt(-20));
      return { structure: {}, content: { packHash: [pack], packHeader: [pack] } };
    },
  },
  {
    name: "a flipped bit in the length of a pack's header",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      copy.change("data", pack, flipAt(-4));
      return { structure: {}, content: { packHash: [pack], packHeader: [pack] } };
    },
  },
  {
    name: "a header's length that is larger than the pack",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      copy.change("data", pack, (bytes) => Buffer.concat([bytes.subarray(0, -4), Buffer.from([0xff, 0xff, 0xff, 0x7f])]));
      return { structure: {}, content: { packHash: [pack], packHeader: [pack] } };
    },
  },
  {
    name: "a flipped bit in a tree",
    ofBothVersions: true,
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).tree;
      copy.change("data", pack, flipAt(40));
      return { structure: { treeDamaged: [pack] }, content: { packHash: [pack], blobDamaged: [pack] } };
    },
  },
  {
    name: "two packs that have changed places",
    damage: async (copy) => {
      const [a = "", b = ""] = (await findPacks(copy)).data;
      const [contentOfA, contentOfB] = [copy.read("data", a), copy.read("data", b)];
      copy.write("data", a, contentOfB);
      copy.write("data", b, contentOfA);
      return { structure: { packSize: [a, b] }, content: { packHash: [a, b], packListing: [a, b] } };
    },
    restic: { structure: false, because: tooSlow },
  },
  {
    name: "an index file that is missing",
    ofBothVersions: true,
    damage: async (copy) => {
      const index = await findIndexOf(copy, (await findPacks(copy)).data[0] ?? "");
      copy.remove("index", index);
      return { structure: { treeMissing: [], blobMissing: [] } };
    },
  },
  ...(["flipped", "cut short", "without content"] as const).map(
    (how): Case => ({
      name: `an index file that is ${how}`,
      damage: async (copy) => {
        const index = await findIndexOf(copy, (await findPacks(copy)).data[0] ?? "");
        const change = { flipped: flipAt(100), "cut short": (bytes: Buffer) => bytes.subarray(0, 200), "without content": () => Buffer.alloc(0) };
        copy.change("index", index, change[how]);
        return { structure: { indexDamaged: [index], treeMissing: [], blobMissing: [] } };
      },
    }),
  ),
  {
    name: "an index entry with a wrong offset",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      await changeIndexOf(copy, pack, ({ blobs }) => {
        for (const blob of blobs) if (blob.offset > 0) blob.offset += 1;
      });
      return { structure: { packListing: [pack] }, content: { packListing: [pack] } };
    },
    restic: { structure: true, content: false, because: "but not of the structure, where it does not look at offsets" },
  },
  {
    name: "an index that has the lengths of two blobs mixed up",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      await changeIndexOf(copy, pack, ({ blobs }) => {
        const [first, second] = blobs.toSorted((a, b) => a.offset - b.offset);
        if (first === undefined || second === undefined || first.length === second.length) throw new Error("two blobs of different length needed");
        [first.length, second.length] = [second.length, first.length];
        second.offset = first.offset + first.length;
      });
      return { structure: {}, content: { packListing: [pack] } };
    },
  },
  {
    name: "an index that forgets a blob of a pack",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      await changeIndexOf(copy, pack, (listed) => {
        listed.blobs.sort((a, b) => a.offset - b.offset).pop();
      });
      return { structure: { packSize: [pack], blobMissing: [] }, content: { packListing: [pack] } };
    },
  },
  {
    name: "a data blob that is listed as a tree",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      const confused: string[] = [];
      await changeIndexOf(copy, pack, ({ blobs }) => {
        const [first] = blobs;
        if (first === undefined) throw new Error("a blob needed");
        first.type = "tree";
        confused.push(first.id);
      });
      return { structure: { blobMissing: confused }, content: { packListing: [pack] } };
    },
  },
  {
    name: "an index file that is there twice",
    damage: async (copy) => {
      const [index = ""] = copy.list("index");
      await writeIndex(copy, await readIndex(copy, index));
      return { structure: {} };
    },
  },
  {
    name: "an index file that two others have replaced, of which one lists a pack that is gone",
    damage: async (copy) => {
      const [pack = ""] = (await findPacks(copy)).data;
      const gone = sha256Hex(Buffer.from("gone"));
      await writeIndex(copy, { packs: [{ id: gone, blobs: [{ id: sha256Hex(Buffer.from("blob")), type: "data", offset: 0, length: 50 }] }] });
      assert.ok(copy.has("data", pack));
      return { structure: { packMissing: [gone] } };
    },
    restic: { structure: false, because: tooSlow },
  },
  {
    name: "a snapshot that is missing",
    damage: async (copy) => {
      copy.remove("snapshots", copy.list("snapshots")[0] ?? "");
      return { structure: {} };
    },
  },
  {
    name: "a flipped bit in a snapshot",
    damage: async (copy) => {
      const [snapshot = ""] = copy.list("snapshots");
      copy.change("snapshots", snapshot, flipAt(60));
      return { structure: { snapshotDamaged: [snapshot] } };
    },
  },
  {
    name: "a snapshot without content",
    damage: async (copy) => {
      const [snapshot = ""] = copy.list("snapshots");
      copy.write("snapshots", snapshot, Buffer.alloc(0));
      return { structure: { snapshotDamaged: [snapshot] } };
    },
  },
  {
    name: "a pack that no index file lists",
    damage: async (copy) => {
      const bytes = Buffer.from("left behind by a backup that died".repeat(10));
      copy.write("data", sha256Hex(bytes), bytes);
      return { structure: {} };
    },
  },
  {
    name: "a second key that is damaged",
    damage: async (copy) => {
      const bytes = copy.read("keys", copy.list("keys")[0] ?? "").subarray(0, 50);
      copy.write("keys", sha256Hex(bytes), bytes);
      return { structure: { keyDamaged: [] } };
    },
    restic: { because: "what it says depends on which key it tries first" },
  },
  {
    name: "a second key without content",
    damage: async (copy) => {
      copy.write("keys", sha256Hex(Buffer.alloc(0)), Buffer.alloc(0));
      return { structure: { keyDamaged: [] } };
    },
    restic: { because: "what it says depends on which key it tries first" },
  },
];

function idsOf(error: CheckError): readonly string[] {
  return Object.entries(error).flatMap(([field, value]) => (field.endsWith("Id") && typeof value === "string" ? [value] : []));
}

/** Fails unless the errors are of exactly these kinds, and every object is named by one of its kind. */
function assertVerdict(errors: readonly CheckError[], verdict: Verdict): void {
  const text = errors.map(({ kind, message }) => `${kind}: ${message}`).join("\n");
  assert.deepEqual([...new Set(errors.map(({ kind }) => kind))].sort(), Object.keys(verdict).sort(), text);
  for (const [kind, ids] of Object.entries(verdict)) {
    const named = errors.filter((error) => error.kind === kind).flatMap(idsOf);
    for (const id of ids) assert.ok(named.includes(id), `${kind} must name ${id}\n${text}`);
  }
  for (const { hint, message } of errors) assert.ok(hint !== "" && message !== "");
}

function resticApproves(copy: GoldenCopy, ...args: string[]): boolean {
  const run = spawnSync("restic", ["--no-cache", "--no-lock", "check", ...args], {
    env: { ...process.env, RESTIC_REPOSITORY: copy.location, RESTIC_PASSWORD: goldenPassword },
    encoding: "utf8",
  });
  return run.status === 0;
}

const without = skipWithout("restic");

describe("check names what is wrong, at the level where it shows", () => {
  for (const version of ["healthy", "healthy-v1"] as const satisfies readonly GoldenName[]) {
    for (const { name, damage, ofBothVersions } of everyError) {
      if (version === "healthy-v1" && ofBothVersions !== true) continue;
      test(`${name} (${version})`, async () => {
        using copy = await GoldenCopy.make(version);
        const { structure, content = {} } = await damage(copy);
        const quick = await checkRepository(await copy.open(), { workers: 1 });
        assertVerdict(quick.errors, structure);
        assert.equal(quick.structureVerifiedMs !== null, Object.keys(structure).length === 0);
        assert.equal(quick.contentVerifiedMs, null);
        const whole = await checkRepository(await copy.open(), { workers: 1, readData: { kind: "all" } });
        assertVerdict(whole.errors, { ...structure, ...content });
        assert.equal(whole.contentVerifiedMs !== null, whole.errors.length === 0);
      });
    }
  }
});

describe("restic says the same", { skip: without }, () => {
  for (const { name, damage, restic } of everyError) {
    if (restic !== undefined && restic.structure === undefined) continue;
    test(`${name}${restic === undefined ? "" : ` (${restic.because})`}`, async () => {
      using copy = await GoldenCopy.make();
      const { structure, content = {} } = await damage(copy);
      const isWhole = Object.keys(structure).length === 0;
      assert.equal(resticApproves(copy), restic?.structure ?? isWhole, "structure");
      if (restic !== undefined && restic.content === undefined) return;
      assert.equal(resticApproves(copy, "--read-data"), restic?.content ?? (isWhole && Object.keys(content).length === 0), "content");
    });
  }
});

describe("what cannot be opened says why", () => {
  const expectations: readonly { readonly name: string; readonly code: string; readonly damage: (copy: GoldenCopy) => void }[] = [
    { name: "a flipped bit in the config", code: "ConfigInvalid", damage: (copy) => copy.change(".", "config", flipAt(60)) },
    { name: "a config without content", code: "ConfigInvalid", damage: (copy) => copy.write(".", "config", Buffer.alloc(0)) },
    { name: "no config", code: "RepositoryNotFound", damage: (copy) => copy.remove(".", "config") },
    { name: "no key", code: "KeyInvalid", damage: (copy) => copy.remove("keys", copy.list("keys")[0] ?? "") },
    { name: "an only key without content", code: "KeyInvalid", damage: (copy) => copy.write("keys", copy.list("keys")[0] ?? "", Buffer.alloc(0)) },
  ];
  for (const { name, code, damage } of expectations) {
    test(name, async () => {
      using copy = await GoldenCopy.make();
      damage(copy);
      await assert.rejects(copy.open(), (error) => isFailure(error, code));
    });
  }
});

test("check notes what is no error: redundant index files, packs that no index file lists", async () => {
  using copy = await GoldenCopy.make();
  const [index = ""] = copy.list("index");
  await writeIndex(copy, await readIndex(copy, index));
  const bytes = Buffer.from("left behind by a backup that died".repeat(10));
  const packId = sha256Hex(bytes);
  copy.write("data", packId, bytes);
  const { errors, notes, counts } = await checkRepository(await copy.open(), { checkUnused: true, workers: 1 });
  assert.deepEqual(errors, []);
  assert.ok(notes.some((note) => note.kind === "packUnreferenced" && note.packId === packId && note.sizeBytes === bytes.length));
  assert.equal(notes.filter((note) => note.kind === "indexRedundant").length, 2);
  assert.equal(counts.unreferencedPacks, 1);
  assert.ok(!notes.some((note) => note.kind === "blobUnused"));
  copy.remove("snapshots", copy.list("snapshots")[0] ?? "");
  const after = await checkRepository(await copy.open(), { checkUnused: true, workers: 1 });
  assert.ok(after.notes.some((note) => note.kind === "blobUnused"));
});
