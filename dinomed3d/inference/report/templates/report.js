// Names the folder of the page in the command that shows masks over scans, and sorts the table of results.
"use strict";
if (location.protocol === "file:" && location.host === "") {
  const folder = location.pathname.replace(/^\/(?=[A-Za-z]:)/, "").replace(/\/[^/]*$/, "");
  const command = document.getElementById("view-command");
  try {
    const path = decodeURIComponent(folder);
    if (command && /^[^"$`\\!]+$/.test(path)) {
      command.textContent = `dinomed3d view "${path}"`;
      document.getElementById("view-folder").remove();
    }
  } catch { /* a path that is no text stays OUT */ }
}
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
