import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, type Socket, connect, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, after, describe, test } from "node:test";
import { promisify } from "node:util";
import { isFailure } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import { type StoreSubject, testStore } from "./conformance.ts";
import { fileKinds } from "./layout.ts";
import { createMemoryStore } from "./memory.ts";
import { openStore } from "./open-store.ts";
import { type RestStoreOptions, openRestStore } from "./rest.ts";
import type { FileKind, FileRef, Store } from "./store.ts";

const run = promisify(execFile);
const fails = (code: string) => (error: unknown) => isFailure(error, code);
/** Waits that tests can afford. */
const quick: RestStoreOptions = { retry: { baseMs: 1, capMs: 4 } };

function refOf(kind: FileKind, data: Uint8Array): FileRef {
  return { kind, name: createHash("sha256").update(data).digest("hex") };
}

interface Server {
  readonly url: string;
  readonly folder: string;
  stop(): Promise<void>;
}

const hasRclone = await run("rclone", ["version"]).then(
  () => true,
  () => false,
);

/** Starts `rclone serve restic` on a free port and a folder of its own. */
async function serve(...flags: string[]): Promise<Server> {
  const folder = await mkdtemp(join(tmpdir(), "granary-rest-"));
  const child: ChildProcess = spawn("rclone", ["serve", "restic", "--addr", "127.0.0.1:0", "--config", "/dev/null", ...flags, folder], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  assert.ok(child.stderr !== null);
  let url: string | undefined;
  for await (const line of createInterface(child.stderr)) {
    url = /Serving restic REST API on (https?:\/\/\S+)/.exec(line)?.[1];
    if (url !== undefined) break;
  }
  assert.ok(url !== undefined, "rclone tells its address");
  child.stderr.resume();
  return {
    url,
    folder,
    async stop() {
      const exited = once(child, "exit");
      child.kill();
      await exited;
      await rm(folder, { recursive: true });
    },
  };
}

function testServer(name: string, flags: readonly string[], allowances: Partial<StoreSubject>): void {
  if (!hasRclone) {
    test(`${name} keeps the Store port`, (t) => t.skip("RCLONE IS MISSING: not tested against a server"));
    return;
  }
  let server: Promise<Server> | undefined;
  let count = 0;
  after(async () => (await server)?.stop());
  testStore(name, {
    async open() {
      server ??= serve(...flags);
      return openRestStore(`rest:${(await server).url}${count++}/`, quick);
    },
    openAgain: async (store) => openRestStore(store.location, quick),
    close: (store) => store.close(),
    ...allowances,
  });
}

testServer("the REST store on rclone", [], { replacesNamed: true, showsUnfinished: true });
testServer("the REST store on rclone --append-only", ["--append-only"], { isAppendOnly: true, showsUnfinished: true });

async function serveFor(t: TestContext, ...flags: string[]): Promise<Server | undefined> {
  if (!hasRclone) {
    t.skip("RCLONE IS MISSING: not tested against a server");
    return undefined;
  }
  const server = await serve(...flags);
  t.after(() => server.stop());
  return server;
}

describe("openRestStore() against rclone", () => {
  test("logs in with what the URL, the options or the environment gives, and is refused without", async (t) => {
    const server = await serveFor(t, "--user", "anna", "--pass", "p@ss/w:rd%");
    if (server === undefined) return;
    const url = server.url.replace("//", "//anna:p%40ss%2Fw%3Ard%25@");
    const right = { user: "anna", password: new Secret("p@ss/w:rd%") };
    const wrong = { user: "anna", password: new Secret("guess") };
    const open: Record<string, () => Store> = {
      url: () => openStore(`rest:${url}`, { env: {} }),
      "url before options": () => openStore(`rest:${url}`, { env: {}, credentials: wrong }),
      options: () =>
        openStore(`rest:${server.url}`, { env: { GRANARY_REST_USERNAME: "anna", GRANARY_REST_PASSWORD: "guess" }, credentials: right }),
      environment: () => openStore(`rest:${server.url}`, { env: { GRANARY_REST_USERNAME: "anna", GRANARY_REST_PASSWORD: "p@ss/w:rd%" } }),
      "restic's environment": () =>
        openStore(`rest:${server.url}`, { env: { RESTIC_REST_USERNAME: "anna", RESTIC_REST_PASSWORD: "p@ss/w:rd%" } }),
    };
    for (const [name, opened] of Object.entries(open)) {
      const store = opened();
      await store.create();
      await store.save({ kind: "config", name: "" }, Buffer.from("config"));
      assert.equal((await store.load({ kind: "config", name: "" })).length, 6, name);
      assert.equal(store.location, `rest:${server.url}`);
      await store.close();
    }

    for (const store of [openRestStore(`rest:${server.url}`), openRestStore(`rest:${server.url}`, { credentials: wrong })]) {
      const data = Buffer.from("data");
      const ref = refOf("pack", data);
      for (const call of [
        () => store.create(),
        () => store.save(ref, data),
        () => store.load(ref),
        () => store.stat(ref),
        () => store.remove(ref),
      ]) {
        await assert.rejects(call, fails("StoreDenied"));
      }
      await assert.rejects(Array.fromAsync(store.list("pack")), fails("StoreDenied"));
      await store.close();
    }
  });

  test("trusts a server's certificate only when its authority is given, and nothing switches that off", async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "granary-tls-"));
    t.after(() => rm(folder, { recursive: true }));
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const request = [
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      "-days",
      "2",
      "-subj",
      "/CN=localhost",
    ];
    try {
      await run("openssl", [...request, "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert]);
    } catch {
      return t.skip("OPENSSL IS MISSING: TLS was not tested");
    }
    const server = await serveFor(t, "--cert", cert, "--key", key);
    if (server === undefined) return;
    const ca = await readFile(cert, "utf8");
    const named = server.url.replace("127.0.0.1", "localhost");
    const trusting = openRestStore(`rest:${named}`, { ...quick, ca });
    t.after(() => trusting.close());
    await trusting.create();
    const data = randomBytes(2_000_000);
    await trusting.save(refOf("pack", data), data);
    assert.deepEqual(Buffer.from(await trusting.load(refOf("pack", data))), data);

    process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0";
    t.after(() => delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"]);
    const doubting = openRestStore(`rest:${named}`, quick);
    t.after(() => doubting.close());
    await assert.rejects(doubting.create(), (error) => isFailure(error, "StoreDenied") && /certificate is not trusted/.test(error.message));
    const misnamed = openRestStore(`rest:${server.url}`, { ...quick, ca });
    t.after(() => misnamed.close());
    await assert.rejects(misnamed.create(), fails("StoreDenied"));
  });

  test("carries a repository that restic then checks, and reads one that restic wrote", async (t) => {
    const server = await serveFor(t);
    if (server === undefined) return;
    if (
      !(await run("restic", ["version"]).then(
        () => true,
        () => false,
      ))
    )
      return t.skip("RESTIC IS MISSING: not tested against it");
    const folder = await mkdtemp(join(tmpdir(), "granary-files-"));
    t.after(() => rm(folder, { recursive: true }));
    for (let i = 0; i < 10; i++) await writeFile(join(folder, `${i}`), randomBytes(200_000));
    const environment = { env: { ...process.env, RESTIC_PASSWORD: "secret", RESTIC_CACHE_DIR: join(folder, "cache") } };
    const theirs = `rest:${server.url}theirs/`;
    await run("restic", ["-r", theirs, "init"], environment);
    await run("restic", ["-r", theirs, "backup", folder, "--exclude", "cache"], environment);

    const [source, memory, target] = [openRestStore(theirs), createMemoryStore(), openRestStore(`rest:${server.url}ours/`)];
    t.after(() => Promise.all([source.close(), target.close()]));
    await copyStore(source, memory);
    await target.create();
    await copyStore(memory, target);
    const check = await run("restic", ["-r", target.location, "check", "--read-data"], environment);
    assert.match(check.stdout, /no errors were found/);
    assert.equal((await Array.fromAsync(target.list("snapshot"))).length, 1);
  });
});

async function copyStore(from: Store, to: Store): Promise<void> {
  for (const kind of fileKinds)
    for await (const { name } of from.list(kind)) await to.save({ kind, name }, await from.load({ kind, name }));
}

/** What the wire does to the n-th request: nothing, cut it off before or after the server did it, while bytes move, or let it hang. */
type WireFault = "pass" | "cut request" | "cut answer" | "cut body" | "hang";

/**
 * A wire to a server that breaks by plan. Each connection carries one request, so that requests can be counted.
 *
 * @param plan for the first requests; later ones pass
 */
async function openWire(t: TestContext, serverUrl: string, plan: readonly WireFault[]): Promise<{ url: string; requests: string[] }> {
  const upstream = new URL(serverUrl);
  const requests: string[] = [];
  const sockets = new Set<Socket>();
  const wire = createTcpServer((client) => {
    const fault = plan[requests.length] ?? "pass";
    const server = connect(Number(upstream.port), upstream.hostname);
    let sentBytes = 0;
    const slot = requests.push("") - 1;
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        client.destroy();
        server.destroy();
      });
    }
    client.on("data", (chunk) => {
      requests[slot] ||=
        chunk
          .toString("latin1")
          .split(" HTTP/")[0]
          ?.replace(/([0-9a-f]{8})[0-9a-f]{56}/, "$1") ?? "";
      sentBytes += chunk.length;
      if (fault === "hang") return;
      if (fault === "cut request" || (fault === "cut body" && sentBytes > 200_000)) client.resetAndDestroy();
      else
        server.write(
          sentBytes === chunk.length
            ? Buffer.from(chunk.toString("latin1").replace(/connection: keep-alive/i, "connection: close"), "latin1")
            : chunk,
        );
    });
    server.on("data", (chunk) => {
      sentBytes += chunk.length;
      if (fault === "cut answer" || (fault === "cut body" && sentBytes > 200_000)) client.resetAndDestroy();
      else client.write(chunk);
    });
    server.on("end", () => client.end());
  });
  wire.listen(0, "127.0.0.1");
  await once(wire, "listening");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    wire.close();
  });
  const { port } = wire.address() as AddressInfo; // a string for pipes only
  return { url: `http://127.0.0.1:${port}/`, requests };
}

