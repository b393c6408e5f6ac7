// Copies commands to the clipboard. A summary copies the command that it opens; a command that is
// always visible gets a button. Without this script the commands are selected by hand.
"use strict";
const said = document.body.appendChild(document.createElement("p"));
said.className = "hidden";
said.setAttribute("role", "status");

function selectText(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
}

// Only pages that come over TLS or from this computer may write to the clipboard. On other pages
// the browser copies what is selected.
async function copy(element) {
  const written = navigator.clipboard && navigator.clipboard.writeText(element.textContent);
  if (written && await written.then(() => true, () => false)) return true;
  selectText(element);
  return document.execCommand("copy");
}

async function copyFor(control, element) {
  const text = await copy(element) ? "Copied" : "Selected; copy it with the keyboard";
  control.dataset.said = said.textContent = text;
  setTimeout(() => { delete control.dataset.said; said.textContent = ""; }, 2500);
}

// The command of a control: the element whose id is the value of data-copy, or the <pre> beside it.
document.addEventListener("click", (event) => {
  const control = event.target.closest("[data-copy]");
  if (!control) return;
  const { parentElement: parent, dataset: { copy: id } } = control;
  if (control.matches("summary") && parent.open) return;  // this click closes it
  copyFor(control, id ? document.getElementById(id) : parent.querySelector("pre"));
});

for (const command of document.querySelectorAll("pre.command")) {
  const box = document.createElement("div");
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Copy" });
  box.className = "copied";
  button.className = "button plain";
  button.dataset.copy = "";
  command.replaceWith(box);
  box.append(command, button);
}
