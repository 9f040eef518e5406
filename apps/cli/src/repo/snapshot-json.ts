import { encodeSnapshot, type StoredSnapshot } from "@granary/engine";

/** The first characters of an id, as they are shown. */
export function shortId(id: string): string {
  return id.slice(0, 8);
}

/** A snapshot as restic's JSON has it: the fields of its file, then `id` and `short_id`. JSON text, so that no number loses digits. */
export function renderSnapshotJson(snapshot: StoredSnapshot): string {
  const fields = encodeSnapshot(snapshot).toString("utf8").trimEnd();
  return `${fields.slice(0, -1)},"id":"${snapshot.id}","short_id":"${shortId(snapshot.id)}"}`;
}
