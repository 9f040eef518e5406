import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, describe, test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { type RestStoreOptions, openRestStore } from "./rest.ts";
import type { FileKind, FileRef, Store } from "./store.ts";

const fails = (code: string) => (error: unknown) => isFailure(error, code);
/** Waits that tests can afford. */
const quick: RestStoreOptions = { retry: { baseMs: 1, capMs: 4 } };
const v2 = "application/vnd.x.restic.rest.v2";

function refOf(kind: FileKind, data: Uint8Array): FileRef {
  return { kind, name: createHash("sha256").update(data).digest("hex") };
}

type Handler = (request: IncomingMessage, response: ServerResponse, count: number) => void;

/** A server that answers as the test says, to see what the client makes of it. */
async function answer(t: TestContext, handler: Handler): Promise<{ store: Store; requests: string[] }> {
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    handler(request, response, requests.length);
  });
  server.on("checkContinue", (request, response) => {
    requests.push(`${request.method} ${request.url} asked`);
    handler(request, response, requests.length);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // a string for pipes only
  const store = openRestStore(`rest:http://127.0.0.1:${port}/some/path`, quick);
  t.after(async () => {
    await store.close();
    server.closeAllConnections();
    server.close();
  });
  return { store, requests };
}

describe("a REST store reads answers strictly", () => {
  const data = randomBytes(1000);
  const ref = refOf("pack", data);

  test("sends what the protocol asks for", async (t) => {
    const seen: IncomingMessage[] = [];
    const { store, requests } = await answer(t, (request, response) => {
      seen.push(request);
      request.resume();
      if (request.method === "GET")
        response.writeHead(206, { "content-length": 10, "content-range": "bytes 5-14/1000" }).end(Buffer.alloc(10));
      else response.writeHead(200, request.method === "HEAD" ? { "content-length": 1000 } : {}).end();
    });
    await store.create();
    await store.save(ref, data);
    await store.load(ref, { offsetBytes: 5, lengthBytes: 10 });
    await store.load({ kind: "index", name: ref.name }, { offsetBytes: 5 });
    await store.stat({ kind: "config", name: "" });
    await store.remove({ kind: "lock", name: ref.name });
    assert.deepEqual(requests, [
      "POST /some/path/?create=true",
      `POST /some/path/data/${ref.name}`,
      `GET /some/path/data/${ref.name}`,
      `GET /some/path/index/${ref.name}`,
      "HEAD /some/path/config",
      `DELETE /some/path/locks/${ref.name}`,
    ]);
    const headers = (name: string): (string | undefined)[] => seen.map((request) => String(request.headers[name] ?? ""));
    assert.deepEqual(headers("accept"), ["", v2, v2, v2, v2, v2]);
    assert.deepEqual(headers("range"), ["", "", "bytes=5-14", "bytes=5-", "", ""]);
    assert.deepEqual(headers("content-length"), ["0", "1000", "", "", "", ""]);
    assert.deepEqual(headers("content-type"), ["", "application/octet-stream", "", "", "", ""]);
  });

  test("each status has its meaning, and only what may pass is tried again", async (t) => {
    for (const [status, code, attempts] of [
      [400, "StoreUnavailable", 12],
      [401, "StoreDenied", 1],
      [403, "StoreDenied", 1],
      [405, "StoreDenied", 1],
      [408, "StoreUnavailable", 12],
      [429, "StoreUnavailable", 12],
      [500, "StoreUnavailable", 12],
      [501, "StoreDenied", 1],
      [503, "StoreUnavailable", 12],
      [507, "StoreFull", 1],
      [308, "StoreInvalid", 1],
      [204, "StoreUnavailable", 12],
    ] as const) {
      const { store, requests } = await answer(t, (request, response) => {
        request.resume();
        const isProbe = request.method === "HEAD" && request.url?.includes("data") === true;
        response
          .writeHead(isProbe ? 404 : status, { location: "http://elsewhere/" })
          .end(status === 204 ? undefined : "because\u001b[31m of\nthis");
      });
      await assert.rejects(store.save(ref, data), (error) => {
        assert.ok(isFailure(error, code), `${status}: ${String(error)}`);
        assert.match(error.message, new RegExp(`Cannot save pack "${ref.name}".*answered ${status}`));
        if (status !== 204) assert.match(error.message, /because \[31m of this/, "no control characters");
        assert.match(error.message, /\[rest:http:/);
        return true;
      });
      assert.equal(requests.filter((request) => request.startsWith("POST")).length, attempts, `${status}`);
      if (status !== 204) await assert.rejects(store.load(ref), fails(code));
      await assert.rejects(store.remove(ref), fails(code));
      await assert.rejects(Array.fromAsync(store.list("pack")), fails(code));
      await assert.rejects(store.create(), fails(code));
    }
  });

  test("404 means: not there, nothing to list, removed already, or no repository", async (t) => {
    const { store } = await answer(t, (request, response) => {
      request.resume();
      response.writeHead(404).end();
    });
    await assert.rejects(store.load(ref), fails("StoreFileNotFound"));
    await assert.rejects(store.stat(ref), fails("StoreFileNotFound"));
    assert.deepEqual(await Array.fromAsync(store.list("pack")), []);
    assert.deepEqual(await Array.fromAsync(store.list("config")), []);
    await store.remove(ref);
    await assert.rejects(store.save(ref, data), fails("RepositoryNotFound"));
  });

  test("403 for a name that is taken: the same content is success, other content is not, nothing there is a refusal", async (t) => {
    let present: Buffer | undefined;
    const { store } = await answer(t, (request, response) => {
      request.resume();
      if (request.method === "POST") response.writeHead(403).end();
      else if (present === undefined) response.writeHead(404).end();
      else if (request.method === "HEAD") response.writeHead(200, { "content-length": present.length }).end();
      else {
        const [, first = "", last = ""] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "") ?? [];
        response
          .writeHead(206, { "content-range": `bytes ${first}-${last}/${present.length}` })
          .end(present.subarray(Number(first), Number(last) + 1));
      }
    });
    for (const sizeBytes of [1000, 9 << 20]) {
      const body = randomBytes(sizeBytes);
      present = body;
      await store.save(refOf("pack", body), body);
      present = Buffer.from(body);
      present[sizeBytes - 1] = (present[sizeBytes - 1] ?? 0) ^ 1;
      await assert.rejects(store.save(refOf("pack", body), body), fails("StoreFileExists"));
      present = body.subarray(1);
      await assert.rejects(store.save(refOf("pack", body), body), fails("StoreFileExists"));
      present = undefined;
      await assert.rejects(store.save(refOf("pack", body), body), fails("StoreDenied"));
    }
  });

  test("what a server shows of an upload that broke off is waited for, and a leftover is replaced in the end", async (t) => {
    for (const clearsAfter of [2, 3, Number.POSITIVE_INFINITY]) {
      let headCount = 0;
      let postCount = 0;
      const { store } = await answer(t, (request, response) => {
        if (request.method === "POST" && ++postCount === 1) request.socket.resetAndDestroy();
        else if (request.method === "POST") request.resume().on("end", () => response.writeHead(200).end());
        else if (++headCount < clearsAfter) response.writeHead(200, { "content-length": 400 }).end();
        else response.writeHead(404).end();
      });
      await store.save(ref, data);
      assert.equal(postCount, 2);
      assert.equal(headCount, Math.min(clearsAfter, 4));
    }

    let postCount = 0;
    const stubborn = await answer(t, (request, response) => {
      request.resume();
      if (request.method === "HEAD") response.writeHead(200, { "content-length": 400 }).end();
      else if (++postCount === 1) request.socket.resetAndDestroy();
      else response.writeHead(403).end();
    });
    await assert.rejects(
      stubborn.store.save(ref, data),
      (error) => isFailure(error, "StoreUnavailable") && /broke off/.test(error.message),
    );
  });

  test("a refusal before the body was sent is heard, at the latest when the upload asks first", async (t) => {
    const { store, requests } = await answer(t, (request, response, count) => {
      if (request.method === "HEAD") response.writeHead(404).end();
      else if (count === 1) request.socket.resetAndDestroy();
      else response.writeHead(507, { connection: "close" }).end("quota");
    });
    const body = randomBytes(16 << 20);
    await assert.rejects(store.save(refOf("pack", body), body), fails("StoreFull"));
    assert.equal(requests.length, 3);
    assert.match(requests[2] ?? "", /asked$/);
  });

  test("an upload that asks first goes on when the server is silent about it", async (t) => {
    const body = randomBytes(1 << 20);
    let receivedBytes = 0;
    const { store } = await answer(t, (request, response, count) => {
      if (request.method === "HEAD") response.writeHead(404).end();
      else if (count === 1) request.socket.resetAndDestroy();
      else {
        request.on("data", (chunk: Buffer) => (receivedBytes += chunk.length));
        request.on("end", () => response.writeHead(200).end());
      }
    });
    await store.save(refOf("pack", body), body);
    assert.equal(receivedBytes, body.length);
  });

  test("spans that come back wrong are never taken for right", async (t) => {
    type Answer = (response: ServerResponse) => void;
    const answers: Record<string, [Answer, string]> = {
      "all for a part": [(response) => response.writeHead(200).end(data), "StoreInvalid"],
      "another part": [
        (response) => response.writeHead(206, { "content-range": "bytes 0-9/1000" }).end(data.subarray(0, 10)),
        "StoreUnavailable",
      ],
      "too little": [
        (response) => response.writeHead(206, { "content-range": "bytes 100-104/1000" }).end(data.subarray(100, 105)),
        "StoreUnavailable",
      ],
      nothing: [(response) => response.writeHead(206).end(), "StoreUnavailable"],
      "too much": [(response) => response.writeHead(206).end(data.subarray(100, 200)), "StoreInvalid"],
      "too much, in chunks": [(response) => response.writeHead(206, { "transfer-encoding": "chunked" }).end(data), "StoreInvalid"],
      "a promise not kept": [
        (response) => {
          response.writeHead(206, { "content-length": 10 }).write(data.subarray(100, 105));
          setTimeout(() => response.destroy(), 5);
        },
        "StoreUnavailable",
      ],
    };
    for (const [name, [respond, code]] of Object.entries(answers)) {
      const { store } = await answer(t, (request, response) => {
        if (request.method === "HEAD") response.writeHead(200, { "content-length": 1000 }).end();
        else respond(response);
      });
      await assert.rejects(store.load(ref, { offsetBytes: 100, lengthBytes: 10 }), fails(code), name);
    }
    const chunked = await answer(t, (_, response) =>
      response.writeHead(206, { "transfer-encoding": "chunked" }).end(data.subarray(100, 110)),
    );
    assert.deepEqual(Buffer.from(await chunked.store.load(ref, { offsetBytes: 100, lengthBytes: 10 })), data.subarray(100, 110));
  });

  test("lists of version 1 are completed with sizes, and lists of both versions are read with care", async (t) => {
    const names = Array.from({ length: 12 }, (_, i) => refOf("index", Buffer.from(`${i}`)).name);
    const { store } = await answer(t, (request, response) => {
      if (request.method === "GET")
        response.writeHead(200, { "content-type": "application/vnd.x.restic.rest.v1" }).end(JSON.stringify([...names, "not a name"]));
      else if (request.url?.endsWith(names[3] ?? "") === true) response.writeHead(404).end();
      else response.writeHead(200, { "content-length": names.findIndex((name) => request.url?.endsWith(name)) }).end();
    });
    assert.deepEqual(
      await Array.fromAsync(store.list("index")),
      names.flatMap((name, sizeBytes) => (sizeBytes === 3 ? [] : [{ name, sizeBytes }])),
    );

    for (const body of ["", "[", '[{"name":"x"', "{}", "<html>", "[] []", "[1,]", '"text"']) {
      const broken = await answer(t, (_, response) => response.writeHead(200, { "content-type": v2 }).end(body));
      await assert.rejects(Array.fromAsync(broken.store.list("index")), fails("StoreUnavailable"), body);
    }
    for (const body of ["[]", " [ ] \n", "null", '[{"name":"config-tmp","size":3},7,null,{"size":1}]']) {
      const empty = await answer(t, (_, response) => response.writeHead(200, { "content-type": v2 }).end(body));
      assert.deepEqual(await Array.fromAsync(empty.store.list("index")), [], body);
    }
  });
});
