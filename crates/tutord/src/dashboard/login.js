// The log-in form and the button that logs out.
"use strict";
(() => {
  const form = document.getElementById("log-in");
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const refused = document.getElementById("refused");
    refused.textContent = "";
    try {
      const answer = await fetch("/api/auth/login", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(Object.fromEntries(new FormData(form))),
      });
      if (!answer.ok) {
        refused.textContent = (await answer.json()).error.message;
      } else if (location.pathname === "/ops/login") {
        location.assign("/ops");
      } else {
        location.reload();
      }
    } catch {
      refused.textContent = "The server does not respond.";
    }
  });
  const out = document.getElementById("log-out");
  if (out) {
    out.hidden = false;
    out.addEventListener("click", async () => {
      const token = document.cookie.match(/(?:^|; )csrf_token=([^;]*)/)?.[1] ?? "";
      await fetch("/api/auth/logout", { method: "POST", headers: { "x-csrf-token": token } });
      location.assign("/ops/login");
    });
  }
})();
