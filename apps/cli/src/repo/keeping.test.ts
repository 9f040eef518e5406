import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { type Bench, makeBench, parseLines } from "../testing/run-cli.ts";

let bench: Bench;
let source: string;

function run(...args: readonly string[]): string {
  const { exitCode, stdout, stderr } = bench.granary("repo", ...args);
  assert.equal(exitCode, 0, `${args.join(" ")}: ${stderr}`);
  return stdout;
}

function listIds(): string[] {
  return (JSON.parse(run("snapshots", "--json")) as { id: string }[]).map(({ id }) => id);
}

before(() => {
  bench = makeBench();
  source = join(bench.folder, "source");
  mkdirSync(source);
  run("init");
  for (const [day, content] of ["first", "second", "third"].entries()) {
    writeFileSync(join(source, "file"), content.repeat(5000));
    run("backup", source, "--quiet", "--time", `2026-01-0${day + 1} 12:00:00`, "--host", "web1");
  }
});
after(() => bench[Symbol.dispose]());

test("tag adds, removes and sets tags", () => {
  const [first = ""] = listIds();
  const changed = parseLines(run("tag", "--add", "keep,me", first.slice(0, 8), "--json"));
  assert.equal(changed[0]?.message_type, "changed");
  assert.equal(changed[0]?.old_snapshot_id, first);
  assert.deepEqual(changed.at(-1), { message_type: "summary", changed_snapshots: 1 });
  run("tag", "--tag", "keep", "--remove", "me");
  const tagged = JSON.parse(run("snapshots", "--tag", "keep", "--json")) as { tags: string[]; original: string }[];
  assert.deepEqual(
    tagged.map(({ tags, original }) => [tags, original]),
    [[["keep"], first]],
  );
});

test("forget --dry-run says what a policy would do, and does nothing", () => {
  const groups = JSON.parse(run("forget", "--keep-last", "1", "--keep-tag", "keep", "--dry-run", "--json")) as {
    host: string;
    keep: { time: string }[];
    remove: { time: string }[];
    reasons: { matches: string[]; counters: Record<string, number> }[];
  }[];
  assert.equal(groups.length, 1);
  assert.equal(groups[0]?.host, "web1");
  assert.equal(groups[0]?.keep.length, 2);
  assert.equal(groups[0]?.remove.length, 1);
  assert.deepEqual(
    groups[0]?.reasons.map(({ matches }) => matches),
    [["last snapshot"], ["has tags [keep]"]],
  );
  const text = run("forget", "--keep-last", "1", "--keep-tag", "keep", "--dry-run", "--prune");
  assert.match(text, /keep 2 snapshots:.*remove 1 snapshot:.*would forget 1 snapshot/s);
  assert.match(text, /to remove: +\d+ packs?/);
  assert.equal(listIds().length, 3);
});

test("forget removes by policy, and prunes what nothing needs any more", () => {
  const before = readPackBytes();
  const text = run("forget", "--keep-last", "1", "--keep-tag", "keep", "--prune", "--max-unused", "0");
  assert.match(text, /1 snapshot forgotten/);
  assert.match(text, /freed/);
  assert.equal(listIds().length, 2);
  assert.ok(readPackBytes() < before);
  run("check", "--read-data", "--quiet");
});

test("forget removes what is named, but a policy that keeps nothing is refused", () => {
  run("backup", source, "--quiet", "--tag", "extra");
  const [extra = ""] = (JSON.parse(run("snapshots", "--json", "--tag", "extra")) as { id: string }[]).map(({ id }) => id);
  assert.match(run("forget", extra), /1 snapshot forgotten/);
  assert.equal(listIds().length, 2);
  const none = bench.granary("repo", "forget");
  assert.equal(none.exitCode, 1);
  assert.match(none.stderr, /no policy was given/);
  const all = bench.granary("repo", "forget", "--keep-tag", "no-such-tag");
  assert.equal(all.exitCode, 1);
  assert.equal(listIds().length, 2);
});

test("prune tells what it would do, and does it", () => {
  writeFileSync(join(source, "other"), "only in a snapshot that is forgotten");
  const made = parseLines(run("backup", source, "--json")).at(-1);
  run("forget", String(made?.snapshot_id));
  rmSync(join(source, "other"));
  const plan = parseLines(run("prune", "--dry-run", "--json")).at(-1) ?? {};
  assert.equal(plan.message_type, "summary");
  assert.equal(plan.dry_run, true);
  assert.ok(Number(plan.packs_to_remove) > 0);
  const done = parseLines(run("prune", "--json")).at(-1) ?? {};
  assert.equal(done.packs_removed, Number(plan.packs_to_remove) + Number(plan.packs_to_repack));
  assert.match(run("prune"), /removed 0 packs/);
});

