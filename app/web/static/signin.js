// Script of the link that signs in: puts the token behind the # of the address into the form and sends
// it. The token is removed from the address, the history and the form at once.
"use strict";

function signIn() {
  const token = location.hash.slice(1);
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  const field = document.getElementById("token");
  field.value = token;
  field.form.requestSubmit();
  field.value = "";
}

addEventListener("hashchange", signIn);
signIn();
