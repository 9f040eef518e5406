import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { exitCodeTable } from "./exit-codes.ts";
import { createProgram, listCommands } from "./program.ts";
import { type CliResult, cleanEnv, commandLine } from "./testing/run-cli.ts";
import { version } from "./version.ts";

const root = join(import.meta.dirname, "../../..");
const guide = readFileSync(join(root, "docs/granary-repo.md"), "utf8");

function granary(...args: readonly string[]): CliResult {
  const run = spawnSync(...commandLine(...args), { env: cleanEnv(), encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  return { exitCode: run.status, stdout: run.stdout, stderr: run.stderr };
}

test("the version is that of both package.json files", () => {
  for (const path of ["package.json", "apps/cli/package.json"]) {
    assert.equal((JSON.parse(readFileSync(join(root, path), "utf8")) as { version: string }).version, version, path);
  }
  assert.deepEqual(granary("--version"), { exitCode: 0, stdout: `${version}\n`, stderr: "" });
});

test("granary version tells of Node too, and as JSON", () => {
  assert.match(granary("version").stdout, new RegExp(`^granary ${version} on node \\d+\\.`));
  const facts = JSON.parse(granary("repo", "version", "--json").stdout) as Record<string, unknown>;
  assert.equal(facts.message_type, "version");
  assert.equal(facts.node_version, process.versions.node);
});

test("every command explains itself with examples", async () => {
  for (const command of ["", "repo", ...(await listCommands())]) {
    const lines: string[] = [];
    await createProgram((text) => void lines.push(text))
      .parseAsync([...command.split(" ").filter(Boolean), "--help"], { from: "user" })
      .catch(() => undefined);
    const help = lines.join("");
    assert.match(help, new RegExp(`^Usage: granary ?${command}`), command);
    assert.match(help, /\nExamples:\n {2}\S+/, command);
  }
});

test("the guide mentions every command, and no other", async () => {
  const commands = await listCommands();
  for (const command of commands)
    assert.ok(guide.includes(`granary ${command}`), `docs/granary-repo.md does not mention: granary ${command}`);
  for (const [, verb = ""] of guide.matchAll(/granary repo ([a-z][a-z-]*)/g)) {
    assert.ok(commands.includes(`repo ${verb}`), `docs/granary-repo.md mentions a command that is not there: granary repo ${verb}`);
  }
});

test("the guide has the table of exit codes as it is", () => {
  for (const { exitCode, meaning } of exitCodeTable)
    assert.ok(guide.includes(`| ${exitCode} | ${meaning} |`), `exit code ${exitCode}: ${meaning}`);
});

test("help comes for granary, for granary repo, and by the word help", () => {
  assert.match(granary("--help").stdout, /Commands:/);
  assert.match(granary("repo", "help").stdout, /Back up and restore:/);
  assert.equal(granary("help", "repo").stdout, granary("repo", "--help").stdout);
  assert.equal(granary("repo", "help", "forget").stdout, granary("repo", "forget", "--help").stdout);
});

test("without a command, help goes to standard error with exit code 1", () => {
  const { exitCode, stdout, stderr } = granary("repo");
  assert.equal(exitCode, 1);
  assert.equal(stdout, "");
  assert.match(stderr, /^Usage: granary repo/);
});

test("a misspelt command or flag is told with the one that was probably meant", () => {
  const command = granary("repo", "snapshot");
  assert.equal(command.exitCode, 1);
  assert.match(command.stderr, /unknown command 'snapshot' \(Did you mean snapshots\?\)/);
  const flag = granary("repo", "backup", "--exlude", "x", ".");
  assert.equal(flag.exitCode, 1);
  assert.match(flag.stderr, /--exlude.*Did you mean.*--exclude/);
});

test("with --json a mistake is told as one object on standard error, with the exit code in it", () => {
  const { exitCode, stdout, stderr } = granary("repo", "snapshots", "--json", "--nonsense");
  const told = JSON.parse(stderr) as { message_type: string; code: number; error: { code: string; kind: string; guidance: string } };
  assert.equal(stdout, "");
  assert.equal(told.message_type, "exit_error");
  assert.equal(told.code, exitCode);
  assert.equal(told.error.code, "InvalidArgument");
  assert.equal(told.error.kind, "invalid");
});

test("what no command understands is refused before anything is done", () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [["repo", "snapshots"], /nothing says where it is.*GRANARY_REPOSITORY/s],
    [["repo", "-r", "x", "--repository-file", "y", "snapshots"], /--repo and --repository-file together/],
    [
      ["repo", "-r", "x", "--password-file", "y", "--password-command", "z", "snapshots"],
      /--password-command and --password-file together/,
    ],
    [["repo", "-r", "s3:bucket", "--password-command", "echo x", "snapshots"], /Cannot open the store "s3:bucket"/],
    [["repo", "-r", "x", "--compression", "best", "snapshots"], /--compression "best"/],
    [["repo", "-r", "x", "--pack-size", "3", "snapshots"], /--pack-size "3"/],
    [["repo", "-r", "x", "--retry-lock", "soon", "snapshots"], /--retry-lock "soon"/],
    [["repo", "-r", "x", "backup"], /Cannot back up nothing/],
    [["repo", "-r", "x", "backup", "--stdin", "."], /standard input together with files/],
    [["repo", "-r", "x", "backup", ".", "--exclude", "[a"], /Cannot use pattern "\[a"/],
    [["repo", "-r", "x", "restore", "latest"], /--target says where to/],
    [["repo", "-r", "x", "restore", "latest", "--target", "/", "--delete"], /would empty this machine/],
    [["repo", "-r", "x", "tag", "--set", "a", "--add", "b"], /--set together with --add/],
    [["repo", "-r", "x", "check", "--read-data", "--read-data-subset", "1/2"], /together/],
    [["repo", "-r", "x", "forget", "--keep-last", "some"], /"some"/],
    [["repo", "-r", "x", "find", "--blob", "--tree", "ab"], /together/],
    [["repo", "-r", "x", "cat", "masterkey"], /masterkey.*Allowed choices/],
    [["start", "/no/such/folder"], /it is not there/],
  ];
  for (const [args, message] of cases) {
    const { exitCode, stderr, stdout } = granary(...args);
    assert.match(stderr, message, args.join(" "));
    assert.equal(exitCode, 1, args.join(" "));
    assert.equal(stdout, "", args.join(" "));
  }
});
