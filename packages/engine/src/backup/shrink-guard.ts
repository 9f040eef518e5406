/**
 * Tells a source that has vanished from one that was tidied up. A disk that is not mounted, a share that is away: the backup would succeed and
 * retention would then forget the snapshots that still have the data. Silent loss is worse than failure.
 */
import type { BlobId } from "../format/ids.ts";
import { bytesOfId } from "../format/ids.ts";
import { loadBlob } from "../repository/blob-load.ts";
import type { Repository } from "../repository/repository.ts";
import { ParentNodes } from "./parent-nodes.ts";

/** Below this many files a parent does not count as much. */
const fewFiles = 10;
/** What is left must be at least a tenth. */
const shrinkFactor = 10;
/** Counting stops here: by then it is known to be much. */
const enoughFiles = 1000;

/** Whether there was much and hardly anything is left. */
export function isShrunken(filesBefore: number, filesNow: number): boolean {
  return filesBefore >= fewFiles && filesNow * shrinkFactor < filesBefore;
}

/** Counts the files of a snapshot whose writer did not, up to about 1000. A damaged tree counts as empty. */
export async function countFiles(repository: Repository, tree: BlobId): Promise<number> {
  const trees: Uint8Array[] = [bytesOfId(tree)];
  let files = 0;
  for (let id = trees.pop(); id !== undefined && files < enoughFiles; id = trees.pop()) {
    const nodes = await loadBlob(repository, id).then(
      (bytes) => new ParentNodes(bytes),
      () => undefined,
    );
    for (const name of nodes?.names ?? []) {
      nodes?.seek(name);
      const subtree = nodes?.findSubtree();
      if (subtree === undefined) files++;
      else trees.push(subtree);
    }
  }
  return files;
}
