import assert from "node:assert/strict";
import { test } from "node:test";
import { type Failure, isFailure } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import { isIrreducible } from "../chunk/polynomial.ts";
import { encodeFile } from "../format/file.ts";
import { createFaultyStore, type FaultMode } from "../store/faulty.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { FileKind, Store } from "../store/store.ts";
import { createRepository, openRepository } from "./repository.ts";
import {
  createScratch,
  failsWith,
  flip,
  insecureScryptCost,
  listNames,
  onlyFile,
  plant,
  scratchPassword,
  spoil,
  truncate,
} from "./scratch.ts";

const password = scratchPassword;
const configRef = { kind: "config", name: "" } as const;

test("a repository that was created opens with its password, and is the same", async () => {
  const store = createMemoryStore();
  const created = await createScratch(store);
  const opened = await openRepository(store, { password });
  assert.deepEqual(opened.config, created.config);
  assert.deepEqual(opened.keyId, created.keyId);
  assert.deepEqual(opened.key, created.key);
  assert.equal(opened.config.version, 2);
  assert.ok(isIrreducible(opened.config.chunkerPolynomial));
  assert.equal(opened.sealer.open(created.sealer.seal(Buffer.from("abc"))).toString(), "abc");
});

test("two repositories have nothing in common, unless the polynomial is given", async () => {
  const a = await createScratch();
  const b = await createScratch();
  assert.notEqual(a.config.id, b.config.id);
  assert.notEqual(a.config.chunkerPolynomial, b.config.chunkerPolynomial);
  assert.notDeepEqual(a.key.encrypt, b.key.encrypt);
  const c = await createScratch(createMemoryStore(), { chunkerPolynomial: a.config.chunkerPolynomial });
  assert.equal(c.config.chunkerPolynomial, a.config.chunkerPolynomial);
});

test("keys made without asking for less cost at least the floor", async () => {
  const store = createMemoryStore();
  await createRepository(store, { password });
  const key = JSON.parse(Buffer.from(await store.load(await onlyFile(store, "key"))).toString()) as { N: number; r: number; p: number };
  assert.ok(key.N >= 2 ** 15 && key.r === 8 && key.N * key.p >= 2 ** 15 * 3, JSON.stringify(key));
});

test("createRepository() refuses where there is one, and where one has lost its config", async () => {
  const store = createMemoryStore();
  await createScratch(store);
  await assert.rejects(createScratch(store), failsWith("RepositoryExists", /has a config/));
  for (const kind of ["snapshot", "index", "pack"] as const) {
    const headless = createMemoryStore();
    await plant(headless, kind, Buffer.from("something"));
    await assert.rejects(createScratch(headless), failsWith("RepositoryExists", new RegExp(`${kind} files but no config`)));
  }
});

test("createRepository() refuses an empty password, and leaves nothing", async () => {
  const store = createMemoryStore();
  await assert.rejects(createScratch(store, { password: new Secret("") }), failsWith("InvalidArgument"));
  assert.deepEqual(await listNames(store, "config"), []);
  assert.deepEqual(await listNames(store, "key"), []);
});

test("createRepository() can be stopped at every call to the store, and run again", async () => {
  const modes: readonly FaultMode[] = ["before", "midway", "after"];
  for (const mode of modes) {
    for (let dieAt = 1; ; dieAt++) {
      const store = createMemoryStore();
      const faulty = createFaultyStore(store, [{ from: dieAt, mode }]);
      const outcome = await createScratch(faulty).catch((error: unknown) => error);
      if (!isFailure(outcome)) {
        assert.ok(dieAt > 5, `it took only ${dieAt} calls`);
        break;
      }
      assert.equal(outcome.code, "StoreUnavailable");
      const isCommitted = (await listNames(store, "config")).length === 1;
      if (isCommitted) await assert.rejects(createScratch(store), failsWith("RepositoryExists"));
      else {
        await createScratch(store);
        assert.equal((await listNames(store, "key")).length, 1, "keys of the first attempt are gone");
      }
      await openRepository(store, { password });
    }
  }
});

