/** Asking for passwords: on a terminal without showing what is typed, else by reading a line of standard input. */

import { Failure } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import { cancelledBy } from "@granary/base/cancel";

/** Longer passwords are a mistake: a file that was sent to standard input. */
const longestChars = 64 * 1024;

/** Whether someone can be asked. */
export function isInteractive(): boolean {
  return process.stdin.isTTY && process.stderr.isTTY;
}

/**
 * Asks for a password on the terminal; Enter ends it, Backspace and Ctrl-U take back, Ctrl-C and Ctrl-D give up.
 *
 * @throws Cancelled
 */
export async function promptPassword(question: string, signal: AbortSignal): Promise<Secret> {
  const { stdin, stderr } = process;
  if (signal.aborted) throw cancelledBy(signal);
  stdin.setRawMode(true); // before the question, so that no answer is shown
  stdin.setEncoding("utf8");
  stderr.write(question);
  try {
    return new Secret(await readKeys(signal));
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    stderr.write("\n");
  }
}

function readKeys(signal: AbortSignal): Promise<string> {
  const { stdin } = process;
  return new Promise((resolve, reject) => {
    const typed: string[] = [];
    const settle = (finish: () => void): void => {
      stdin.removeListener("data", onData);
      stdin.removeListener("end", onEnd);
      signal.removeEventListener("abort", onAbort);
      finish();
    };
    const onAbort = (): void => settle(() => reject(cancelledBy(signal)));
    const onEnd = (): void => settle(() => reject(new Failure("Cancelled", "No password was typed")));
    const onData = (keys: string): void => {
      for (const key of keys) {
        if (key === "\r" || key === "\n") return settle(() => resolve(typed.join("")));
        if (key === "\u0003" || key === "\u0004") return onEnd();
        if (key === "\u007f" || key === "\b") typed.pop();
        else if (key === "\u0015") typed.length = 0;
        else if (key >= " ") typed.push(key);
      }
    };
    signal.addEventListener("abort", onAbort, { once: true });
    stdin.on("data", onData);
    stdin.on("end", onEnd);
    stdin.resume();
  });
}

/** Reads the first line of standard input, which is no terminal. @throws PasswordMissing when there is none */
export async function readPasswordLine(what: string, signal: AbortSignal): Promise<Secret> {
  let text = "";
  const { stdin } = process;
  stdin.setEncoding("utf8");
  const onAbort = (): void => void stdin.destroy(cancelledBy(signal));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    for await (const piece of stdin) {
      text += String(piece);
      if (text.includes("\n") || text.length > longestChars) break;
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  const [line = ""] = text.split("\n");
  if (line.trim() === "" || text.length > longestChars) {
    throw new Failure(
      "PasswordMissing",
      `Cannot get ${what}: no password was given, standard input is no terminal and has no line with one`,
    );
  }
  return new Secret(line.replace(/\r$/, ""));
}
