"""How the report looks, and the sorting of its table."""

from __future__ import annotations

from dinomed3d.inference.report.palette import COLOURS

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #5c6670; --line: #d5dae0;
  --shade: #f4f6f8; --alarm: #a11616; --alarm-back: #fdecec; --care: #7a4a00; --care-back: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #15181c; --soft: #9aa4af;
  --line: #343a42; --shade: #1e2227; --alarm: #ff9d9d; --alarm-back: #3d1c1c; --care: #ffd27a;
  --care-back: #3a2d12; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.5rem 3rem; max-width: 110rem; color: var(--ink);
  background: var(--paper); font: 14px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .4rem; }
header { display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: baseline; }
summary { cursor: pointer; } summary h2 { display: inline-block; margin-bottom: .4rem; }
.notice { margin: 0; padding: .1rem .6rem; border: 1px solid var(--line); border-radius: .4rem; }
.hint, .notes { color: var(--soft); font-size: .85em; font-weight: normal; }
.hint { margin: .2rem 0 .6rem; } .volumes + .hint { margin: .2rem 0 0; max-width: 32rem; }
.counts { display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; margin: 1rem 0; list-style: none; }
.counts li { padding: .35rem .8rem; border: 1px solid var(--line); border-radius: .4rem; }
.counts b { font-size: 1.25rem; margin-right: .2rem; }
.counts .failed:not(.none) { color: var(--alarm); background: var(--alarm-back); }
.counts .flagged:not(.none), .counts .missing:not(.none) { color: var(--care);
  background: var(--care-back); }
dl { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: 0; }
dl div { display: flex; gap: .4rem; } dt { color: var(--soft); white-space: nowrap; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; }
th, td { padding: .4rem .6rem; text-align: left; vertical-align: top; }
.failures table, .results { width: 100%; }
.failures td, .failures th, .results > thead th, .results > tbody > tr > * {
  border-bottom: 1px solid var(--line); }
.failures tbody th { color: var(--alarm); width: 22%; overflow-wrap: anywhere; }
.results > thead th { position: sticky; top: 0; background: var(--shade); white-space: nowrap; }
.results > tbody > tr > th { overflow-wrap: anywhere; min-width: 8rem; }
.results > tbody > tr.flagged > * { background: var(--care-back); }
.results img { display: block; width: 30rem; max-width: 36vw; height: auto; background: #000; }
.number, .volumes td:nth-child(2) { text-align: right; font-variant-numeric: tabular-nums; }
.volumes td { padding: 0 .6rem 0 0; } .volumes td:nth-child(3) { color: var(--soft);
  white-space: nowrap; }
.volumes i { display: inline-block; width: .7em; height: .7em; margin-right: .35em; border-radius: 2px;
  print-color-adjust: exact; }
ul.flags, ul.notes { margin: 0; padding-left: 1.1em; } ul.notes { margin-top: .4rem; }
ul.flags { color: var(--care); font-weight: 600; min-width: 12rem; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
th[data-kind] button::after { content: " ↕"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: " ↑"; }
th[aria-sort=descending] button::after { content: " ↓"; }
.volumes span { white-space: nowrap; }
@media (max-width: 1600px) { .volumes td:nth-child(3) { white-space: normal; min-width: 5.5rem; }
  ul.flags { min-width: 8rem; } .results img { max-width: 33vw; } }
@media print { body { padding: 0; font-size: 10px; } tr, img { break-inside: avoid; }
  .results > thead th { position: static; } .results img { width: 22rem; }
  th button::after { content: "" !important; } }
""" + "".join(f".c{colour[1:]} {{ background: {colour}; }}\n" for colour in COLOURS)

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.results")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const kind = head.dataset.kind;
    if (!kind) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.first;
      const other = first === "ascending" ? "descending" : "ascending";
      const order = now === first ? other : first;
      const sign = order === "ascending" ? 1 : -1;
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        if (kind === "text") return [cell.querySelector("bdi").textContent, row];
        return [cell.dataset.key === "" ? null : Number(cell.dataset.key), row];
      });
      const compare = new Intl.Collator("en", { numeric: true }).compare;
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (kind === "text" ? compare(a, b) : a - b);
      });
      body.append(...keyed.map(([, row]) => row));
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
    });
  });
}
"""
