// @ts-check
/** The login form: its content travels as JSON, which a page of another site cannot send. */

import { ask } from "/static/api.js";
import { one } from "/static/dom.js";

const form = one("#login");

form.addEventListener("submit", async (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  const message = one("#message");
  message.textContent = "";
  try {
    await ask("/login", Object.fromEntries(new FormData(form)));
    location.assign(form.dataset.next);
  } catch (problem) {
    message.textContent = /** @type {Error} */ (problem).message;
    message.classList.add("problem");
    form.elements.password.select();
  }
});
