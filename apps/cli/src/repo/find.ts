import { type Command, Option } from "commander";
import { Failure } from "@granary/base/errors";
import {
  type BlobIndex,
  compilePatterns,
  createTreeLoader,
  findEntries,
  type FindEvent,
  formatTimeNs,
  hexOf,
  type NameQuery,
  type ObjectQuery,
  type StoredSnapshot,
  toUtf8OrEscaped,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { stringifyExactly } from "../exact-json.ts";
import { formatLocalTime } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { parsePointNs } from "../parse-time.ts";
import { type Run, runWork } from "../run.ts";
import { chooseSnapshots } from "./choose-snapshots.ts";
import { pathMembers, renderNode, renderNodeLine } from "./render-node.ts";
import { loadRunIndex, openSession } from "./session.ts";
import { addFilterOptions, collect, type FilterFlags, readFilter } from "./snapshot-filter.ts";
import { shortId } from "./snapshot-json.ts";

interface FindFlags extends FilterFlags {
  readonly snapshot?: readonly string[];
  readonly ignoreCase?: boolean;
  readonly long?: boolean;
  readonly oldest?: string;
  readonly newest?: string;
  readonly blob?: boolean;
  readonly tree?: boolean;
  readonly pack?: boolean;
  readonly showPackId?: boolean;
}

/** `granary repo find` */
export function configureFind(command: Command): void {
  command
    .description("Finds files and folders by name in snapshots; or with --blob, --tree or --pack what uses these objects.")
    .argument("<patterns...>", "names with wildcards, or paths; or ids, or how they begin")
    .addOption(new Option("-s, --snapshot <id>", "search in this snapshot only (may be repeated)").argParser(collect))
    .option("-i, --ignore-case", "no difference between upper and lower case")
    .option("-l, --long", "show mode, owner, group, size and time")
    .option("-O, --oldest <time>", "only what was changed at this time or later")
    .option("-N, --newest <time>", "only what was changed at this time or earlier")
    .option("--blob", "find files that use these blobs")
    .option("--tree", "find directories that are these trees")
    .option("--pack", "find what uses the blobs in these packs")
    .option("--show-pack-id", "say which pack holds the blob or tree");
  addFilterOptions(command, "when no snapshot is named");
  addGlobalOptions(command);
  addExamples(command, [
    ["repo find 'notes*.txt' --long", "finds files by name in all snapshots"],
    ["repo find --json '*.yml' --oldest 2026-01-01", "finds what changed since then, for a program to read"],
    ["repo find --pack 025c1d06", "says which files a damaged pack is needed for"],
  ]);
  command.action((patterns: string[], flags: FindFlags) => runWork(command, (run) => find(run, patterns, flags)));
}

async function find(run: Run, patterns: readonly string[], flags: FindFlags): Promise<void> {
  const objects = [flags.blob, flags.tree, flags.pack].filter((flag) => flag === true).length;
  if (objects > 1) throw new Failure("InvalidArgument", "Cannot find by --blob, --tree and --pack together: one of them is needed");
  if (objects === 1 && !patterns.every((text) => /^[0-9a-f]{1,64}$/.test(text))) {
    throw new Failure("InvalidArgument", "Cannot find objects by name: ids, or how they begin, are needed (hex digits)");
  }
  const names = objects === 1 ? undefined : readNameQuery(patterns, flags);
  await using session = await openSession(run, {
    lock: "shared",
    prepare: async (opened, stop) => {
      const chosen = await chooseSnapshots(run, opened, { names: flags.snapshot ?? [], filter: readFilter(flags), signal: stop });
      await loadRunIndex(run, opened, stop);
      return chosen;
    },
  });
  const { repository, signal, prepared: snapshots } = session;
  const query = names ?? makeObjectQuery(repository.index, patterns, flags);
  const listing = run.output.isJson ? new JsonListing(run) : new TextListing(run, { isLong: flags.long === true });
  for await (const batch of findEntries(createTreeLoader(repository), snapshots, { query, signal })) {
    for (const event of batch) {
      if (event.kind === "unreadable")
        run.warn(`${toUtf8OrEscaped(event.path)} in snapshot ${shortId(event.snapshot.id)}: ${event.failure.message}`);
      else listing.add(event, flags.showPackId === true ? findPackId(repository.index, event) : undefined);
    }
  }
  listing.end();
}

function readNameQuery(patterns: readonly string[], flags: FindFlags): NameQuery {
  return {
    kind: "names",
    patterns: compilePatterns(patterns, { insensitive: flags.ignoreCase === true }),
    ...(flags.oldest === undefined ? {} : { oldestNs: parsePointNs(flags.oldest, "--oldest") }),
    ...(flags.newest === undefined ? {} : { newestNs: parsePointNs(flags.newest, "--newest") }),
  };
}

function makeObjectQuery(index: BlobIndex, prefixes: readonly string[], flags: FindFlags): ObjectQuery {
  const begins = (id: Uint8Array, at: number): boolean => {
    const hex = hexOf(id, at);
    return prefixes.some((prefix) => hex.startsWith(prefix));
  };
  const never = (): boolean => false;
  if (flags.blob === true) return { kind: "objects", isBlob: begins, isTree: never };
  if (flags.tree === true) return { kind: "objects", isBlob: never, isTree: begins };
  const packs = new Set<number>();
  for (let pack = 0; pack < index.packs; pack++) if (begins(index.packId(pack), 0)) packs.add(pack);
  if (packs.size === 0)
    throw new Failure("StoreFileNotFound", `Cannot find what uses pack "${prefixes.join('", "')}": the index has no such pack`);
  const holds = (id: Uint8Array, at: number): boolean => {
    const entry = index.find(id, at);
    const place = entry < 0 ? undefined : index.placeOf(entry);
    return place !== undefined && packs.has(place.pack);
  };
  return { kind: "objects", isBlob: holds, isTree: holds };
}

type Found = Exclude<FindEvent<StoredSnapshot>, { kind: "unreadable" }>;

function findPackId(index: BlobIndex, event: Found): string | undefined {
  if (event.kind !== "object") return undefined;
  const entry = index.find(Buffer.from(event.id, "hex"));
  const place = entry < 0 ? undefined : index.placeOf(entry);
  return place === undefined ? undefined : hexOf(index.packId(place.pack));
}

class TextListing {
  readonly #run: Run;
  readonly #isLong: boolean;
  #snapshotId = "";

  constructor(run: Run, options: { readonly isLong: boolean }) {
    this.#run = run;
    this.#isLong = options.isLong;
  }

  add(event: Found, packId: string | undefined): void {
    const { output } = this.#run;
    const { id, timeNs } = event.snapshot;
    if (event.kind === "match") {
      if (this.#snapshotId !== id)
        output.say(
          `${this.#snapshotId === "" ? "" : "\n"}Found matching entries in snapshot ${shortId(id)} from ${formatLocalTime(timeNs)}`,
        );
      this.#snapshotId = id;
      output.printBytes(renderNodeLine(event.entry.path, event.entry.node, this.#isLong));
      return;
    }
    output.print(`Found ${event.objectType} ${event.id}`);
    output.printBytes({ bytes: ` ... in ${event.path}`, escaped: ` ... in ${toUtf8OrEscaped(event.path)}` });
    if (event.parentTree !== "") output.print(` ... of tree ${event.parentTree}`);
    output.print(` ... of snapshot ${shortId(id)} (${formatLocalTime(timeNs)})`);
    if (packId !== undefined) output.print(` ... stored in pack ${packId}`);
  }

  end(): void {
    this.#run.output.flush();
  }
}

/** restic's shape: one array; entries by name are grouped by snapshot. Written as it is found, however much that is. */
class JsonListing {
  readonly #run: Run;
  #snapshotId = "";
  #matchCount = 0;
  #count = 0;

  constructor(run: Run) {
    this.#run = run;
  }

  add(event: Found, packId: string | undefined): void {
    if (event.kind === "match") {
      if (event.snapshot.id !== this.#snapshotId) this.#endSnapshot();
      this.#snapshotId = event.snapshot.id;
      const json = stringifyExactly(renderNode(event.entry.path, event.entry.node));
      if (this.#matchCount++ === 0) this.#begin(`{"matches":[${json}`);
      else this.#run.output.print(`,${json}`);
      return;
    }
    const { objectType, id, path, parentTree, snapshot } = event;
    this.#begin(
      JSON.stringify({
        object_type: objectType,
        id,
        ...pathMembers(path),
        ...(parentTree === "" ? {} : { parent_tree: parentTree }),
        ...(packId === undefined ? {} : { pack: packId }),
        snapshot: snapshot.id,
        time: formatTimeNs(snapshot.timeNs),
      }),
    );
  }

  end(): void {
    this.#endSnapshot();
    this.#run.output.print(this.#count === 0 ? "[]" : "]");
  }

  #endSnapshot(): void {
    if (this.#matchCount === 0) return;
    this.#run.output.print(`],"hits":${this.#matchCount},"snapshot":"${this.#snapshotId}"}`);
    this.#matchCount = 0;
  }

  /** Begins a member of the array. */
  #begin(json: string): void {
    this.#run.output.print(`${this.#count++ === 0 ? "[" : ","}${json}`);
  }
}
