// Unpacks the browser into node_modules/.chromium, with the libraries and the font that a bare machine lacks.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const place = join(dirname(fileURLToPath(import.meta.url)), "node_modules", ".chromium");
mkdirSync(place, { recursive: true });
process.env.TMPDIR = place; // where the package unpacks to
const { inflate } = await import("@sparticuz/chromium");
const packed = join(dirname(fileURLToPath(import.meta.resolve("@sparticuz/chromium"))), "..", "bin");
for (const name of ["chromium.br", "al2023.tar.br", "fonts.tar.br"]) await inflate(join(packed, name));
writeFileSync(
  join(place, "fonts.conf"),
  `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>${join(place, "fonts")}</dir><cachedir>${join(place, "cache")}</cachedir></fontconfig>
`,
);
