// Builds the playground into xzepr/api/console/static. The build is reproducible: the same sources and lock file give the
// same bytes.
//
//     npm ci && npm run build
//
// The build writes the page, its hashed assets, THIRD_PARTY.txt (the full licences of the bundled packages), manifest.json
// (versions, licences, sizes, hashes) and the tables in README.md.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = join(here, "..", "..");
const target = join(root, "xzepr", "api", "console", "static");
const page = join(here, "README.md");

const common = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  charset: "utf8",
  target: ["es2022"],
  metafile: true,
  write: false,
  outdir: target,
  // All licence texts are collected in THIRD_PARTY.txt instead.
  legalComments: "none",
  define: { "process.env.NODE_ENV": '"production"' },
  logLevel: "warning",
};

const workers = await build({
  ...common,
  format: "iife",
  entryNames: "[name]-[hash]",
  entryPoints: [
    { in: "monaco-editor/esm/vs/editor/editor.worker.js", out: "editor" },
    { in: "monaco-graphql/esm/graphql.worker.js", out: "graphql" },
    { in: "monaco-editor/esm/vs/language/json/json.worker.js", out: "json" },
  ],
});
const workerNames = Object.fromEntries(workers.outputFiles.map(({ path }) => [basename(path).split("-")[0], basename(path)]));

const main = await build({
  ...common,
  format: "esm",
  jsx: "automatic",
  entryNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  loader: { ".graphql": "text", ".ttf": "file" },
  entryPoints: [{ in: "src/main.jsx", out: "main" }],
  define: { ...common.define, WORKERS: JSON.stringify(workerNames) },
});

const files = new Map([...workers.outputFiles, ...main.outputFiles].map(({ path, contents }) => [basename(path), Buffer.from(contents)]));
const named = (pattern) => [...files.keys()].find((name) => pattern.test(name));
const html = readFileSync(join(here, "src", "index.html"), "utf8");
files.set("index.html", Buffer.from(html.replace("{{css}}", named(/^main-.*\.css$/)).replace("{{js}}", named(/^main-.*\.js$/))));

const bundled = packagesOf(workers.metafile, main.metafile);
files.set("THIRD_PARTY.txt", Buffer.from(bundled.map(licenceText).join("\n")));

const manifest = {
  packages: bundled.map(({ name, version, licence }) => ({ name, version, licence })),
  files: Object.fromEntries([...files].sort(byName).map(([name, bytes]) => [name, { bytes: bytes.length, sha256: sha256(bytes) }])),
  sources: sourceHashes(),
};

rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
for (const [name, bytes] of files) writeFileSync(join(target, name), bytes);
writeFileSync(join(target, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
if (existsSync(page)) writeFileSync(page, withTables(readFileSync(page, "utf8")));
const total = [...files.values()].reduce((sum, bytes) => sum + bytes.length, 0);
console.log(`${files.size} files, ${(total / 1e6).toFixed(1)} MB, ${bundled.length} packages`);

/** Returns the packages that contribute to the output, with the name, version and licence from their package.json. */
function packagesOf(...metafiles) {
  const found = new Map();
  for (const { outputs } of metafiles) {
    for (const output of Object.values(outputs)) {
      for (const [input, { bytesInOutput }] of Object.entries(output.inputs)) {
        const folder = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0];
        if (folder && bytesInOutput > 0) found.set(folder, describe(folder));
      }
    }
  }
  const versions = new Map([...found.values()].map((one) => [`${one.name}@${one.version}`, one]));
  return [...versions.values()].sort((a, b) => (`${a.name}@${a.version}` < `${b.name}@${b.version}` ? -1 : 1));
}

function describe(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(here, folder, "package.json"), "utf8"));
  if (typeof license !== "string") throw new Error(`${name} ${version} names no licence`);
  return { name, version, licence: license, folder };
}

function licenceText({ name, version, licence, folder }) {
  const texts = readdirSync(join(here, folder))
    .filter((file) => /^(licen[cs]e|notice|thirdpartynotices)/i.test(file))
    .sort()
    .map((file) => readFileSync(join(here, folder, file), "utf8").replaceAll("\r\n", "\n").trim());
  const text = texts.length > 0 ? texts.join("\n\n") : "(The package holds no licence file; its package.json names the licence above.)";
  return `${"=".repeat(100)}\n${name} ${version} — ${licence}\n${"=".repeat(100)}\n\n${text}\n`;
}

function sourceHashes() {
  const entries = readdirSync(join(here, "src"), { recursive: true, withFileTypes: true });
  const sources = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const all = [...sources, join(here, "build.mjs"), join(here, "package.json"), join(here, "package-lock.json")];
  return Object.fromEntries(all.map((path) => [relative(here, path).replaceAll("\\", "/"), sha256(readFileSync(path))]).sort(byName));
}

function withTables(text) {
  const packages = manifest.packages.map(({ name, version, licence }) => `| ${name} | ${version} | ${licence} |`);
  const hashes = Object.entries(manifest.files).map(([name, { bytes, sha256: hash }]) => `| \`${name}\` | ${bytes} | \`${hash}\` |`);
  const between = (body, mark, lines) =>
    body.replace(new RegExp(`(<!-- ${mark} -->\\n)[\\s\\S]*?(<!-- /${mark} -->)`), (_all, open, close) => `${open}${lines.join("\n")}\n${close}`);
  const first = between(text, "packages", ["| package | version | licence |", "|---|---|---|", ...packages]);
  return between(first, "files", ["| file | bytes | SHA-256 |", "|---|---:|---|", ...hashes]);
}

function sha256(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

function byName([a], [b]) {
  return a < b ? -1 : 1;
}
