import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { makeBench, parseLines, startCli, startOnTerminal } from "./testing/run-cli.ts";

test("progress is one line on a terminal, lines in a pipe, and messages with --json", {
  skip: skipWithout("script"),
}, async () => {
  using bench = makeBench();
  assert.equal(bench.granary("repo", "init").exitCode, 0);
  const env = bench.env({ GRANARY_PROGRESS_FPS: "20" });
  const backup = ["repo", "backup", "--stdin"];

  const drawn = startOnTerminal(
    ["repo", "backup", "--stdin-from-command", "--", "sh", "-c", "sleep 1; head -c 50000000 /dev/urandom; sleep 1"],
    { env },
  );
  const screen = (await drawn.ended).stdout;
  assert.match(screen, /\r\u001b\[K\[0:0\d\] {2}0 files/);
  assert.match(screen, /snapshot [0-9a-f]{8} saved\r\n$/);
  assert.doesNotMatch(screen.split("snapshot").at(-1) ?? "", /\[0:/);

  const piped = startCli(backup, { env, stdin: "zeros" });
  await piped.waitFor(/^\[0:0\d\] {2}0 files {2}[\d.]+ \w+ {2}[\d.]+ \w+\/s$/m);
  piped.kill("SIGINT");
  const { stdout, stderr } = await piped.ended;
  assert.doesNotMatch(stdout, /\[0:/, "progress is no data");
  assert.doesNotMatch(stderr, /\u001b/);

  const told = startCli([...backup, "--json"], { env, stdin: "zeros" });
  await told.waitFor(/"status"/);
  told.kill("SIGINT");
  const [status] = parseLines((await told.ended).stdout);
  assert.deepEqual(Object.keys(status ?? {}), ["message_type", "seconds_elapsed", "percent_done", "files_done", "bytes_done"]);
});

test("with a parent, a backup says how much of it is done", () => {
  using bench = makeBench();
  const source = join(bench.folder, "source");
  const sizeBytes = 100 << 20;
  mkdirSync(source);
  writeFileSync(join(source, "file"), randomBytes(sizeBytes));
  assert.equal(bench.granary("repo", "init").exitCode, 0);
  const backUp = (): Record<string, unknown>[] =>
    parseLines(bench.granaryWith({ env: bench.env({ GRANARY_PROGRESS_FPS: "60" }) }, "repo", "backup", source, "--json").stdout);
  assert.equal(backUp().at(-1)?.total_bytes_processed, sizeBytes);
  utimesSync(join(source, "file"), 1, 1); // so that it is read again
  const statuses = backUp().filter(({ message_type }) => message_type === "status");
  assert.ok(statuses.length > 0);
  for (const { total_files, total_bytes, bytes_done, percent_done } of statuses) {
    assert.deepEqual([total_files, total_bytes], [1, sizeBytes]);
    assert.equal(percent_done, Number(bytes_done) / sizeBytes);
  }
});