test("a key file of an interrupted creation does not stand in the way of opening", async () => {
  const other = await createScratch();
  const left = await other.store.load(await onlyFile(other.store, "key"));
  // whichever comes first in the list of keys
  for (let i = 0; i < 4; i++) {
    const store = createMemoryStore();
    const before = i % 2 === 0;
    const { keyId } = before ? await keyFirst(store) : await createScratch(store);
    if (!before) await plant(store, "key", left);
    assert.equal((await openRepository(store, { password })).keyId, keyId);
  }
  async function keyFirst(store: Store): ReturnType<typeof createScratch> {
    const created = await createScratch();
    await plant(store, "key", left);
    await plant(store, "key", await created.store.load({ kind: "key", name: created.keyId }));
    await plant(store, "config", await created.store.load(configRef));
    return created;
  }
});

test("of two that create a repository at the same time, one wins, and its key alone is left", async () => {
  for (let i = 0; i < 10; i++) {
    const store = createMemoryStore();
    const outcomes = await Promise.allSettled([
      createScratch(store, { password: new Secret("a") }),
      createScratch(store, { password: new Secret("b") }),
    ]);
    const winner = outcomes.findIndex(({ status }) => status === "fulfilled");
    const loser = outcomes.find((outcome) => outcome.status === "rejected");
    assert.ok(loser !== undefined && winner >= 0);
    assert.ok(isFailure(loser.reason, "RepositoryExists"), String(loser.reason));
    assert.equal((await listNames(store, "key")).length, 1);
    await openRepository(store, { password: new Secret(winner === 0 ? "a" : "b") });
  }
});

test("opening what is not there, or with a wrong password, says so", async () => {
  await assert.rejects(openRepository(createMemoryStore(), { password }), failsWith("RepositoryNotFound", /at memory: it has no config/));
  const { store } = await createScratch();
  for (const wrong of ["", "correct horse battery stapl", "correct horse battery staple ", "Correct horse battery staple"]) {
    await assert.rejects(openRepository(store, { password: new Secret(wrong) }), failsWith("WrongPassword", /1 of its 1 keys/));
  }
});

test("a store that does not answer is not taken for a wrong password or a missing repository", async () => {
  const { store } = await createScratch();
  for (const kind of ["config", "key"] as const satisfies readonly FileKind[]) {
    const away = createFaultyStore(store, [{ kind, mode: "before" }]);
    await assert.rejects(openRepository(away, { password }), failsWith("StoreUnavailable"));
  }
});

test("a config that is damaged in any way is named", async () => {
  const damages: readonly (readonly [name: string, change: (bytes: Uint8Array) => Uint8Array, message: RegExp])[] = [
    ["flipped", flip, /Cannot read config: its authentication code does not match/],
    ["truncated", truncate, /Cannot read config: /],
    ["nearly empty", (bytes) => bytes.slice(0, 20), /it is 20 bytes, more than 32 needed/],
    ["empty", () => new Uint8Array(0), /it is 0 bytes/],
  ];
  for (const [name, change, message] of damages) {
    const { store } = await createScratch();
    await spoil(store, configRef, change);
    await assert.rejects(openRepository(store, { password }), failsWith("ConfigInvalid", message), name);
  }
});

test("a config of another repository is refused, also when it comes with the same password", async () => {
  const a = await createScratch();
  const b = await createScratch();
  const foreign = await b.store.load(configRef);
  await spoil(a.store, configRef, () => foreign);
  await assert.rejects(openRepository(a.store, { password }), failsWith("ConfigInvalid", /sealed under another key/));
});

test("a config that says what cannot be is refused", async () => {
  const contents: readonly (readonly [json: string, code: string])[] = [
    ['{"version":3,"id":"","chunker_polynomial":""}', "RepositoryVersion"],
    ['{"version":0}', "ConfigInvalid"],
    ["[]", "ConfigInvalid"],
    ["{}", "ConfigInvalid"],
    [`{"version":2,"id":"${"ab".repeat(32)}","chunker_polynomial":"3"}`, "ConfigInvalid"],
    // x^53, which is x times x^52
    [`{"version":2,"id":"${"ab".repeat(32)}","chunker_polynomial":"20000000000000"}`, "ConfigInvalid"],
  ];
  for (const [json, code] of contents) {
    const { store, sealer } = await createScratch();
    await spoil(store, configRef, () => encodeFile(sealer, Buffer.from(json), false));
    await assert.rejects(openRepository(store, { password }), failsWith(code), json);
  }
});

