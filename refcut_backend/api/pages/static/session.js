// @ts-check
/** The button that ends a session. The session itself is a cookie that no script can read; a mark says that there is one. */

import { ask } from "./api.js";
import { one } from "./dom.js";

const button = one("#logout", HTMLButtonElement);
if (document.cookie.split("; ").includes("refcut_logged_in=1")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await ask("/logout", {});
    location.assign("/login");
  });
}
