import assert from "node:assert/strict";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { skipWithout } from "@granary/base/testing";
import { type SnapshotId, parseBlobId } from "../format/ids.ts";
import { parseTimeNs } from "../format/time.ts";
import { loadFile, saveFile } from "../repository/files.ts";
import type { Repository } from "../repository/repository.ts";
import { createScratch } from "../repository/scratch.ts";
import { loadSnapshot, loadSnapshots } from "../repository/snapshots.ts";
import { createFaultyStore } from "../store/faulty.ts";
import { planForget, planForgetOf, runForget } from "./forget.ts";
import { emptyPolicy } from "./keep-policy.ts";
import { ResticRunner } from "./restic-runner.ts";
import { applyChange, changeTags, type TagChange, type TagEvent } from "./tag.ts";

const tree = parseBlobId("7e".repeat(32));

function saveJson(repository: Repository, fields: object): Promise<SnapshotId> {
  const json = Buffer.from(JSON.stringify({ time: "2026-05-01T00:30:00.5+02:00", tree, paths: ["/p"], hostname: "h", ...fields }));
  return saveFile(repository, { kind: "snapshot", json });
}

async function tagAll(repository: Repository, change: TagChange): Promise<TagEvent[]> {
  const all = await loadSnapshots(repository);
  const events: TagEvent[] = [];
  await changeTags(repository, { chosen: all, all, change, onEvent: (event) => events.push(event) });
  return events;
}

test("applyChange() adds before it removes, once each, and keeps the order", () => {
  assert.deepEqual(applyChange(["b", "a"], { kind: "edit", add: ["c", "a", "c"], remove: ["b", "x"] }), ["a", "c"]);
  assert.deepEqual(applyChange(["a"], { kind: "edit", add: ["b"], remove: ["b"] }), ["a"]);
  assert.deepEqual(applyChange(["a"], { kind: "set", tags: ["y", "x", "y"] }), ["y", "x"]);
  assert.deepEqual(applyChange(["a"], { kind: "set", tags: [""] }), []);
});

test("changeTags() writes a new snapshot that names its original, and loses nothing of the old one", async () => {
  const repository = await createScratch();
  const oldId = await saveJson(repository, {
    tags: ["a"],
    parent: "11".repeat(32),
    excludes: ["*.o"],
    x_other: { n: 18446744073709551615n.toString() },
    program_version: "x 1",
  });
  const [event] = await tagAll(repository, { kind: "edit", add: ["b"], remove: [] });
  assert.ok(event?.kind === "changed" && event.oldId === oldId);
  const [after] = await loadSnapshots(repository);
  assert.equal(after?.id, event.newId);
  assert.deepEqual([after?.tags, after?.original, after?.parent, after?.excludes], [["a", "b"], oldId, "11".repeat(32), ["*.o"]]);
  const text = Buffer.from(await loadFile(repository, { kind: "snapshot", id: event.newId })).toString();
  // the time keeps the offset of its clock, which is what days and weeks are counted by
  assert.ok(text.startsWith('{"time":"2026-05-01T00:30:00.5+02:00",'), text);
  assert.ok(text.includes('"x_other":{"n":"18446744073709551615"}'));
  // once more: the original stays the first one
  const [again] = await tagAll(repository, { kind: "set", tags: ["c"] });
  assert.ok(again?.kind === "changed");
  assert.equal((await loadSnapshot(repository, again.newId)).original, oldId);
  assert.deepEqual(await tagAll(repository, { kind: "set", tags: ["c"] }), []);
  await assert.rejects(tagAll(repository, { kind: "edit", add: [], remove: [] }), (error) => isFailure(error, "InvalidArgument"));
});

test("changeTags() never leaves a snapshot without a file, and ends what an interrupted run began", async () => {
  for (const [operation, mode] of [
    ["save", "before"],
    ["save", "after"],
    ["remove", "before"],
    ["remove", "after"],
  ] as const) {
    const repository = await createScratch();
    await saveJson(repository, { tags: ["a"] });
    const store = createFaultyStore(repository.store, [{ operation, kind: "snapshot", nth: 1, mode }]);
    const events = await tagAll({ ...repository, store }, { kind: "edit", add: ["b"], remove: [] });
    assert.deepEqual(
      events.map(({ kind }) => kind),
      ["failed"],
    );
    assert.ok((await loadSnapshots(repository)).length >= 1, `${operation} ${mode}`);
    await tagAll(repository, { kind: "edit", add: ["b"], remove: [] });
    const left = await loadSnapshots(repository);
    assert.deepEqual(
      left.map(({ tags }) => tags),
      [["a", "b"]],
      `${operation} ${mode}`,
    );
  }
});

