// SPDX-License-Identifier: Apache-2.0
//
// Reads a PowerShell script on stdin and prints, as JSON, what the grammar of
// tree-sitter-powershell says of it: {errors: [{line, text}], commands: [name]}.

import { createRequire } from "node:module";
import { text } from "node:stream/consumers";
import { Language, Parser } from "web-tree-sitter";

await Parser.init();
const grammar = createRequire(import.meta.url).resolve("tree-sitter-powershell/tree-sitter-powershell.wasm");
const parser = new Parser();
parser.setLanguage(await Language.load(grammar));

const errors = [];
const commands = new Set();
const visit = (node) => {
  if (node.isError || node.isMissing) errors.push({ line: node.startPosition.row + 1, text: node.text.slice(0, 60) });
  if (node.type === "command_name") commands.add(node.text);
  for (const child of node.children) visit(child);
};
visit(parser.parse(await text(process.stdin)).rootNode);
process.stdout.write(JSON.stringify({ errors, commands: [...commands].sort() }));
