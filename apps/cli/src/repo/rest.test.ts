import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { cleanEnv, makeBench, parseLines, password } from "../testing/run-cli.ts";

async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

test("a repository behind a REST server is made, filled, checked, repaired and restored from", {
  skip: skipWithout("rclone"),
}, async () => {
  using bench = makeBench();
  const port = await findFreePort();
  const served = join(bench.folder, "served");
  const server = spawn("rclone", ["serve", "restic", "--addr", `127.0.0.1:${port}`, "--user", "me", "--pass", "secret", served], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  try {
    await new Promise<void>((resolve, reject) => {
      server.stderr.on("data", (piece: Buffer) => {
        if (piece.toString().includes("Serving")) resolve();
      });
      server.on("error", reject);
    });
    const source = join(bench.folder, "source");
    mkdirSync(source);
    writeFileSync(join(source, "file"), "content\n");
    const location = `rest:http://127.0.0.1:${port}/`;
    const env = cleanEnv({
      GRANARY_REPOSITORY: location,
      GRANARY_PASSWORD: password,
      RESTIC_REST_USERNAME: "me",
      RESTIC_REST_PASSWORD: "secret",
    });
    const run = (...args: readonly string[]): string => {
      const { exitCode, stdout, stderr } = bench.granaryWith({ env }, "repo", ...args);
      assert.equal(exitCode, 0, `${args.join(" ")}: ${stderr}`);
      return stdout;
    };
    assert.equal((JSON.parse(run("init", "--json")) as { repository: string }).repository, location);
    run("backup", source, "-q");
    run("check", "--read-data", "-q");
    run("restore", `latest:${source}`, "-t", join(bench.folder, "restored"), "-q");
    assert.deepEqual(readdirSync(join(bench.folder, "restored")), ["file"]);

    const byUrl = bench.granaryWith(
      { env: { ...env, RESTIC_REST_USERNAME: "" } },
      "repo",
      "-r",
      `rest:http://me:secret@127.0.0.1:${port}/`,
      "snapshots",
      "--json",
    );
    assert.equal((JSON.parse(byUrl.stdout) as unknown[]).length, 1);
    const refused = bench.granaryWith({ env }, "repo", "-r", `rest:http://me:hidden@127.0.0.1:${port}/`, "snapshots", "--json");
    assert.equal(refused.exitCode, 15);
    assert.doesNotMatch(refused.stderr, /hidden/);

    const index = readdirSync(join(served, "index"))[0] ?? "";
    writeFileSync(join(served, "index", index), "damaged");
    const unnamed = bench.granaryWith({ env }, "repo", "repair", "index");
    assert.equal(unnamed.exitCode, 1);
    assert.match(unnamed.stderr, /cannot set files aside/);
    run("repair", "index", "--quarantine", join(bench.folder, "aside"));
    assert.deepEqual(readdirSync(join(bench.folder, "aside/index")), [index]);
    assert.equal(parseLines(run("check", "--read-data", "--json")).at(-1)?.num_errors, 0);
  } finally {
    server.kill();
    await new Promise((resolve) => server.on("close", resolve));
  }
});
