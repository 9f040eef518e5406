/**
 * The robustness run, for GRANARY_ROBUSTNESS_MINUTES (20 when absent). The seed is printed, and GRANARY_SEED repeats its actions, but not the
 * exact moments of the kills. After a failure the folder with the repository and the source stays, and the log of actions is in it.
 */
import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { Lot } from "./robustness/lot.ts";
import { RobustnessRun } from "./robustness/robustness-run.ts";

/** A whole number of the environment, or the default. */
function readCount(name: string, otherwise: number): number {
  const text = process.env[name] ?? String(otherwise);
  assert.match(text, /^[0-9]+$/, `${name} is a whole number`);
  return Number(text);
}

test("nothing that was acknowledged is lost, whatever happens by chance to one repository", { skip: skipWithout("restic") }, async () => {
  const minutes = readCount("GRANARY_ROBUSTNESS_MINUTES", 20);
  const seed = readCount("GRANARY_SEED", Math.floor(Math.random() * 2 ** 31));
  const folder = mkdtempSync(join(tmpdir(), "granary-robustness-"));
  const log = join(folder, "actions.log");
  const recent: string[] = [];
  let actions = 0;
  const say = (line: string): void => {
    appendFileSync(log, `${new Date().toISOString()} ${line}\n`);
    recent.push(line);
    if (recent.length > 60) recent.shift();
  };
  const begin = performance.now();
  const elapsedMinutes = (): number => (performance.now() - begin) / 60_000;
  console.log(`robustness: ${minutes} minutes, GRANARY_SEED=${seed}`);
  const run = new RobustnessRun(folder, new Lot(seed), say);
  try {
    await run.begin();
    for (let told = 0; elapsedMinutes() < minutes; actions++) {
      await run.step();
      if (elapsedMinutes() < told + 1) continue;
      told = Math.floor(elapsedMinutes());
      console.log(`robustness: ${actions + 1} actions in ${told} of ${minutes} minutes`);
    }
    await run.end();
  } catch (error) {
    const shown = recent.map((line) => `  ${line}`).join("\n");
    throw new Error(`After ${actions} actions, GRANARY_SEED=${seed}; everything is in ${folder}. The last actions:\n${shown}`, {
      cause: error,
    });
  }
  rmSync(folder, { recursive: true });
  const counts = [...run.counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([what, count]) => `  ${String(count).padStart(6)} ${what}`);
  console.log(`robustness: ${actions} actions in ${elapsedMinutes().toFixed(1)} minutes, seed ${seed}, nothing lost\n${counts.join("\n")}`);
});
