/** Prune killed at every change that it makes, on a repository that restic wrote. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Secret } from "@granary/base/secret";
import { skipWithout } from "@granary/base/testing";
import { lockRepository } from "../repository/lock.ts";
import { removeStaleLocks } from "../repository/lock-list.ts";
import { openRepository, type Repository } from "../repository/repository.ts";
import { openLocalStore } from "../store/local.ts";
import { checkRepository } from "./check.ts";
import { readEverything, savePlainPack } from "./plain-repository.ts";
import { planPrune, runPrune } from "./prune.ts";
import { ResticRunner } from "./restic-runner.ts";

const password = "correct horse battery staple";

function pruneInChild(location: string, nth: number, mode: string): ReturnType<typeof spawnSync> {
  const script = join(import.meta.dirname, "prune-in-child.ts");
  return spawnSync(process.execPath, ["--conditions=source", script, location, String(nth), mode, password], { encoding: "utf8" });
}

function open(location: string): Promise<Repository> {
  return openRepository(openLocalStore(location), { password: new Secret(password) });
}

describe("prune killed with SIGKILL", { skip: skipWithout("restic") }, () => {
  let restic: ResticRunner;
  let files: Map<string, Map<string, string>>;

  before(async () => {
    restic = new ResticRunner();
    await restic.create();
    const home = restic.makeFolder("home");
    const write = (name: string, size: number): void => {
      execFileSync("sh", ["-c", `head -c ${size} /dev/urandom > "$1"`, "sh", join(home, name)]);
    };
    for (let i = 0; i < 6; i++) write(`old-${i}`, 3000);
    write("shared", 50_000);
    restic.run("backup", "--host", "h", "home");
    execFileSync("sh", ["-c", `rm "$1"/old-*`, "sh", home]);
    for (let i = 0; i < 3; i++) write(`new-${i}`, 2000);
    restic.run("backup", "--host", "h", "home");
    write("newest", 2000);
    restic.run("backup", "--host", "h", "home");
    restic.run("forget", "--keep-last", "1");
    const repository = await open(restic.location);
    await savePlainPack(repository, [{ type: "data", plain: Buffer.from("left behind") }]);
    files = await readEverything(repository);
  });

  after(() => restic[Symbol.dispose]());

  async function killAndLook(nth: number, mode: string): Promise<void> {
    const folder = mkdtempSync(join(tmpdir(), "granary-kill-"));
    try {
      const location = join(folder, "repository");
      cpSync(restic.location, location, { recursive: true });
      const child = pruneInChild(location, nth, mode);
      assert.equal(child.signal, "SIGKILL", String(child.stderr));
      const repository = await open(location);
      assert.deepEqual(await readEverything(repository), files);
      await removeStaleLocks(repository);
      {
        await using lock = await lockRepository(repository, { exclusive: true });
        const plan = await planPrune(repository, { workers: 1, maxUnused: { kind: "size", sizeBytes: 0 }, signal: lock.signal });
        await runPrune(repository, plan, { workers: 1, signal: lock.signal });
      }
      assert.deepEqual(await readEverything(repository), files);
      const { errors, notes } = await checkRepository(repository, { workers: 1, readData: { kind: "all" }, checkUnused: true });
      assert.deepEqual([errors, notes], [[], []]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  test("at each save and each removal loses nothing, and the next prune completes it", async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "granary-kill-"));
    const location = join(folder, "repository");
    cpSync(restic.location, location, { recursive: true });
    const child = pruneInChild(location, 0, "after");
    rmSync(folder, { recursive: true, force: true });
    assert.equal(child.status, 0, String(child.stderr));
    const changes = Number(child.stdout);
    assert.ok(changes >= 10, `${changes} changes`);
    for (let nth = 2; nth <= changes; nth++) {
      const mode = ["before", "midway", "after"][nth % 3] ?? "after";
      await t.test(`${mode} change ${nth} of ${changes}`, () => killAndLook(nth, mode));
    }
  });

  test("leaves what restic accepts, and can complete", async () => {
    for (const [nth, mode] of [
      [5, "after"],
      [8, "before"],
    ] as const) {
      using copy = new ResticRunner({ beside: restic, name: `killed-${nth}` });
      cpSync(restic.location, copy.location, { recursive: true });
      assert.equal(pruneInChild(copy.location, nth, mode).signal, "SIGKILL");
      copy.run("unlock");
      copy.run("check", "--read-data");
      copy.run("prune", "--max-unused", "0");
      copy.run("check", "--read-data");
      assert.deepEqual(await readEverything(await open(copy.location)), files);
    }
  });
});
