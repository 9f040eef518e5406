/** Check, prune and repair over the wire, where each read is a request that the main thread makes for its workers. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import { skipWithout } from "@granary/base/testing";
import { parsePackId } from "../format/ids.ts";
import { lockRepository } from "../repository/lock.ts";
import { openRepository, type Repository } from "../repository/repository.ts";
import { openLocalStore } from "../store/local.ts";
import { openRestStore } from "../store/rest.ts";
import { checkRepository } from "./check.ts";
import { readEverything } from "./plain-repository.ts";
import { planPrune, runPrune } from "./prune.ts";
import { planPackRepair, runPackRepair } from "./repair-packs.ts";
import { ResticRunner } from "./restic-runner.ts";

/** Serves a folder as a repository until disposed of. */
async function serve(folder: string): Promise<AsyncDisposable & { readonly url: string }> {
  const child: ChildProcess = spawn("rclone", ["serve", "restic", "--addr", "127.0.0.1:0", "--config", "/dev/null", folder], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  if (child.stderr === null) throw new Error("rclone has no output");
  for await (const line of createInterface(child.stderr)) {
    const url = /Serving restic REST API on (https?:\/\/\S+)/.exec(line)?.[1];
    if (url === undefined) continue;
    child.stderr.resume();
    return {
      url,
      async [Symbol.asyncDispose]() {
        const exited = once(child, "exit");
        child.kill();
        await exited;
      },
    };
  }
  throw new Error("rclone did not tell its address");
}

async function open(url: string): Promise<Repository> {
  return await openRepository(openRestStore(`rest:${url}`), { password: new Secret("correct horse battery staple") });
}

test("check, prune and repair work on a REST server, and restic agrees", { skip: skipWithout("restic", "rclone") }, async () => {
  using restic = new ResticRunner();
  await restic.create();
  const home = restic.makeFolder("home");
  for (let i = 0; i < 30; i++) writeFileSync(join(home, `file-${i}`), `content ${i} `.repeat(500));
  restic.run("backup", "--host", "h", "home");
  for (let i = 0; i < 30; i += 2) rmSync(join(home, `file-${i}`));
  writeFileSync(join(home, "new"), "new");
  restic.run("backup", "--host", "h", "home");
  restic.run("forget", "--keep-last", "1");
  await using server = await serve(restic.location);
  const repository = await open(server.url);
  const files = await readEverything(repository);
  assert.deepEqual((await checkRepository(repository, { readData: { kind: "all" } })).errors, []);
  {
    await using lock = await lockRepository(repository, { exclusive: true });
    const plan = await planPrune(repository, { maxUnused: { kind: "size", sizeBytes: 0 }, signal: lock.signal });
    const report = await runPrune(repository, plan, { signal: lock.signal });
    assert.ok(report.packsRepacked > 0);
  }
  assert.deepEqual(await readEverything(repository), files);
  const after = await checkRepository(repository, { readData: { kind: "all" }, checkUnused: true });
  assert.deepEqual([after.errors, after.notes], [[], []]);
  restic.run("check", "--read-data");

  // A damaged header, and a copy of the pack kept in another place, since the server has no quarantine.
  const [pack] = await Array.fromAsync(openLocalStore(restic.location).list("pack"));
  const path = openLocalStore(restic.location).pathOf({ kind: "pack", name: pack?.name ?? "" });
  const bytes = await repository.store.load({ kind: "pack", name: pack?.name ?? "" });
  bytes[bytes.length - 20] = (bytes[bytes.length - 20] ?? 0) ^ 1;
  rmSync(path);
  writeFileSync(path, bytes);
  const quarantine = openLocalStore(join(restic.folder, "quarantine"));
  await quarantine.create();
  writeFileSync(join(restic.folder, "quarantine", "config"), "");
  const plan = await planPackRepair(repository, [parsePackId(pack?.name ?? "")]);
  assert.equal(plan.packs[0]?.state, "damaged");
  await assert.rejects(runPackRepair(repository, plan), (error) => isFailure(error, "InvalidArgument"));
  await runPackRepair(repository, plan, { quarantine });
  assert.deepEqual(Buffer.from(await quarantine.load({ kind: "pack", name: pack?.name ?? "" })), Buffer.from(bytes));
  assert.deepEqual(await readEverything(repository), files);
  restic.run("check", "--read-data");
});
