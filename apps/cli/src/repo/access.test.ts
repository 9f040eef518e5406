import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { type Bench, cleanEnv, makeBench, parseLines, password, startCli, startOnTerminal } from "../testing/run-cli.ts";

let bench: Bench;
let source: string;
/** No variable says anything. */
const bare = { env: cleanEnv() };

before(() => {
  bench = makeBench();
  source = join(bench.folder, "source");
  mkdirSync(source);
  writeFileSync(join(source, "file"), "content\n");
  assert.equal(bench.granary("repo", "init").exitCode, 0);
  assert.equal(bench.granary("repo", "backup", source, "-q").exitCode, 0);
});
after(() => bench[Symbol.dispose]());

function countSnapshots(env: Record<string, string>, ...flags: readonly string[]): number {
  const { exitCode, stdout, stderr } = bench.granaryWith({ env: cleanEnv(env) }, "repo", "snapshots", "--json", ...flags);
  assert.equal(exitCode, 0, stderr);
  return (JSON.parse(stdout) as unknown[]).length;
}

test("repository and password come from flags, before or behind the command", () => {
  const file = join(bench.folder, "password");
  writeFileSync(file, `${password}\n`);
  const { repository } = bench;
  assert.equal(countSnapshots({}, "-r", repository, "-p", file), 1);
  const before = bench.granaryWith(
    bare,
    "repo",
    "-r",
    repository,
    "--password-command",
    `echo '${password}'`,
    "snapshots",
    "-q",
    "--compact",
  );
  assert.equal(before.exitCode, 0, before.stderr);
  const location = join(bench.folder, "location");
  writeFileSync(location, `${repository}\n`);
  assert.equal(countSnapshots({}, "--repository-file", location, "--password-file", file), 1);
});

test("repository and password come from our variables, else from restic's", () => {
  const { repository } = bench;
  const file = join(bench.folder, "password");
  assert.equal(countSnapshots({ GRANARY_REPOSITORY: repository, GRANARY_PASSWORD: password }), 1);
  assert.equal(countSnapshots({ RESTIC_REPOSITORY: repository, RESTIC_PASSWORD: password }), 1);
  assert.equal(
    countSnapshots({
      RESTIC_REPOSITORY: "/elsewhere",
      GRANARY_REPOSITORY: repository,
      GRANARY_PASSWORD_FILE: file,
      RESTIC_PASSWORD: "wrong",
    }),
    1,
  );
  assert.equal(countSnapshots({ GRANARY_REPOSITORY: repository, RESTIC_PASSWORD_COMMAND: `cat ${file}` }), 1);
});

test("a password comes as a line of standard input when nobody can be asked", () => {
  const { exitCode, stdout, stderr } = bench.granaryWith(
    { ...bare, input: `${password}\n` },
    "repo",
    "-r",
    bench.repository,
    "snapshots",
    "--json",
  );
  assert.equal(exitCode, 0, stderr);
  assert.equal((JSON.parse(stdout) as unknown[]).length, 1);
  const nothing = bench.granaryWith({ ...bare, input: "" }, "repo", "-r", bench.repository, "snapshots");
  assert.equal(nothing.exitCode, 1);
  assert.match(nothing.stderr, /PasswordMissing/);
  const taken = bench.granaryWith({ ...bare, input: "data" }, "repo", "-r", bench.repository, "backup", "--stdin");
  assert.equal(taken.exitCode, 1);
  assert.match(taken.stderr, /standard input is the data to back up/);
});

test("on a terminal the password is asked for, not shown, and asked for again when it is wrong", {
  skip: skipWithout("script"),
}, async () => {
  const asked = startOnTerminal(["repo", "-r", bench.repository, "snapshots", "--compact"], bare);
  await asked.waitFor(/enter password for repository/);
  asked.type("wrong\r");
  await asked.waitFor(/wrong password, try again[^]*enter password/);
  // Ctrl-U takes back what was typed, Backspace the last character
  asked.type(`nonsense\u0015${password}x\u007f\r`);
  await asked.waitFor(/1 snapshot/);
  const { exitCode, stdout } = await asked.ended;
  assert.equal(exitCode, 0);
  assert.doesNotMatch(stdout, new RegExp(password));
});

