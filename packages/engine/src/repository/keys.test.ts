import assert from "node:assert/strict";
import { test } from "node:test";
import { Secret } from "@granary/base/secret";
import { fakeClock } from "@granary/base/testing";
import { parseKeyId } from "../format/ids.ts";
import { createFaultyStore, type FaultMode } from "../store/faulty.ts";
import { createMemoryStore } from "../store/memory.ts";
import { addKey, changePassword, findKey, listKeys, removeKey, saveKey } from "./keys.ts";
import { openRepository } from "./repository.ts";
import { createScratch, failsWith, flip, insecureScryptCost, listNames, plant, scratchPassword, spoil } from "./scratch.ts";

const cheap = { insecureScryptCost };

test("each key opens the same repository, and is listed with whose it is, oldest first", async () => {
  const clock = fakeClock(Date.UTC(2026, 0, 2));
  const repository = await createScratch(createMemoryStore(), { clock, username: "alice", hostname: "alpha" });
  await clock.advance(1000);
  const id = await addKey(repository, new Secret("second"), { ...cheap, clock, username: "bob", hostname: "beta" });
  const opened = await openRepository(repository.store, { password: new Secret("second") });
  assert.equal(opened.keyId, id);
  assert.deepEqual(opened.key, repository.key);
  const createdNs = BigInt(Date.UTC(2026, 0, 2)) * 1_000_000n;
  assert.deepEqual(await listKeys(opened), [
    { id: repository.keyId, createdNs, username: "alice", hostname: "alpha", isCurrent: false },
    { id, createdNs: createdNs + 1_000_000_000n, username: "bob", hostname: "beta", isCurrent: true },
  ]);
});

test("a key without a name given carries those of this user and machine", async () => {
  const { userInfo, hostname } = await import("node:os");
  const [key] = await listKeys(await createScratch());
  assert.equal(key?.username, userInfo().username);
  assert.equal(key?.hostname, hostname());
});

test("removeKey() removes any key but the one in use", async () => {
  const repository = await createScratch();
  const id = await addKey(repository, new Secret("second"), cheap);
  await assert.rejects(removeKey(repository, repository.keyId), failsWith("KeyInUse"));
  await removeKey(repository, id);
  await assert.rejects(openRepository(repository.store, { password: new Secret("second") }), failsWith("WrongPassword"));
  await assert.rejects(removeKey(repository, id), failsWith("KeyNotFound"));
  await openRepository(repository.store, { password: scratchPassword });
});

test("changePassword() gives a holder with another key in use, and ends the old password", async () => {
  const repository = await createScratch();
  const changed = await changePassword(repository, new Secret("new"), cheap);
  assert.notEqual(changed.keyId, repository.keyId);
  assert.deepEqual(await listNames(repository.store, "key"), [changed.keyId]);
  await assert.rejects(removeKey(changed, changed.keyId), failsWith("KeyInUse"));
  await assert.rejects(openRepository(repository.store, { password: scratchPassword }), failsWith("WrongPassword"));
  const opened = await openRepository(repository.store, { password: new Secret("new") });
  assert.deepEqual(opened.key, repository.key);
});

test("changePassword() interrupted anywhere leaves the old password or the new one, or both", async () => {
  const modes: readonly FaultMode[] = ["before", "midway", "after"];
  for (const mode of modes) {
    for (let dieAt = 1, isDone = false; !isDone; dieAt++) {
      const repository = await createScratch();
      const faulty = createFaultyStore(repository.store, [{ from: dieAt, mode }]);
      isDone = await changePassword({ ...repository, store: faulty }, new Secret("new"), cheap).then(
        () => true,
        () => false,
      );
      const opens = await Promise.allSettled(
        [scratchPassword, new Secret("new")].map((password) => openRepository(repository.store, { password })),
      );
      const isOpened = opens.map(({ status }) => status === "fulfilled");
      if (isDone) assert.deepEqual(isOpened, [false, true]);
      else assert.ok(isOpened.includes(true), `${mode} at ${dieAt}: locked out`);
    }
  }
});

