// Search in the API reference: hides the parts of the page that do not have all words.
"use strict";
const form = document.getElementById("search");
const field = document.getElementById("q");
const found = document.getElementById("found");
const parts = [...document.querySelectorAll("[data-part]")];
const texts = parts.map((part) => part.textContent.toLowerCase());

const linkTo = (part) => document.querySelector(`.contents a[href="#${part.getAttribute("aria-labelledby")}"]`);

function search() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  parts.forEach((part, at) => {
    part.hidden = !words.every((word) => texts[at].includes(word));
    const link = linkTo(part);
    if (link) link.parentElement.hidden = part.hidden;
  });
  for (const section of document.querySelectorAll("main > section:not([data-part])")) {
    section.hidden = !section.querySelector("[data-part]:not([hidden])");
    linkTo(section).parentElement.hidden = section.hidden;
  }
  const shown = parts.filter((part) => !part.hidden);
  found.textContent = words.length ? `${shown.length} of ${parts.length} parts have ${words.length > 1 ? "all words" : "it"}` : "";
  return shown;
}

function clear() {
  field.value = "";
  search();
}

field.addEventListener("input", search);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const [first] = search();
  if (!first) return;
  const heading = document.getElementById(first.getAttribute("aria-labelledby"));
  heading.tabIndex = -1;
  heading.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target === field) clear();
  if (event.key !== "/" || event.target === field || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  field.focus();
});
// A link to a part that the search has hidden shows the whole page again.
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  const target = link && document.getElementById(link.hash.slice(1));
  if (target && target.closest("[hidden]")) clear();
});
form.hidden = false;
if (field.value) search();  // the browser has kept it