test("on a terminal a new password is asked for twice, and Ctrl-C gives up", { skip: skipWithout("script") }, async () => {
  const place = join(bench.folder, "asked");
  const differing = startOnTerminal(["repo", "-r", place, "init"], bare);
  await differing.waitFor(/enter password for new repository/);
  differing.type("one\r");
  await differing.waitFor(/enter it again/);
  differing.type("two\r");
  assert.match((await differing.ended).stdout, /the two that were typed differ/);
  const given = startOnTerminal(["repo", "-r", place, "init"], bare);
  await given.waitFor(/enter password for new repository/);
  given.type("\u0003");
  assert.equal((await given.ended).exitCode, 130);
  assert.ok(!existsSync(place));
});

test("a wrong password ends with 12, a place without repository with 10", () => {
  const wrong = bench.granaryWith({ env: bench.env({ GRANARY_PASSWORD: "wrong" }) }, "repo", "snapshots");
  assert.equal(wrong.exitCode, 12);
  assert.match(wrong.stderr, /none opens with this password.*WrongPassword, exit code 12/s);
  assert.doesNotMatch(wrong.stderr, / at .*\.ts:/);
  for (const verb of ["snapshots", "check", "prune", "unlock"]) {
    const absent = bench.granary("repo", "-r", join(bench.folder, "nowhere"), verb);
    assert.equal(absent.exitCode, 10, verb);
    assert.match(absent.stderr, /granary repo init/);
  }
  assert.deepEqual(
    readdirSync(bench.folder).filter((name) => name === "nowhere"),
    [],
  );
});

test("a locked repository ends with 11, after waiting as long as asked", async () => {
  // waits for its standard input to end
  const holder = startCli(["repo", "backup", "--stdin", "--stdin-filename", "x"], { env: bench.env(), stdin: "pipe" });
  await bench.waitForLock();
  const prune = bench.granary("repo", "prune");
  assert.equal(prune.exitCode, 11);
  assert.match(prune.stderr, new RegExp(`process ${holder.pid} of .*RepositoryLocked, exit code 11`, "s"));
  const waited = bench.granary("repo", "prune", "--retry-lock", "1s", "--json");
  assert.equal(waited.exitCode, 11);
  assert.match(waited.stderr, /trying again in/);
  const told = parseLines(
    waited.stderr
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .join("\n"),
  ).at(-1) as { error: { details: { pid: number } } };
  assert.equal(told.error.details.pid, holder.pid);
  // sharing is fine
  assert.equal(bench.granary("repo", "snapshots", "-q").exitCode, 0);
  assert.match(bench.granary("repo", "unlock").stdout, /no lock removed/);
  assert.match(bench.granary("repo", "unlock", "--remove-all").stdout, /1 lock removed/);
  holder.kill("SIGKILL");
  await holder.ended;
});

test("a lock of a killed process is stale, and unlock removes it", async () => {
  const holder = startCli(["repo", "backup", "--stdin"], { env: bench.env(), stdin: "pipe" });
  await bench.waitForLock();
  holder.kill("SIGKILL");
  await holder.ended;
  assert.equal(bench.list("locks").length, 1);
  assert.equal(bench.granary("repo", "prune").exitCode, 11);
  assert.match(bench.granary("repo", "unlock").stdout, /1 lock removed/);
  assert.equal(bench.granary("repo", "prune", "-q").exitCode, 0);
});

test("--no-lock reads from a repository that cannot be written", () => {
  const locks = join(bench.repository, "locks");
  rmSync(locks, { recursive: true });
  writeFileSync(locks, "no folder, so that no lock can be written");
  assert.notEqual(bench.granary("repo", "snapshots").exitCode, 0);
  assert.equal(bench.granary("repo", "snapshots", "--no-lock").exitCode, 0);
  assert.equal(bench.granary("repo", "check", "--no-lock", "-q").exitCode, 0);
  rmSync(locks);
  mkdirSync(locks);
});

test("--quiet says nothing, and -vv says more", () => {
  const quiet = bench.granary("repo", "backup", source, "--quiet");
  assert.deepEqual(quiet, { exitCode: 0, stdout: "", stderr: "" });
  assert.match(bench.granary("repo", "backup", source, "-vv").stdout, /Blobs: 0 new data blobs/);
  assert.match(bench.granary("repo", "-r", "nowhere", "snapshots", "--verbose=2").stderr, /location: /);
});
