// @ts-check
/** The login form: its content travels as JSON, which a page of another site cannot send. */

import { ask } from "./api.js";
import { one } from "./dom.js";

const form = one("#login", HTMLFormElement);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = one("#message");
  message.textContent = "";
  try {
    await ask("/login", Object.fromEntries(new FormData(form)));
    location.assign(form.dataset.next ?? "/");
  } catch (problem) {
    message.textContent = problem instanceof Error ? problem.message : String(problem);
    message.classList.add("problem");
    one("[name=password]", HTMLInputElement).select();
  }
});
