/** The version of this program: that of package.json, which a test compares, since a bundle has no package.json beside it. */
export const version: string = "0.1.0";
