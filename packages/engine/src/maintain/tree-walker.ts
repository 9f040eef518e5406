/** A worker's part in a walk over all trees: takes a tree, finds what it refers to, and puts the trees among that on the common stack. */
import { encodeFailure, Failure, toFailure } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, toUtf8OrEscaped } from "../format/byte-string.ts";
import { hexOf } from "../format/ids.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import type { BlobReader } from "../repository/blob-reader.ts";
import type { TreeProblem } from "./maintain-messages.ts";
import type { SharedWalk } from "./shared-walk.ts";
import { scanReferences } from "./tree-references.ts";

export interface TreeWalkerOptions {
  readonly data: BlobIndex;
  readonly trees: BlobIndex;
  readonly reader: BlobReader;
  /** Told of each tree that is not as it should be. */
  readonly report: (tree: number, problems: readonly TreeProblem[]) => void;
  /** Whether a failure to read is one of the tree alone; what it denies ends the walk. */
  readonly isDamage: (failure: Failure) => boolean;
}

/** A tree that lost a pack can miss a million blobs; these are enough to see what happened. */
const maxProblems = 1000;

/** Works until the walk is over or stopped. @throws what the reader throws and `isDamage` denies */
export function walkTrees(walk: SharedWalk, options: TreeWalkerOptions): void {
  const { data, trees, reader } = options;
  let tree = 0;
  let name: ByteString = "";
  let problems: TreeProblem[] = [];
  const add = (problem: TreeProblem): void => void (problems.length < maxProblems && problems.push(problem));
  const visitor = {
    entry(entryName: ByteString): void {
      name = entryName;
    },
    data(id: Uint8Array): void {
      const entry = data.find(id);
      if (entry >= 0) walk.seeData(entry);
      else add(missing(id, name, trees.find(id) >= 0 ? "data-as-tree" : "data"));
    },
    tree(id: Uint8Array): void {
      const entry = trees.find(id);
      if (entry >= 0) walk.seeTree(entry, tree);
      else add(missing(id, name, data.find(id) >= 0 ? "tree-as-data" : "tree"));
    },
    problem(failure: Failure): void {
      add({ kind: name === "" ? "name" : "entry", name, failure: encodeFailure(failure) });
    },
  };
  for (tree = walk.take(); tree >= 0; tree = walk.take()) {
    problems = [];
    const id = trees.idOf(tree);
    try {
      scanReferences(reader.read(id), visitor);
    } catch (error) {
      const failure = toFailure(error);
      if (!options.isDamage(failure)) {
        walk.stop();
        throw error;
      }
      add({ kind: "unreadable", name: "", failure: encodeFailure(failure) });
    }
    if (problems.length > 0) options.report(tree, problems);
    walk.finish();
  }
}

function missing(id: Uint8Array, name: ByteString, what: "data" | "tree" | "data-as-tree" | "tree-as-data"): TreeProblem {
  const blobId = hexOf(id);
  const isTree = what === "tree" || what === "tree-as-data";
  const entry = `"${toUtf8OrEscaped(name)}" needs ${isTree ? "tree" : "data blob"} "${blobId}"`;
  const other =
    what === "data-as-tree" ? ", which the index has as a tree only" : what === "tree-as-data" ? ", which the index has as data only" : "";
  const failure = new Failure("BlobMissing", `${entry}${other === "" ? ", which no index file lists" : other}`, { details: { blobId } });
  return { kind: "missing", name, blobId, blobType: isTree ? "tree" : "data", failure: encodeFailure(failure) };
}
