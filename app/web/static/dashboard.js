// Script of the dashboard's pages: refreshes the cards that have changed, says what is pointed at or
// has the focus, and moves the focus through marks with the arrow keys. The pages also work without it.
"use strict";

const tip = document.body.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));
tip.setAttribute("aria-hidden", "true");

// Positions are set through the CSSOM, which the Content-Security-Policy allows.
function place(text, at) {
  tip.textContent = text;
  tip.hidden = false;
  const half = tip.offsetWidth / 2, edge = document.documentElement.clientWidth - half - 6;
  const above = at.top > tip.offsetHeight + 70;
  tip.style.left = `${Math.max(half + 6, Math.min(at.left + at.width / 2, edge)) - half}px`;
  tip.style.top = `${scrollY + (above ? at.top - tip.offsetHeight - 6 : at.bottom + 6)}px`;
}

function hide() {
  tip.hidden = true;
}

// Keyboard navigation in rows of marks: Tab reaches one mark, the arrow keys move between marks. The
// text of each is its <title> or title attribute. Both are removed, or the browser would show it too.
function walk(rows) {
  rows.forEach((row, y) => row.forEach((mark, x) => {
    const title = mark.querySelector("title");
    const text = title ? title.textContent : mark.title;
    mark.setAttribute("aria-label", text.replaceAll("\n", ", "));
    if (title) title.remove(); else mark.removeAttribute("title");
    mark.setAttribute("tabindex", x || y ? "-1" : "0");
    const show = () => {
      const { left, width, top, bottom } = mark.getBoundingClientRect();
      // A bar is taller than its plot, which cuts it off.
      const use = mark.querySelector("use"), plot = use && use.ownerSVGElement.getBoundingClientRect();
      const bar = plot && plot.top + plot.height * parseFloat(use.getAttribute("y")) / 100;
      place(text, plot ? { left, width, top: bar, bottom: plot.bottom } : { left, width, top, bottom });
    };
    mark.addEventListener("pointerenter", show);
    mark.addEventListener("focus", show);
    mark.addEventListener("pointerleave", hide);
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
}

// The year is a few paths and a field over them. The day that is pointed at follows from the place of
// the pointer. With the keyboard the field is a slider over the days.
function readYear(year) {
  const field = year.querySelector(".days"), frame = year.querySelector(".at");
  const counts = year.dataset.counts.split(" ").map((count) => count && parseInt(count, 36)), first = Date.parse(year.dataset.first);
  const dateOf = (day) => new Date(first + day * 864e5);
  const words = (day) => [
    dateOf(day).toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric", timeZone: "UTC" }),
    `${counts[day].toLocaleString("en")} token${counts[day] === 1 ? "" : "s"}`,
  ];
  const least = counts.findIndex((count) => count !== ""), most = counts.length - 1;
  let at = most;
  const show = (day) => {
    at = Math.max(least, Math.min(day, most));
    frame.setAttribute("x", 14 + 6 * Math.floor(at / 7));
    frame.setAttribute("y", 8.5 + 6 * (at % 7));
    place(words(at).join("\n"), frame.getBoundingClientRect());
  };
  const tell = () => {
    field.setAttribute("aria-valuenow", at);
    field.setAttribute("aria-valuetext", words(at).join(", "));
  };
  const under = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(year.getScreenCTM().inverse());
    const column = Math.floor((point.x - 14) / 6), row = Math.floor((point.y - 8) / 6), day = column * 7 + row;
    return row >= 0 && row <= 6 && column >= 0 && (counts[day] ?? "") !== "" ? day : null;
  };
  const open = (day) => { location.href = year.dataset.href.replace(year.dataset.first, dateOf(day).toISOString().slice(0, 10)); };
  for (const [name, value] of Object.entries({ role: "slider", tabindex: 0, "aria-label": "Day", "aria-valuemin": least, "aria-valuemax": most })) field.setAttribute(name, value);
  tell();
  field.addEventListener("pointermove", (event) => under(event) === null ? hide() : show(under(event)));
  field.addEventListener("click", (event) => { if (under(event) !== null) open(under(event)); });
  field.addEventListener("pointerleave", hide);
  field.addEventListener("focus", () => show(at));
  field.addEventListener("blur", hide);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    if (event.key === "Enter") open(at);
    const day = {
      ArrowUp: at - 1, ArrowDown: at + 1, ArrowLeft: at - 7, ArrowRight: at + 7,
      PageUp: at - 28, PageDown: at + 28, Home: least, End: most,
    }[event.key];
    if (day === undefined) return;
    event.preventDefault();
    show(day);
    tell();
  });
}

function setUp(card) {
  card.querySelectorAll(".p").forEach((plot) => walk([[...plot.querySelectorAll(".bars > *")]]));
  card.querySelectorAll(".heat").forEach((week) => walk([...week.rows].slice(1).map((row) => [...row.querySelectorAll("td[title]")])));
  card.querySelectorAll(".year").forEach(readYear);
  card.querySelectorAll("[data-copy]").forEach((button) => { button.hidden = false; });  // copy.js
}

