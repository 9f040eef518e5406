/** Values that must not be printed. */

import { inspect } from "node:util";

/**
 * Holds a password, key or token so that it cannot reach a log, a message or a report by accident: its string, JSON and inspected
 * forms are `[secret]`, and a structured clone (a message to a worker) arrives empty. Ask for the value where it is used, and only there.
 */
export class Secret<T = string> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** The value itself. */
  reveal(): T {
    return this.#value;
  }

  toString(): string {
    return "[secret]";
  }

  toJSON(): string {
    return "[secret]";
  }

  static {
    Object.defineProperty(Secret.prototype, inspect.custom, { value: () => "[secret]" });
  }
}
