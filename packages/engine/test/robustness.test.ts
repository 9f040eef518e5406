import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { runRobustness } from "./robustness.ts";

const seed = Number(process.env["GRANARY_SEED"] ?? Date.now() % 2 ** 31);

test(`half a minute of everything that can happen to a repository loses nothing (GRANARY_SEED=${seed})`, {
  skip: skipWithout("restic", "getfattr", "setfattr"),
}, async (t) => {
  const lines: string[] = [];
  try {
    const counts = await runRobustness({ seed, durationMs: 25_000, log: (line) => lines.push(line) });
    t.diagnostic(`seed ${seed}: ${JSON.stringify(counts)}`);
  } catch (error) {
    for (const line of lines) t.diagnostic(line);
    throw error;
  }
});