test("changeTags() reports a snapshot that cannot be read and changes the others", async () => {
  const repository = await createScratch();
  const bad = await saveJson(repository, {});
  await saveJson(repository, { hostname: "other" });
  const all = await loadSnapshots(repository);
  await repository.store.remove({ kind: "snapshot", name: bad });
  const counts = await changeTags(repository, { chosen: all, all, change: { kind: "set", tags: ["t"] } });
  assert.deepEqual(counts, { changed: 1, failed: 1 });
});

test("restic takes what changeTags() wrote, and changeTags() what restic's tag wrote", { skip: skipWithout("restic") }, async () => {
  using restic = new ResticRunner({ timeZone: "Europe/Vienna" });
  const repository = await restic.create();
  const folder = restic.makeFolder("source");
  restic.run("backup", folder, "--tag", "one,two", "--time", "2026-07-01 00:30:00");
  const [before] = await loadSnapshots(repository);
  await tagAll(repository, { kind: "edit", add: ["three"], remove: ["one"] });
  const listed = (): Record<string, unknown>[] => JSON.parse(restic.read("snapshots", "--json")) as Record<string, unknown>[]; // restic's JSON
  assert.deepEqual(
    listed().map(({ tags, original, time }) => [tags, original, time]),
    [[["two", "three"], before?.id, "2026-07-01T00:30:00+02:00"]],
  );
  restic.run("tag", "--add", "four", "--remove", "two");
  await tagAll(repository, { kind: "set", tags: ["", "last"] });
  assert.deepEqual(
    listed().map(({ tags, original }) => [tags, original]),
    [[["last"], before?.id]],
  );
  assert.match(restic.run("check"), /no errors were found/);
});

test("a forget run leaves what restic's dry run says it would keep, by the clocks where snapshots were made", {
  skip: skipWithout("restic"),
}, async () => {
  using restic = new ResticRunner({ timeZone: "Europe/Vienna" });
  const repository = await restic.create();
  const folder = restic.makeFolder("source");
  restic.run("backup", folder);
  const [backedUp] = await loadSnapshots(repository);
  // around midnight of two clocks
  for (const time of [
    "2026-07-01T23:30:00+02:00",
    "2026-07-02T00:30:00+02:00",
    "2026-07-01T22:00:00Z",
    "2026-07-02T12:00:00-07:00",
    "2026-06-30T23:59:59Z",
  ]) {
    await saveJson(repository, { time, tree: backedUp?.tree, paths: backedUp?.paths, hostname: backedUp?.hostname });
  }
  const [group] = JSON.parse(restic.run("forget", "--dry-run", "--json", "--keep-daily", "2")) as { keep: { id: string }[] }[]; // restic's JSON
  const subjects = await loadSnapshots(repository);
  assert.deepEqual(subjects.map(({ timeOffsetMinutes }) => timeOffsetMinutes).slice(0, 5), [0, 120, 0, 120, -420]);
  const plan = planForget(
    subjects,
    { ...emptyPolicy, daily: 2 },
    {
      groupBy: { host: true, paths: true, tags: false },
      nowNs: parseTimeNs("2199-01-01T00:00:00Z"),
      timeZone: "Europe/Vienna",
      allowRemoveAll: false,
      isFiltered: false,
    },
  );
  await runForget(repository.store, plan);
  const left = JSON.parse(restic.read("snapshots", "--json")) as { id: string }[]; // restic's JSON
  assert.deepEqual(left.map(({ id }) => id).sort(), group?.keep.map(({ id }) => id).sort());
  assert.match(restic.run("check"), /no errors were found/);
  const rest = await loadSnapshots(repository);
  assert.equal((await runForget(repository.store, planForgetOf(rest.slice(0, 1)))).removed.length, 1);
  assert.equal((await loadSnapshots(repository)).length, rest.length - 1);
});
