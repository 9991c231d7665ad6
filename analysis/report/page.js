"use strict";
/* Sorts tables by a column, resolves the links to runs, and marks wide tables and the current section. */

const NUMBER = /^[<>±†\s]*([+\-−]?(?:\d[\d,]*)?\.?\d+(?:e[+-]?\d+)?)/i;

/** Return the first number of a cell's text, an interval's lower end, or NaN. */
function numberOf(text) {
  const found = NUMBER.exec(text);
  return found ? Number(found[1].replace(/,/g, "").replace("−", "-")) : NaN;
}

/** Sort the rows of a table's first body; cells without a value come last. */
function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [row, row.cells[column].textContent.trim()]);
  const filled = rows.filter(([, text]) => text !== "" && text !== "–");
  const numeric = filled.filter(([, text]) => !Number.isNaN(numberOf(text))).length * 2 > filled.length;
  const value = (text) => {
    if (text === "" || text === "–") return null;
    if (!numeric) return text;
    if (text === "highest") return 0;  // the difference of the highest mean from itself
    const number = numberOf(text);
    return Number.isNaN(number) ? null : number;
  };
  const compare = ([, a], [, b]) => {
    const [first, second] = [value(a), value(b)];
    if (first === null || second === null) return (first === null) - (second === null);
    const order = numeric ? first - second : first.localeCompare(second, "en", { numeric: true });
    return direction * order;
  };
  rows.sort(compare).forEach(([row]) => body.append(row));
  table.classList.add("sorted");
}

for (const table of document.querySelectorAll("table")) {
  const heads = table.tHead ? [...table.tHead.rows[0].cells] : [];
  if (table.tBodies.length === 0 || table.tBodies[0].rows.length < 2 || table.closest("#needs")) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.title = "sort";
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      sortBy(table, column, falling ? -1 : 1);
    });
  });
}

/* Relative links belong to the server. MLflow shows the page as a blob, whose address names the server's origin, in a
   frame without leave to open windows or to leave the page: there a link opens with Ctrl or the middle button. */
const inMlflow = location.protocol === "blob:";
if (inMlflow) document.querySelectorAll("a.file").forEach((link) => link.removeAttribute("href"));
for (const link of document.querySelectorAll('a.run[href^="./"]')) {
  if (inMlflow) {
    link.href = new URL(link.getAttribute("href"), new URL(location.pathname).origin + "/").href;
    link.target = "_blank";
  } else if (location.protocol === "file:") {
    link.removeAttribute("href");
    document.querySelectorAll(".local").forEach((note) => { note.hidden = false; });
  }
}

/* A container that scrolls sideways says so and can be scrolled with the keyboard. */
function markWide() {
  for (const box of document.querySelectorAll(".scroll")) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("wide", wide);
    const hint = box.previousElementSibling;
    if (hint && hint.className === "hint") {
      hint.hidden = !wide;
    } else if (wide) {
      const text = document.createElement("span");
      text.className = "hint";
      text.textContent = "more columns to the right: scroll sideways →";
      box.before(text);
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", "table, scrolls sideways");
    }
  }
}
markWide();
addEventListener("resize", markWide);
document.addEventListener("toggle", markWide, true);

const folded = () => document.querySelectorAll("details:not([open])");
let opened = [];
addEventListener("beforeprint", () => { opened = [...folded()]; opened.forEach((part) => { part.open = true; }); });
addEventListener("afterprint", () => { opened.forEach((part) => { part.open = false; }); });

const entries = [...document.querySelectorAll("nav a")];
const targets = entries.map((link) => document.getElementById(link.hash.slice(1)));
function markSection() {
  let current = 0;
  targets.forEach((target, index) => { if (target && target.getBoundingClientRect().top < 120) current = index; });
  const chapter = entries[current].closest("nav > ul > li").querySelector("a");
  entries.forEach((link, index) => link.classList.toggle("here", index === current || link === chapter));
}
markSection();
addEventListener("scroll", markSection, { passive: true });
