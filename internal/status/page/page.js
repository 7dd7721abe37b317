"use strict";
// The page is complete without this: it replaces the state every 10 seconds, and
// leaves what the reader has opened or selected as it is.
const main = document.querySelector("main"), at = document.querySelector(".at");
async function refresh() {
  if (document.hidden || !getSelection().isCollapsed) return;
  try {
    const reply = await fetch(location.pathname + location.search, { cache: "no-store" });
    if (!reply.ok) throw new Error(reply.statusText);
    const next = new DOMParser().parseFromString(await reply.text(), "text/html");
    for (const d of main.querySelectorAll("details[id]")) {
      const same = next.getElementById(d.id);
      if (same) same.open = d.open;
    }
    main.replaceChildren(...next.querySelector("main").childNodes);
    at.replaceChildren(...next.querySelector(".at").childNodes);
    at.classList.remove("lost");
  } catch {
    at.classList.add("lost");
  }
}
setInterval(refresh, 10000);
document.addEventListener("visibilitychange", refresh);
