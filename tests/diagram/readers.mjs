// Reads the chart's drawn forms with other people's programs, and prints what each saw:
// {reader: {"states": [...], "arrows": [[from, label, to], ...]}}. See readers.py.
//
// node readers.mjs FOLDER: the folder has chart.scxml, chart.dot and chart.mmd.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { instance } from "@viz-js/viz";
import { JSDOM } from "jsdom";
import { render } from "state-machine-cat";

const read = (name) => readFileSync(join(process.argv[2], name), "utf8");
const found = {};

const machine = await render(read("chart.scxml"), { inputType: "scxml", outputType: "json" });
found["state-machine-cat, SCXML"] = {
  states: machine.states.filter((state) => state.type === "regular").map((state) => state.name),
  arrows: machine.transitions.filter((way) => way.event).map((way) => [way.from, way.event, way.to]),
};

const graph = (await instance()).renderJSON(read("chart.dot"));
const names = graph.objects.map((node) => node.name);
found["Graphviz, DOT"] = {
  states: names.filter((name) => name !== "start"),
  arrows: graph.edges.filter((edge) => edge.label).map((edge) => [names[edge.tail], edge.label, names[edge.head]]),
};

const page = new JSDOM("");
globalThis.window = page.window;
globalThis.document = page.window.document;
const mermaid = (await import("mermaid")).default;
await mermaid.parse(read("chart.mmd"));
const { db } = await mermaid.mermaidAPI.getDiagramFromText(read("chart.mmd"));
found["Mermaid, MMD"] = {
  states: [...db.getStates().keys()].filter((name) => !name.startsWith("root_")),
  arrows: db.getRelations().filter((way) => way.relationTitle).map((way) => [way.id1, way.relationTitle, way.id2]),
};

console.log(JSON.stringify(found));
process.exit(0);
