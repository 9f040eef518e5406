/**
 * Tells a source that has vanished from one that was tidied up. A disk that is not mounted, a share that is away: the backup would succeed and
 * retention would then forget the snapshots that still have the data. Silent loss is worse than failure.
 */
import { isFailure } from "@granary/base/errors";
import type { BlobId } from "../format/ids.ts";
import { bytesOfId } from "../format/ids.ts";
import { parseNode } from "../format/parse-node.ts";
import { scanTree } from "../format/tree.ts";
import { loadBlob } from "../repository/blob-load.ts";
import type { Repository } from "../repository/repository.ts";

/** Below this many files a parent does not count as much. */
const fewFiles = 10;
/** What is left must be at least a tenth. */
const shrinkFactor = 10;
/** Counting stops here: by then it is known to be much. */
const enoughFiles = 1000;
/** And here, in folders within folders without files. */
const enoughTrees = 10_000;

/** Whether there was much and hardly anything is left. */
export function isShrunken(filesBefore: number, filesNow: number): boolean {
  return filesBefore >= fewFiles && filesNow * shrinkFactor < filesBefore;
}

/** Counts the regular files of a snapshot whose writer did not, up to about 1000. A damaged tree counts as empty. */
export async function countFiles(repository: Repository, tree: BlobId): Promise<number> {
  const trees: Uint8Array[] = [bytesOfId(tree)];
  let files = 0;
  for (let visited = 0; files < enoughFiles && visited < enoughTrees; visited++) {
    const id = trees.pop();
    if (id === undefined) break;
    const bytes = await loadBlob(repository, id).catch(() => undefined);
    if (bytes !== undefined) files += countNodes(bytes, trees);
  }
  return files;
}

/** @returns the files of a directory; what is below it is added to `trees` */
function countNodes(bytes: Uint8Array, trees: Uint8Array[]): number {
  let files = 0;
  const visit = (_: unknown, start: number, end: number): void => {
    const { type, subtree } = parseNode(bytes, start, end);
    if (type === "file") files++;
    else if (type === "dir" && subtree !== null) trees.push(subtree);
  };
  try {
    scanTree(bytes, visit);
  } catch (error) {
    if (!isFailure(error, "TreeInvalid")) throw error;
  }
  return files;
}
