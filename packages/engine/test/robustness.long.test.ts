import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { runRobustness } from "./robustness.ts";

const minutes = Number(process.env["GRANARY_ROBUSTNESS_MINUTES"] ?? 20);
const seed = Number(process.env["GRANARY_SEED"] ?? Date.now() % 2 ** 31);

test(`${minutes} minutes of everything that can happen to a repository lose nothing (GRANARY_SEED=${seed})`, {
  skip: skipWithout("restic", "getfattr", "setfattr"),
}, async (t) => {
  const counts = await runRobustness({ seed, durationMs: minutes * 60_000, log: (line) => process.stdout.write(`${line}\n`) });
  t.diagnostic(`seed ${seed}: ${JSON.stringify(counts)}`);
});
