// The administration: suggestions under fields that take a tag. Everything works without it.
"use strict";

for (const field of document.querySelectorAll("[data-suggest]")) {
  const list = document.createElement("datalist");
  list.id = `${field.id}-suggestions`;
  field.after(list);
  field.setAttribute("list", list.id);
  let waiting = 0;
  field.addEventListener("input", () => {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(async () => {
      const typed = field.value;
      const answer = await fetch(`${field.dataset.suggest}?tag=${encodeURIComponent(typed)}`);
      if (!answer.ok || field.value !== typed) return;
      const found = new DOMParser().parseFromString(await answer.text(), "text/html");
      list.replaceChildren(...[...found.querySelectorAll("option")].map((one) => new Option(one.value, one.value)));
    }, 150);
  });
}
