// Dashboard script: refreshes the report, shows tooltips, and moves the focus through days and
// hours with the arrow keys. The page also works without it.
"use strict";

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);

// Each mark's text, from an SVG group's <title> or a heatmap cell's title attribute. Both are
// removed from the page, or the browser would show its own tooltip too.
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

// Keyboard navigation in rows of marks: Tab reaches one mark, the arrow keys move between marks.
function addNavigation(rows) {
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

function setUpReport() {
  const days = [...document.querySelectorAll(".bars g")];
  if (days.length) addNavigation([days]);
  addNavigation([...document.querySelectorAll(".heat tbody tr")].map((row) => [...row.querySelectorAll("td")]));
}

// A refresh would disturb a user who reads a tooltip, fills in a form or selects text. It is useless
// in a hidden tab.
function isInUse(report) {
  const focused = document.activeElement;
  return document.hidden || !tip.hidden || report.querySelector("details[open]") ||
    (report.contains(focused) && focused !== report) || !window.getSelection().isCollapsed;
}

// Whether a form has a choice or a text that was not sent yet.
function isChanged(form) {
  return [...form.elements].some((field) => field.matches("select")
    ? [...field.options].some((option) => option.selected !== option.defaultSelected)
    : field.matches("input") && field.value !== field.defaultValue);
}

// A form with changes stays on the page, in the place of the new one.
function keepForms(report, next) {
  for (const form of report.querySelectorAll("form[id]")) {
    const place = next.querySelector(`#${form.id}`);
    if (place && isChanged(form)) place.replaceWith(form);
  }
}

async function refresh() {
  const report = document.getElementById("report");
  if (isInUse(report)) return;
  const response = await fetch(location.href, { credentials: "same-origin" });
  if (response.redirected) location.reload();  // the session has ended
  if (response.redirected || !response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const next = page.getElementById("report");
  if (!next || isInUse(report)) return;
  keepForms(report, next);
  report.replaceWith(next);
  setUpReport();
}

setUpReport();
const seconds = Number(document.getElementById("report").dataset.refresh);
const update = () => refresh().catch(() => {});
setInterval(update, Math.max(seconds, 15) * 1000);
document.addEventListener("visibilitychange", update);
