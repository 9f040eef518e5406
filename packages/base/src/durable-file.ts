/**
 * Files that are whole or absent, whatever happens: temporary name, all bytes, fsync, rename, fsync of the folder.
 * After a crash a temporary file may be left behind; its name starts with {@link temporaryPrefix}, and nothing refers to it.
 */

import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";

/** How the names of unfinished files start; the rest is random, so that names of 255 bytes have a temporary one too. */
export const temporaryPrefix = ".granary-tmp-";

/**
 * Writes a whole file so that it survives power loss once the promise resolves; a file of that name is replaced at one instant.
 *
 * @param path the folder must exist
 * @param data not changed; must not be changed until the promise settles
 * @param options.mode permission bits, before the umask; 0o666 when absent
 * @throws what the file system throws (`ENOSPC`, `EACCES`…), after removing the temporary file. When the last step, the fsync of the
 *   folder, fails, the file is in place but may not survive power loss.
 */
export async function writeDurably(path: string, data: Uint8Array, options: { mode?: number } = {}): Promise<void> {
  const folder = dirname(path);
  const temporary = join(folder, temporaryPrefix + randomBytes(8).toString("hex"));
  const file = await open(temporary, "wx", options.mode ?? 0o666);
  try {
    try {
      await writeAll(file, data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error;
  }
  await syncFolder(folder);
}

/** Makes the names in a folder durable: what was created, renamed or removed there survives power loss once this resolves. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") return; // NTFS journals names itself, and folders cannot be opened for this
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function writeAll(file: FileHandle, data: Uint8Array): Promise<void> {
  for (let offset = 0; offset < data.length; ) {
    const { bytesWritten } = await file.write(data, offset, data.length - offset);
    offset += bytesWritten;
  }
}
