/** What an error of the operating system means for a store. */

import { constants } from "node:os";

/** The name of a system error (`ENOSPC`); empty when it is not one. */
export function systemCodeOf(error: unknown): string {
  if (!(error instanceof Error)) return "";
  // Node has no name for a full quota and reports it by its number only.
  if ("errno" in error && error.errno === -constants.errno.EDQUOT) return "EDQUOT";
  return "code" in error && typeof error.code === "string" ? error.code : "";
}

/** The code of the failure that a system error becomes: for every store on this machine's file systems. */
export function storeCodeOf(error: unknown): "StoreFull" | "StoreDenied" | "StoreFileNotFound" | "StoreUnavailable" {
  switch (systemCodeOf(error)) {
    case "ENOSPC":
    case "EDQUOT":
      return "StoreFull";
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return "StoreDenied";
    case "ENOENT":
      return "StoreFileNotFound";
    default:
      return "StoreUnavailable";
  }
}
