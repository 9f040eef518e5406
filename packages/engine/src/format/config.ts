/**
 * The config file: version, identity, and the polynomial of restic's way of cutting.
 *
 * `{"version":1|2,"id":"<64 hex>","chunker_polynomial":"<hex>"}`, sealed, but never compressed.
 *
 * @see restic design.rst, "Repository Layout"
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { isId } from "./ids.ts";
import { parseRecord, readCountField, readTextField, wrongField } from "./json-record.ts";
import { RecordWriter } from "./record-writer.ts";

/** The newest version of the format that is understood. Version 1 has no compression. */
export const MAX_VERSION = 2;

export interface Config {
  /** 1 or 2. */
  readonly version: number;
  /** 64 hex characters, drawn by lot. */
  readonly id: string;
  /** Bit n is the coefficient of x^n. Whether it is irreducible is for the cutter to check. */
  readonly chunkerPolynomial: bigint;
}

/** The JSON of a config; the caller owns it. */
export function encodeConfig(config: Config): Buffer {
  const json = new RecordWriter()
    .addNumber("version", config.version)
    .addText("id", config.id)
    .addText("chunker_polynomial", config.chunkerPolynomial.toString(16))
    .toJson();
  return Buffer.from(json, "utf8");
}

const HEX = /^[0-9a-fA-F]{1,16}$/;

/**
 * Reads a config.
 *
 * @throws RepositoryVersion when a newer program wrote it
 * @throws ConfigInvalid when it is damaged
 */
export function parseConfig(bytes: Uint8Array): Config {
  const record = parseRecord(bytes, { code: "ConfigInvalid", subject: "config" });
  const version = readCountField(record, "version");
  if (version > MAX_VERSION) {
    throw new Failure("RepositoryVersion", `Cannot open repository: its format is version ${version}, 1 to ${MAX_VERSION} are understood`, {
      details: { version },
    });
  }
  if (version < 1) throw wrongField(record, "version", `1 to ${MAX_VERSION}`);
  const id = readTextField(record, "id");
  if (!isId(id)) throw wrongField(record, "id", "64 lower-case hex characters");
  const polynomial = readTextField(record, "chunker_polynomial");
  if (!HEX.test(polynomial)) throw wrongField(record, "chunker_polynomial", "1 to 16 hex characters");
  return { version, id, chunkerPolynomial: BigInt(`0x${polynomial}`) };
}
