/** Lists what a snapshot holds. */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, toUtf8OrEscaped } from "../format/byte-string.ts";
import { type BlobId, bytesOfId } from "../format/ids.ts";
import { GO_PERMISSIONS } from "../format/mode.ts";
import type { TreeLoader } from "../repository/blob-load.ts";
import { type TreeEntry, walkTree } from "./tree-walk.ts";

export interface ListOptions {
  /** Only what these are and what is in them; absolute, with or without a slash at the end. All when absent or empty. */
  readonly folders?: readonly ByteString[];
  /** Whether to go into the folders below those named. Without `folders` everything is listed anyway. */
  readonly recursive?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * Lists a snapshot in the order of the walk. Reads no more directories than it must.
 *
 * @yields runs of entries, never empty; a folder named is an entry itself, before what is in it
 * @throws InvalidArgument for a folder that is not absolute; PathNotFound, after all the rest, for one that is not there; what `load` throws
 */
export async function* listSnapshot(
  load: TreeLoader,
  tree: BlobId,
  options: ListOptions = {},
): AsyncGenerator<readonly TreeEntry[], void, undefined> {
  const { recursive = false, signal } = options;
  const folders = (options.folders ?? []).map(cleanFolder);
  const root = bytesOfId(tree);
  if (folders.length === 0) {
    yield* walkTree(load, root, signal === undefined ? {} : { signal });
    return;
  }
  const missing = new Set(folders);
  missing.delete("");
  const isIn = (path: ByteString): boolean => folders.some((folder) => path === folder || path.startsWith(`${folder}/`));
  const leadsTo = (path: ByteString): boolean => folders.some((folder) => folder === path || folder.startsWith(`${path}/`));
  const enter = ({ path }: TreeEntry): boolean => leadsTo(path) || (recursive && isIn(path));
  for await (const batch of walkTree(load, root, { enter, ...(signal && { signal }) })) {
    for (const { path } of batch) missing.delete(path);
    const inside = batch.filter(({ path }) => isIn(path));
    if (inside.length > 0) yield inside;
  }
  const [first] = missing;
  if (first !== undefined) throw new Failure("PathNotFound", `Cannot list "${toUtf8OrEscaped(first)}": the snapshot has no such path`);
}

function cleanFolder(folder: ByteString): ByteString {
  if (!folder.startsWith("/")) {
    throw new Failure(
      "InvalidArgument",
      `Cannot list "${toUtf8OrEscaped(folder)}": an absolute path is needed, one that begins with a slash`,
    );
  }
  const parts = folder.split("/").filter((part) => part !== "" && part !== ".");
  return parts.map((part) => `/${part}`).join("");
}

/** What stands for the bits of Go's file mode from 31 down. */
const modeLetters = "dalTLDpSugct?";

/** A mode as Go shows it: letters for the type and special bits, or a dash, and the nine permissions: `drwxr-xr-x`, `ugtrwxrwxrwx`. */
export function formatGoMode(mode: number): string {
  let letters = "";
  for (let i = 0; i < modeLetters.length; i++) if ((mode & (1 << (31 - i))) !== 0) letters += modeLetters.charAt(i);
  if (letters === "") letters = "-";
  const permissions = mode & GO_PERMISSIONS;
  for (let i = 0; i < 9; i++) letters += (permissions & (1 << (8 - i))) === 0 ? "-" : "rwxrwxrwx".charAt(i);
  return letters;
}