describe("a REST store on a wire that breaks", () => {
  for (const [title, plan, sizeBytes, expected] of [
    ["an upload that never arrived is sent again", ["cut request"], 5000, ["POST", "HEAD", "POST"]],
    ["an upload whose answer was lost is recognized and not sent again", ["cut answer"], 5000, ["POST", "HEAD", "GET"]],
    ["an upload that broke half way is sent again, after asking", ["cut body"], 6 << 20, ["POST", "HEAD", "POST"]],
    ["an upload that hangs is sent again", ["hang"], 5000, ["POST", "HEAD", "POST"]],
    [
      "a second break does no harm either",
      ["cut answer", "cut request", "pass", "cut body"],
      1 << 20,
      ["POST", "HEAD", "GET", "HEAD", "GET"],
    ],
  ] as const) {
    test(title, async (t) => {
      const server = await serveFor(t, "--append-only");
      if (server === undefined) return;
      const wire = await openWire(t, server.url, plan);
      const store = openRestStore(`rest:${wire.url}r/`, { retry: { baseMs: 50, capMs: 400, random: () => 0.99 }, timeoutMs: 300 });
      t.after(() => store.close());
      const data = randomBytes(sizeBytes);
      const ref = refOf("pack", data);
      await store.save(ref, data);
      // A server may show the unfinished file for a while, and is asked again.
      const verbs = wire.requests.map((request) => request.split(" ")[0]);
      assert.deepEqual(
        verbs.filter((verb, i) => verb !== "HEAD" || verbs[i - 1] !== "HEAD"),
        expected,
      );
      assert.deepEqual(await readFile(join(server.folder, "r", "data", ref.name.slice(0, 2), ref.name)), data);
    });
  }

  test("a config whose answer was lost is recognized, and another one is refused", async (t) => {
    const server = await serveFor(t);
    if (server === undefined) return;
    const wire = await openWire(t, server.url, ["pass", "cut answer"]);
    const store = openRestStore(`rest:${wire.url}r/`, quick);
    t.after(() => store.close());
    const config: FileRef = { kind: "config", name: "" };
    await store.save(config, Buffer.from("ours"));
    await assert.rejects(store.save(config, Buffer.from("else")), fails("StoreFileExists"));
    assert.equal(await readFile(join(server.folder, "r", "config"), "utf8"), "ours");
  });

  test("loads, lists, sizes and removals are asked for again", async (t) => {
    const server = await serveFor(t);
    if (server === undefined) return;
    const direct = openRestStore(`rest:${server.url}r/`, quick);
    t.after(() => direct.close());
    const data = randomBytes(3 << 20);
    const ref = refOf("pack", data);
    await direct.save(ref, data);
    const wire = await openWire(t, server.url, [
      "cut body",
      "cut request",
      "pass",
      "cut answer",
      "hang",
      "pass",
      "cut request",
      "cut answer",
      "pass",
      "cut answer",
      "pass",
    ]);
    const store = openRestStore(`rest:${wire.url}r/`, { ...quick, timeoutMs: 300 });
    t.after(() => store.close());
    assert.equal(Buffer.compare(await store.load(ref), data), 0);
    assert.deepEqual(await Array.fromAsync(store.list("pack")), [{ name: ref.name, sizeBytes: data.length }]);
    assert.equal((await store.stat(ref)).sizeBytes, data.length);
    await store.remove(ref);
    assert.deepEqual(
      wire.requests.map((request) => request.split(" ")[0]),
      ["GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "HEAD", "HEAD", "DELETE", "DELETE"],
    );
    assert.deepEqual(await readdir(join(server.folder, "r", "data", ref.name.slice(0, 2))), []);
  });

  test("gives up in the end with StoreUnavailable, early when the server never answered", async (t) => {
    const server = await serveFor(t);
    if (server === undefined) return;
    const never = await openWire(
      t,
      server.url,
      Array.from({ length: 40 }, () => "cut request" as const),
    );
    const first = openRestStore(`rest:${never.url}r/`, quick);
    t.after(() => first.close());
    await assert.rejects(first.stat({ kind: "config", name: "" }), fails("StoreUnavailable"));
    assert.equal(never.requests.length, 4);

    const later = await openWire(t, server.url, ["pass", ...Array.from({ length: 40 }, () => "cut request" as const)]);
    const second = openRestStore(`rest:${later.url}r/`, quick);
    t.after(() => second.close());
    await second.create();
    await assert.rejects(second.stat({ kind: "config", name: "" }), fails("StoreUnavailable"));
    assert.equal(later.requests.length, 13);
  });

  test("a cancelled call ends at once, also while it waits for the server or for its next attempt", async (t) => {
    const server = await serveFor(t);
    if (server === undefined) return;
    const wire = await openWire(
      t,
      server.url,
      Array.from({ length: 40 }, () => "hang" as const),
    );
    const store = openRestStore(`rest:${wire.url}r/`, { timeoutMs: 60_000 });
    t.after(() => store.close());
    const data = Buffer.from("data");
    await assert.rejects(store.save(refOf("pack", data), data, AbortSignal.timeout(50)), fails("Cancelled"));
    await assert.rejects(store.load(refOf("pack", data), undefined, AbortSignal.timeout(50)), fails("Cancelled"));
    await assert.rejects(Array.fromAsync(store.list("pack", AbortSignal.timeout(50))), fails("Cancelled"));

    const deaf = openRestStore("rest:http://127.0.0.1:1/", { retry: { baseMs: 60_000, random: () => 0.99 } });
    await assert.rejects(deaf.stat({ kind: "config", name: "" }, AbortSignal.timeout(50)), fails("Cancelled"));
  });

  test("close() ends calls in progress", async (t) => {
    const server = await serveFor(t);
    if (server === undefined) return;
    const wire = await openWire(t, server.url, ["hang"]);
    const store = openRestStore(`rest:${wire.url}r/`, { timeoutMs: 60_000 });
    const loading = assert.rejects(store.load({ kind: "config", name: "" }), fails("StoreUnavailable"));
    while (wire.requests.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await store.close();
    await loading;
  });
});