test("copy brings snapshots into another repository, once", () => {
  const second = join(bench.folder, "second");
  const env = bench.env({ GRANARY_FROM_REPOSITORY: bench.repository, GRANARY_REPOSITORY: second, GRANARY_PASSWORD: "another one" });
  const copy = (...args: readonly string[]): string => {
    const { exitCode, stdout, stderr } = bench.granaryWith(
      { env: { ...env, RESTIC_FROM_PASSWORD: "correct horse battery" } },
      "repo",
      ...args,
    );
    assert.equal(exitCode, 0, stderr);
    return stdout;
  };
  copy("init", "--copy-chunker-params");
  const [ours, theirs] = [run("cat", "config"), copy("cat", "config")].map(
    (text) => (JSON.parse(text) as { chunker_polynomial: string }).chunker_polynomial,
  );
  assert.equal(theirs, ours);
  const copied = parseLines(copy("copy", "--json"));
  assert.equal(copied.filter(({ message_type }) => message_type === "saved").length, 2);
  assert.equal(copied.at(-1)?.copied_snapshots, 2);
  assert.match(copy("copy"), /is there already/);
  copy("check", "--read-data");
});

test("key adds, lists, changes and removes passwords", () => {
  const newPassword = join(bench.folder, "new-password");
  writeFileSync(newPassword, "second password\n");
  run("key", "add", "--new-password-file", newPassword, "--user", "bob", "--host", "laptop");
  const keys = JSON.parse(run("key", "list", "--json")) as { current: boolean; id: string; userName: string; hostName: string }[];
  const [current, second] = [keys.find((key) => key.current), keys.find((key) => !key.current)];
  assert.deepEqual([second?.userName, second?.hostName], ["bob", "laptop"]);
  const own = bench.granary("repo", "key", "remove", current?.id ?? "");
  assert.equal(own.exitCode, 14);
  assert.match(own.stderr, /KeyInUse/);
  const bob = { env: bench.env({ GRANARY_PASSWORD: "second password" }) };
  writeFileSync(newPassword, "third password\n");
  assert.equal(bench.granaryWith(bob, "repo", "key", "passwd", "--new-password-file", newPassword).exitCode, 0);
  assert.equal(bench.granaryWith(bob, "repo", "key", "list").exitCode, 12);
  const third = (JSON.parse(run("key", "list", "--json")) as { current: boolean; id: string }[]).find((key) => !key.current);
  run("key", "remove", third?.id ?? "");
  assert.match(run("key", "list"), /^\*[0-9a-f]{8} /m);
  assert.equal((JSON.parse(run("key", "list", "--json")) as unknown[]).length, 1);
  assert.equal(bench.granary("repo", "key", "remove", "ffffffff").exitCode, 13);
});

test("restic checks and prunes what was maintained here", { skip: skipWithout("restic") }, () => {
  const check = bench.run("restic", "check", "--read-data");
  assert.equal(check.status, 0, check.stdout + check.stderr);
  assert.equal(bench.run("restic", "prune").status, 0);
  run("check", "--read-data", "--quiet");
});

test("check finds damage, names it, says what to do, and ends with exit code 18", () => {
  const clean = parseLines(run("check", "--json", "--read-data")).at(-1) ?? {};
  assert.equal(clean.num_errors, 0);
  assert.ok(Number(clean.packs_read) > 0 && clean.content_verified !== null);
  const random = run("check", "--read-data-subset", "50%");
  assert.match(random, /chosen at random; --seed \d+ chooses the same again/);

  const [pack = ""] = run("list", "packs").trim().split("\n");
  const path = join(bench.repository, "data", pack.slice(0, 2), pack);
  const bytes = readFileSync(path);
  bytes[10] = (bytes[10] ?? 0) ^ 1;
  rmSync(path);
  writeFileSync(path, bytes);
  assert.equal(bench.granary("repo", "check", "--read-data-subset", "1/1").exitCode, 18);
  const damaged = bench.granary("repo", "check", "--read-data", "--json");
  assert.equal(damaged.exitCode, 18);
  const messages = parseLines(damaged.stderr);
  assert.ok(
    messages.some(
      ({ message_type, message, hint }) => message_type === "error" && String(message).includes(pack) && String(hint).includes("repair"),
    ),
  );
  assert.equal(messages.at(-1)?.message_type, "exit_error");
  const summary = parseLines(damaged.stdout).at(-1) ?? {};
  assert.ok(Number(summary.num_errors) > 0);
  assert.deepEqual(summary.broken_packs, [pack]);
});

function readPackBytes(): number {
  const folder = join(bench.repository, "data");
  let sum = 0;
  for (const name of existsSync(folder) ? readdirSync(folder, { recursive: true, withFileTypes: true }) : []) {
    if (name.isFile()) sum += readFileSync(join(name.parentPath, name.name)).length;
  }
  return sum;
}
