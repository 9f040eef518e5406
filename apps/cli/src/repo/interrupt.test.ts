import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Bench, makeBench, parseLines, startCli } from "../testing/run-cli.ts";

let bench: Bench;
const endless = ["repo", "backup", "--stdin", "--json"];

before(() => {
  bench = makeBench();
  assert.equal(bench.granary("repo", "init").exitCode, 0);
});
after(() => bench[Symbol.dispose]());

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`${signal} stops a backup cleanly: exit code 130, no lock, no snapshot, and the next backup works`, async () => {
    const backup = startCli(endless, { env: bench.env(), stdin: "zeros" });
    await backup.waitFor(/"status"/);
    backup.kill(signal);
    const { exitCode, stdout, stderr } = await backup.ended;
    assert.equal(exitCode, 130, stderr);
    assert.match(stderr, /granary: stopping/);
    const told = parseLines(
      stderr
        .split("\n")
        .filter((line) => line.startsWith("{"))
        .join("\n"),
    );
    assert.deepEqual([told.at(-1)?.message_type, told.at(-1)?.code], ["exit_error", 130]);
    assert.ok(!stdout.includes("summary"));
    assert.deepEqual(bench.list("locks"), []);
    assert.deepEqual(bench.list("snapshots"), []);
    assert.equal(bench.granary("repo", "check", "--read-data", "-q").exitCode, 0);
  });
}

test("a second Ctrl-C ends the process at once, by the signal", async () => {
  const backup = startCli(endless, { env: bench.env(), stdin: "zeros" });
  await backup.waitFor(/"status"/);
  backup.kill("SIGINT");
  backup.kill("SIGINT");
  const { exitCode, signal } = await backup.ended;
  assert.ok(signal === "SIGINT" || exitCode === 130, `${String(signal)} ${String(exitCode)}`); // 130 when the first was quick enough
  bench.granary("repo", "unlock");
  assert.deepEqual(bench.list("locks"), []);
});

test("Ctrl-C stops waiting for a lock", async () => {
  const holder = startCli(["repo", "backup", "--stdin"], { env: bench.env(), stdin: "pipe" });
  await bench.waitForLock();
  const waiting = startCli(["repo", "prune", "--retry-lock", "1h"], { env: bench.env() });
  await waiting.waitFor(/trying again/);
  waiting.kill("SIGINT");
  assert.equal((await waiting.ended).exitCode, 130);
  assert.equal(bench.list("locks").length, 1);
  holder.kill("SIGINT");
  assert.equal((await holder.ended).exitCode, 130);
  assert.deepEqual(bench.list("locks"), []);
});