test("a new key that was stored wrongly is not relied upon", async () => {
  const repository = await createScratch();
  const faulty = createFaultyStore(repository.store, [{ operation: "load", kind: "key", mode: "flip" }]);
  await assert.rejects(changePassword({ ...repository, store: faulty }, new Secret("new"), cheap), failsWith("KeyInvalid"));
  await openRepository(repository.store, { password: scratchPassword });
});

test("the master key is the same bytes whichever key file it comes from", async () => {
  const repository = await createScratch();
  const macR = Uint8Array.from(repository.key.macR);
  // bits that Poly1305 does not use
  for (const at of [3, 7, 11, 15]) macR[at] = (macR[at] ?? 0) | 0xf0;
  for (const at of [4, 8, 12]) macR[at] = (macR[at] ?? 0) | 0x03;
  assert.notDeepEqual(macR, repository.key.macR);
  const password = new Secret("other");
  await saveKey(repository.store, { key: { ...repository.key, macR }, password }, cheap);
  assert.deepEqual((await openRepository(repository.store, { password })).key, repository.key);
});

test("an empty password is refused", async () => {
  const repository = await createScratch();
  await assert.rejects(addKey(repository, new Secret(""), cheap), failsWith("InvalidArgument"));
  assert.equal((await listNames(repository.store, "key")).length, 1);
});

test("passwords of any characters work, and each character counts", async () => {
  const repository = await createScratch();
  for (const text of ["ключ 鍵 🔑", "\u0000", "a".repeat(1000), "e\u0301"]) {
    const id = await addKey(repository, new Secret(text), cheap);
    assert.equal((await openRepository(repository.store, { password: new Secret(text) })).keyId, id);
  }
  await assert.rejects(openRepository(repository.store, { password: new Secret("\u00e9") }), failsWith("WrongPassword"));
});

test("listKeys() fails at a damaged key, or leaves it out when told where to report it", async () => {
  const repository = await createScratch();
  const bad = await plant(repository.store, "key", Buffer.from("{}"));
  await assert.rejects(listKeys(repository), failsWith("KeyInvalid", new RegExp(bad.name)));
  const reported: string[] = [];
  const keys = await listKeys(repository, { onDamagedKey: (failure) => reported.push(failure.code) });
  assert.deepEqual([keys.map(({ id }) => id), reported], [[repository.keyId], ["KeyInvalid"]]);
});

test("findKey() takes the beginning of an id", async () => {
  const repository = await createScratch();
  const { keyId } = repository;
  assert.equal(await findKey(repository, keyId.slice(0, 8)), keyId);
  assert.equal(await findKey(repository, keyId), keyId);
  await assert.rejects(findKey(repository, "xyz"), failsWith("KeyNotFound"));
  await assert.rejects(findKey(repository, ""), failsWith("KeyNotFound"));
  while ((await listKeys(repository)).filter(({ id }) => id.startsWith(keyId.slice(0, 1))).length < 2) {
    await addKey(repository, new Secret("more"), cheap);
  }
  await assert.rejects(findKey(repository, keyId.slice(0, 1)), failsWith("InvalidArgument", /\d ids begin so/));
});

test("a key whose salt or data is damaged does not open", async () => {
  const repository = await createScratch();
  const ref = { kind: "key", name: parseKeyId(repository.keyId) } as const;
  const good = await repository.store.load(ref);
  for (const field of ["salt", "data"]) {
    await spoil(repository.store, ref, () => {
      const file = JSON.parse(Buffer.from(good).toString()) as Record<string, string>;
      return Buffer.from(
        JSON.stringify({ ...file, [field]: Buffer.from(flip(Buffer.from(file[field] ?? "", "base64"))).toString("base64") }),
      );
    });
    await assert.rejects(openRepository(repository.store, { password: scratchPassword }), failsWith("WrongPassword"), field);
  }
});
