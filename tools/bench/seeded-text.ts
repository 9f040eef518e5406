/**
 * Text that compresses like ordinary text and logs do (2.8 to 1 with zstd's level 1), without long repeats: what a deduplicating
 * program saves on it, it saves by compression alone. Lines of seeded words, each with a number; a few words are frequent and most are rare.
 */

import { openSeededBytes, type SeededBytes } from "./seeded-bytes.ts";

/** A source of text that a seed decides. */
export interface SeededText {
  /** Fills all of `target` with the next text. */
  fill(target: Buffer): void;
}

const wordCount = 4096;
/** Words are drawn through a table of this size: an index of 16 bits, each word as often as it is frequent. */
const drawCount = 65_536;
/** The exponent of Zipf's law; natural languages have about 1. */
const zipfExponent = 1.1;

const onsets = ["b", "br", "c", "ch", "d", "f", "g", "gr", "h", "l", "m", "n", "p", "pl", "qu", "r", "s", "st", "t", "tr", "v", "w"];
const vowels = ["a", "e", "i", "o", "u", "ea", "ou"];
const codas = ["", "n", "r", "s", "t", "l", "ck", "nd"];

/** Opens the text of a seed. */
export function openSeededText(seed: string): SeededText {
  const random = openSeededBytes(seed);
  const { letters, starts } = makeWords(openSeededBytes("the words of all texts"));
  const draws = makeDraws();
  const numbers = Buffer.alloc(drawCount * 2);
  let drawn = numbers.length;
  let wordsInLine = 0;
  return {
    fill(target) {
      let at = 0;
      while (at < target.length) {
        if (drawn === numbers.length) {
          random.fill(numbers);
          drawn = 0;
        }
        const number = numbers.readUInt16LE(drawn);
        drawn += 2;
        const word = draws[number] ?? 0;
        const end = starts[word + 1] ?? 0;
        for (let from = starts[word] ?? 0; from < end && at < target.length; from += 1) target[at++] = letters[from] ?? 0;
        wordsInLine += 1;
        if (wordsInLine === 12) {
          wordsInLine = 0;
          at += target.write(` ${number}\n`, at, "latin1");
        }
      }
    },
  };
}

/** All words one after another, each with a space before it, and where each starts. */
function makeWords(random: SeededBytes): { letters: Buffer; starts: Uint32Array } {
  const pick = (list: readonly string[]): string => list[random.nextBelow(list.length)] ?? "";
  const starts = new Uint32Array(wordCount + 1);
  let text = "";
  for (let word = 0; word < wordCount; word += 1) {
    starts[word] = text.length;
    text += " ";
    // Frequent words are short, as in any language.
    for (let syllable = 0; syllable <= Math.log2(word + 2) / 5; syllable += 1) text += pick(onsets) + pick(vowels) + pick(codas);
  }
  starts[wordCount] = text.length;
  return { letters: Buffer.from(text, "latin1"), starts };
}

/** For each number of 16 bits the word it stands for, by Zipf's law. */
function makeDraws(): Uint16Array {
  const weights = Array.from({ length: wordCount }, (_, word) => 1 / (word + 1) ** zipfExponent);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const draws = new Uint16Array(drawCount);
  let word = 0;
  let reached = (weights[0] ?? 0) / total;
  for (let draw = 0; draw < drawCount; draw += 1) {
    while (draw / drawCount > reached && word < wordCount - 1) {
      word += 1;
      reached += (weights[word] ?? 0) / total;
    }
    draws[draw] = word;
  }
  return draws;
}
