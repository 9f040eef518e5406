import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inspect } from "node:util";
import { isFailure } from "@granary/base/errors";
import { openStore } from "./open-store.ts";
import { stripCredentials } from "./rest.ts";

const fails = (code: string) => (error: unknown) => isFailure(error, code);

describe("openStore()", () => {
  test("opens folders and REST servers, and says what it accepts", () => {
    for (const path of ["/srv/backup", "relative/path", "./with:colon", "local:/srv/backup", "."])
      assert.equal(openStore(path).location.startsWith("/"), true, path);
    assert.equal(openStore("local:/srv/backup").location, "/srv/backup");
    assert.equal(openStore("rest:http://host:8000", { env: {} }).location, "rest:http://host:8000/");
    assert.equal(openStore("rest:https://[::1]:8000/a/b", { env: {} }).location, "rest:https://[::1]:8000/a/b/");
    for (const location of [
      "",
      "local:",
      "s3:bucket",
      "sftp:user@host:/path",
      "http://host/",
      "rest:ftp://host/",
      "rest:host",
      "rest:",
      "rest:http://h/?q=1",
    ]) {
      assert.throws(() => openStore(location, { env: {} }), fails("StoreInvalid"), location);
    }
    assert.throws(() => openStore("https://user:secret@host/"), /rest:https:\/\/host\//);
  });

  test("shows credentials nowhere", () => {
    const store = openStore("rest:https://anna:sesame@host/r/", { env: {} });
    assert.doesNotMatch(inspect(store, { depth: 9, showHidden: true }), /sesame/);
    for (const location of [
      "rest:https://anna:ses/ame@host:x/",
      "rest:https://anna:sesame@host:99999/",
      "http://anna:sesame@host",
      "sftp://anna:sesame@host",
      "rest:anna:sesame@host",
    ]) {
      assert.throws(
        () => openStore(location, { env: {} }),
        (error) =>
          isFailure(error, "StoreInvalid") && !/ses|ame/.test(JSON.stringify([error.message, error.details]).replaceAll("name", "")),
        location,
      );
    }
    assert.equal(stripCredentials("rest:https://anna:p@ss@host/a"), "rest:https://host/a");
    assert.equal(stripCredentials("/srv/user@host"), "/srv/user@host");
  });
});
