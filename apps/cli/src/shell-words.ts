import { Failure } from "@granary/base/errors";

/**
 * Splits a command into words as a shell does, without expanding anything: white space divides, quotes and backslashes keep together.
 *
 * @throws InvalidArgument for an open quote, or no word at all
 */
export function splitShellWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  for (let at = 0; at < text.length; at++) {
    const character = text[at] ?? "";
    if (character === "'" || character === '"') {
      const end = findClosing(text, at);
      if (end < 0)
        throw new Failure("InvalidArgument", `Cannot split the command ${JSON.stringify(text)} into words: a quote is not closed`);
      const inside = text.slice(at + 1, end);
      word = (word ?? "") + (character === "'" ? inside : inside.replace(/\\(["\\$`])/g, "$1"));
      at = end;
    } else if (character === "\\") {
      word = (word ?? "") + (text[++at] ?? "");
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? "") + character;
    }
  }
  if (word !== undefined) words.push(word);
  if (words.length === 0) throw new Failure("InvalidArgument", "Cannot run an empty command");
  return words;
}

function findClosing(text: string, start: number): number {
  const quote = text[start];
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === quote) return at;
    if (quote === '"' && text[at] === "\\") at++;
  }
  return -1;
}
