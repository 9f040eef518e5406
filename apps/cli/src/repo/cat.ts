import { Argument, type Command } from "commander";
import { Failure } from "@granary/base/errors";
import {
  createTreeLoader,
  findSnapshot,
  isId,
  listByPrefix,
  loadBlob,
  loadFile,
  type NamedKind,
  parseBlobId,
  parsePackId,
  type Store,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { indentJson } from "../exact-json.ts";
import { addGlobalOptions } from "../global-options.ts";
import { type Run, runWork } from "../run.ts";
import { findSubtree } from "./find-subtree.ts";
import { loadRunIndex, openSession, prepareNothing, type Session } from "./session.ts";
import { writeBytes } from "./write-bytes.ts";

const kinds = ["config", "snapshot", "index", "key", "lock", "tree", "blob", "pack"] as const;
type Kind = (typeof kinds)[number];

/** `granary repo cat` */
export function configureCat(command: Command): void {
  command
    .description("Prints an object as it is inside: JSON for what has that form, bytes for blobs and packs. Never the master key.")
    .addArgument(new Argument("<kind>", "what to print").choices(kinds))
    .argument("[id]", "its id, or how it begins (blobs and packs: all of it); for tree also snapshot:folder");
  addGlobalOptions(command);
  addExamples(command, [
    ["repo cat config", "prints version, id and polynomial"],
    ["repo cat snapshot 4d1f6a2c", "prints a snapshot file"],
    ["repo cat tree latest:/home/alice", "prints the directory as it is stored"],
  ]);
  command.action((kind: Kind, id?: string) => runWork(command, (run) => print(run, kind, id)));
}

async function print(run: Run, kind: Kind, name: string | undefined): Promise<void> {
  await using session = await openSession(run, { lock: kind === "lock" || kind === "key" ? "none" : "shared", prepare: prepareNothing });
  const { repository, signal } = session;
  if (kind === "config") {
    const { version, id, chunkerPolynomial } = repository.config;
    run.output.print(JSON.stringify({ version, id, chunker_polynomial: chunkerPolynomial.toString(16) }, null, 2));
    return;
  }
  if (name === undefined) throw new Failure("InvalidArgument", `Cannot print a ${kind}: its id is needed`);
  switch (kind) {
    case "snapshot":
    case "index":
    case "lock": {
      const id = await findId(repository.store, { kind, name, signal });
      printJson(run, await loadFile(repository, { kind, id }, signal));
      return;
    }
    case "key":
      printJson(
        run,
        await repository.store.load({ kind, name: await findId(repository.store, { kind, name, signal }) }, undefined, signal),
      );
      return;
    case "tree":
      printJson(run, await loadTree(run, session, name));
      return;
    case "blob":
      await loadRunIndex(run, repository, signal);
      await writeBytes(run, [await loadBlob(repository, parseBlobId(name), signal)]);
      return;
    case "pack":
      await writeBytes(run, [await repository.store.load({ kind, name: parsePackId(name) }, undefined, signal)]);
  }
}

async function loadTree(run: Run, session: Session, name: string): Promise<Uint8Array> {
  const { repository, signal } = session;
  if (isId(name) && (await listByPrefix(repository.store, { kind: "snapshot", prefix: name }, signal)).length === 0) {
    await loadRunIndex(run, repository, signal);
    return loadBlob(repository, parseBlobId(name), signal);
  }
  const { snapshot, subpath } = await findSnapshot(repository, name, { signal });
  await loadRunIndex(run, repository, signal);
  const load = createTreeLoader(repository);
  return load(Buffer.from(await findSubtree(load, { tree: snapshot.tree, subpath, signal }), "hex"), signal);
}

async function findId<K extends NamedKind>(
  store: Store,
  what: { kind: K; name: string; signal: AbortSignal },
): Promise<Awaited<ReturnType<typeof listByPrefix<K>>>[number]> {
  const { kind, name, signal } = what;
  const [id, ...more] = await listByPrefix(store, { kind, prefix: name }, signal);
  if (id !== undefined && more.length === 0) return id;
  const found = id === undefined ? "no id begins so" : `${more.length + 1} ids begin so`;
  throw new Failure(kind === "snapshot" ? "SnapshotNotFound" : "StoreFileNotFound", `Cannot print ${kind} "${name}": ${found}`);
}

/** JSON with its numbers as they are written, set out over lines for people. */
function printJson(run: Run, bytes: Uint8Array): void {
  const text = Buffer.from(bytes).toString("utf8");
  if (run.output.isJson) {
    run.output.print(text.trimEnd());
    return;
  }
  run.output.print(indentJson(text));
}
