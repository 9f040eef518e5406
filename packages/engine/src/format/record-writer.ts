/** Writing the small JSON files in Go's order and with its escapes. */
import { quoteJson } from "./json.ts";

/** Collects the members of one object in the order of the calls. */
export class RecordWriter {
  #text = "";

  /** Appends a member whose value is JSON already. */
  add(field: string, json: string): this {
    this.#text += `${this.#text === "" ? "{" : ","}${quoteJson(field)}:${json}`;
    return this;
  }

  /** Appends a text. */
  addText(field: string, text: string): this {
    return this.add(field, quoteJson(text));
  }

  /** Appends a text unless it is empty. */
  addTextIfAny(field: string, text: string | null): this {
    return text === null || text === "" ? this : this.addText(field, text);
  }

  /** Appends a number. */
  addNumber(field: string, value: number | bigint): this {
    return this.add(field, String(value));
  }

  /** Appends a number unless it is 0. */
  addNumberIfAny(field: string, value: number): this {
    return value === 0 ? this : this.addNumber(field, value);
  }

  /** Appends a list of texts. */
  addTexts(field: string, texts: readonly string[]): this {
    return this.add(field, `[${texts.map(quoteJson).join(",")}]`);
  }

  /** Appends a list of texts unless it is empty. */
  addTextsIfAny(field: string, texts: readonly string[]): this {
    return texts.length === 0 ? this : this.addTexts(field, texts);
  }

  /** Appends members that were kept as JSON. */
  addAll(members: ReadonlyMap<string, string>): this {
    for (const [field, json] of members) this.add(field, json);
    return this;
  }

  /** The object's JSON. */
  toJson(): string {
    return this.#text === "" ? "{}" : `${this.#text}}`;
  }
}
