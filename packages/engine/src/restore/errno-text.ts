/** What error numbers are called. */
import { getSystemErrorMap } from "node:util";
import { errno } from "../native/libc.ts";

const known: ReadonlyMap<number, readonly [name: string, text: string]> = getSystemErrorMap();

/** For messages, as in `permission denied (EACCES)`. @param result a negated error number */
export function describeError(result: number): string {
  const found = known.get(result);
  return found === undefined ? `error ${-result}` : `${found[1]} (${found[0]})`;
}

/** Whether a result is this error. @param result 0 or more, or a negated error number */
export function isError(result: number, name: string): boolean {
  return result < 0 && result === -(errno[name] ?? 0);
}

/** Whether a result says that the target cannot take more. */
export function isFull(result: number): boolean {
  return isError(result, "ENOSPC") || isError(result, "EDQUOT");
}

/** Whether a result says that something else is where an entry belongs. */
export function isInTheWay(result: number): boolean {
  return isError(result, "EEXIST") || isError(result, "ENOTEMPTY") || isError(result, "ENOTDIR") || isError(result, "ELOOP");
}