test("damaged key files are reported, and do not keep another key from opening", async () => {
  const { store, keyId } = await createScratch();
  const planted = await Promise.all([
    plant(store, "key", Buffer.from("no JSON")),
    plant(store, "key", Buffer.from('{"kdf":"scrypt","N":3}')),
    plant(store, "key", new Uint8Array(0)),
  ]);
  const reported: Failure[] = [];
  const opened = await openRepository(store, { password, onDamagedKey: (failure) => reported.push(failure) });
  assert.equal(opened.keyId, keyId);
  for (const failure of reported) assert.equal(failure.code, "KeyInvalid");
  // those that come after the right one are not looked at
  const before = planted.filter(({ name }) => reported.some((failure) => failure.message.includes(name)));
  assert.equal(before.length, reported.length);
  reported.length = 0;
  await assert.rejects(
    openRepository(store, { password: new Secret("wrong"), onDamagedKey: (failure) => reported.push(failure) }),
    failsWith("WrongPassword", /1 of its 4 keys/),
  );
  assert.equal(reported.length, 3);
});

test("when every key file is damaged or gone, it is not the password that is wrong", async () => {
  for (const change of [truncate, () => Buffer.from("{}")]) {
    const { store } = await createScratch();
    await spoil(store, await onlyFile(store, "key"), change);
    await assert.rejects(openRepository(store, { password }), failsWith("KeyInvalid", /1 key files found, at least 1 that is not damaged/));
  }
  const { store } = await createScratch();
  await store.remove(await onlyFile(store, "key"));
  await assert.rejects(openRepository(store, { password }), failsWith("KeyInvalid", /0 key files/));
});

test("a key file that is damaged where it does not matter still opens, with a warning", async () => {
  const { store } = await createScratch(createMemoryStore(), { hostname: "alpha" });
  await spoil(store, await onlyFile(store, "key"), (bytes) => Buffer.from(Buffer.from(bytes).toString().replace("alpha", "aloha")));
  const warnings: string[] = [];
  await openRepository(store, { password, onDamagedKey: (failure) => warnings.push(failure.code) });
  assert.deepEqual(warnings, ["NameMismatch"]);
});

test("the hint comes first, and not more keys are tried than allowed", async () => {
  const { store, key } = await createScratch();
  const { addKey } = await import("./keys.ts");
  const first = await onlyFile(store, "key");
  const holder = { store, key, keyId: (await openRepository(store, { password })).keyId };
  for (let i = 0; i < 24; i++) await addKey(holder, new Secret(`password ${i}`), { insecureScryptCost });
  const mine = await addKey(holder, new Secret("mine"), { insecureScryptCost });
  const loads = (calls: readonly { operation: string; kind?: string }[]): number =>
    calls.filter(({ operation, kind }) => operation === "load" && kind === "key").length;

  const counted = createFaultyStore(store);
  assert.equal((await openRepository(counted, { password: new Secret("mine"), keyHint: mine.slice(0, 12) })).keyId, mine);
  assert.equal(loads(counted.calls), 1);

  const all = createFaultyStore(store);
  await assert.rejects(openRepository(all, { password: new Secret("nobody's") }), failsWith("WrongPassword", /20 of its 26 keys/));
  assert.equal(loads(all.calls), 20);
  await openRepository(store, { password: new Secret("mine"), maxKeys: 26 });
  assert.equal((await openRepository(store, { password, keyHint: first.name })).keyId, first.name);
  // a hint that fits nothing does no harm
  await openRepository(store, { password: new Secret("mine"), maxKeys: 26, keyHint: "none" });
});

test("what is open prints no secret", async () => {
  const { inspect } = await import("node:util");
  const repository = await createScratch();
  assert.doesNotMatch(inspect(scratchPassword), /horse/);
  assert.equal(JSON.stringify({ password: scratchPassword }), '{"password":"[secret]"}');
  await assert.rejects(openRepository(repository.store, { password: new Secret("tr0ub4dor") }), (error: Failure) => {
    assert.doesNotMatch(inspect(error), /tr0ub4dor/);
    return true;
  });
});
