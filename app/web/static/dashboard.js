// What the dashboard has beyond its HTML: it refreshes itself, says what is pointed at or focused
// in a box of its own, and lets arrow keys walk through days and hours.
"use strict";

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);

// Each mark's text: an SVG group has a <title>, a cell of the heatmap a title attribute, which is
// taken away so that the browser's own box does not come as well.
const texts = new WeakMap();

function show(mark) {
  tip.textContent = texts.get(mark);
  tip.hidden = false;
  const at = mark.getBoundingClientRect();
  const half = tip.offsetWidth / 2;
  const middle = Math.min(Math.max(at.left + at.width / 2, half + 4), document.documentElement.clientWidth - half - 4);
  tip.style.left = `${middle - half}px`;
  tip.style.top = `${at.top + window.scrollY - tip.offsetHeight - 6}px`;
}

function hide() {
  tip.hidden = true;
}

// Rows of marks, one of which can be reached with Tab; from there the arrow keys lead on.
function walk(rows) {
  if (!rows.length || !rows[0].length) return;
  rows.forEach((row, y) => row.forEach((mark, x) => {
    const title = mark.querySelector("title");
    texts.set(mark, title ? title.textContent : mark.title);
    if (title) {
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", title.textContent);
      title.remove();
    } else {
      mark.removeAttribute("title");
    }
    mark.setAttribute("tabindex", "-1");
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("pointerleave", hide);
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("blur", hide);
    mark.addEventListener("keydown", (event) => {
      const [down, right] = {
        ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
        Home: [0, -x], End: [0, row.length - 1 - x],
      }[event.key] || [0, 0];
      if (event.key === "Escape") hide();
      const next = (rows[y + down] || [])[x + right];
      if ((!down && !right) || !next) return;
      event.preventDefault();
      mark.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  }));
  const last = rows[rows.length - 1];
  (rows.length > 1 ? rows[0][0] : last[last.length - 1]).setAttribute("tabindex", "0");
}

function enliven() {
  const days = [...document.querySelectorAll(".bars g")];
  if (days.length) walk([days]);
  walk([...document.querySelectorAll(".heat tbody tr")].map((row) => [...row.querySelectorAll("td")]));
}

// Not while somebody reads through the marks, chooses something, or looks elsewhere.
function busy(report) {
  const focused = document.activeElement;
  return document.hidden || !tip.hidden || report.querySelector("details[open]") ||
    (report.contains(focused) && focused !== report) || !window.getSelection().isCollapsed;
}

async function refresh() {
  const report = document.getElementById("report");
  if (busy(report)) return;
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (answer.redirected) location.reload();  // signed out meanwhile
  if (answer.redirected || !answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = page.getElementById("report");
  if (!next || busy(report)) return;
  report.replaceWith(next);
  enliven();
}

enliven();
const seconds = Number(document.getElementById("report").dataset.refresh);
const update = () => refresh().catch(() => {});
setInterval(update, Math.max(seconds, 15) * 1000);
document.addEventListener("visibilitychange", update);