// A choice in a form of the page's head is sent at once.
document.querySelectorAll(".range select").forEach((select) => select.addEventListener("change", () => select.form.requestSubmit()));

// The age of the numbers counts on. They are stale after three intervals without a run.
const age = document.getElementById("age");
let countedAt = Date.now() - 1000 * Number(age ? age.dataset.age : 0);

function showAge() {
  const words = age && age.querySelector("span");
  if (!words) return;
  const seconds = Math.max(0, Math.floor((Date.now() - countedAt) / 1000));
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([least]) => seconds >= least) || [1, "s"];
  words.textContent = `${Math.floor(seconds / size)} ${unit}`;
  age.classList.toggle("stale", seconds > 3 * Number(age.dataset.interval));
}

// A refresh would disturb a user who reads a card's tooltip, is in one of its fields, or selects text.
function isInUse(card) {
  const focused = document.activeElement;
  return (card.contains(focused) && focused !== card && focused !== document.body) ||
    (!tip.hidden && card.matches(":hover")) ||
    (!getSelection().isCollapsed && card.contains(getSelection().anchorNode));
}

// Whether a form has a choice or a text that was not sent yet.
function isChanged(form) {
  return [...form.elements].some((field) => field.matches("select")
    ? [...field.options].some((option) => option.selected !== option.defaultSelected)
    : field.matches("input, textarea") && field.value !== field.defaultValue);
}

// What was typed or opened in a card is kept in the one that replaces it.
function keepState(card, next) {
  const opened = [...next.querySelectorAll("details")];
  card.querySelectorAll("details").forEach((details, place) => {
    if (opened[place]) opened[place].open = details.open;
  });
  card.querySelectorAll("form[id]").forEach((form) => {
    const other = next.querySelector(`#${form.id}`);
    if (other && isChanged(form)) other.replaceWith(form);
  });
}

// The HTML of each card, as the service sent it.
const sent = new Map();
let etag = "";
const PATIENCE = 30_000;  // ms for an answer

function cardsIn(root) {
  return [...root.querySelectorAll("[data-card]")];
}

function remember(root) {
  cardsIn(root).forEach((card) => sent.set(card.dataset.card, card.outerHTML));
}

function replaceCards(text) {
  const cards = document.getElementById("cards");
  const news = new DOMParser().parseFromString(`<div>${text}</div>`, "text/html").body.firstChild;
  const [names, others] = [cards, news].map((root) => cardsIn(root).map((card) => card.dataset.card).join());
  if (names !== others) {  // the page has other cards now, such as after the first event
    // The page without any number is left even if a command on it was copied.
    if (isInUse(cards) && !cards.querySelector("[data-card=empty]")) return false;
    sent.clear();
    remember(news);
    cards.replaceChildren(...news.childNodes);
    setUp(cards);
    return true;
  }
  let isWhole = true;
  const next = new Map(cardsIn(news).map((card) => [card.dataset.card, card]));
  for (const card of cardsIn(cards)) {
    const other = next.get(card.dataset.card), html = other.outerHTML;
    if (html === sent.get(card.dataset.card)) continue;
    if (isInUse(card)) {
      isWhole = false;
      continue;
    }
    keepState(card, other);
    sent.set(card.dataset.card, html);
    card.replaceWith(other);
    setUp(other);
  }
  return isWhole;
}

async function refresh() {
  const address = new URL(location.href);
  address.searchParams.set("live", "1");
  const headers = etag ? { "If-None-Match": etag } : {};
  const signal = AbortSignal.timeout(PATIENCE);
  const response = await fetch(address, { credentials: "same-origin", cache: "no-store", headers, signal });
  // The session has ended or is to be renewed. What was typed goes first: sending it does the same.
  if (response.redirected && ![...document.forms].some(isChanged)) location.reload();
  const seconds = response.headers.get("X-Counted-Age");
  if (seconds !== null) countedAt = Date.now() - 1000 * Number(seconds);
  showAge();
  if (response.redirected || !response.ok) return;
  // Cards that were in use are old, so the next refresh needs the whole answer.
  etag = replaceCards(await response.text()) ? response.headers.get("ETag") : "";
}

// One refresh at a time: an older answer that comes after a newer one would bring old numbers back.
let isAsking = false;

async function update() {
  if (isAsking || document.hidden) return;
  isAsking = true;
  await refresh().catch(() => {});
  isAsking = false;
}

const cards = document.getElementById("cards");
if (cards) {
  remember(cards);
  setUp(cards);
  setInterval(showAge, 1000);
  setInterval(update, Math.max(Number(age.dataset.interval), 15) * 1000);
  document.addEventListener("visibilitychange", update);
}
