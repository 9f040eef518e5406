import { Failure } from "@granary/base/errors";
import { type BlobId, blobIdOf, bytesOfId, findEntry, type TreeLoader } from "@granary/engine";
import { bytesOfArgument, showArgument } from "../raw-arguments.ts";

/**
 * The tree of a folder in a snapshot, as `snapshot:folder` names it.
 *
 * @param what.subpath "" for the top
 * @throws PathNotFound; InvalidArgument when it is no folder
 */
export async function findSubtree(load: TreeLoader, what: { tree: BlobId; subpath: string; signal: AbortSignal }): Promise<BlobId> {
  if (what.subpath === "") return what.tree;
  const { node } = await findEntry(load, bytesOfId(what.tree), { path: bytesOfArgument(what.subpath), signal: what.signal });
  if (node.subtree !== null) return blobIdOf(node.subtree);
  throw new Failure(
    "InvalidArgument",
    `Cannot use "${showArgument(what.subpath)}": a folder of the snapshot is needed, it is a ${node.type}`,
  );
}
