
"use strict";
(() => {
  const bar = document.getElementById("filter");
  const text = document.getElementById("filter-text");
  const card = document.getElementById("filter-card");
  const count = document.getElementById("filter-count");
  const buttons = [...bar.querySelectorAll("button")];
  const apply = () => {
    const words = text.value.toLowerCase();
    const chosen = buttons.filter((button) => button.getAttribute("aria-pressed") === "true").map((button) => button.value);
    const fits = (item) =>
      (!chosen.length || chosen.includes(item.dataset.verdict)) && (!card.value || item.dataset.runner === card.value) &&
      (!words || item.dataset.text.toLowerCase().includes(words));
    let shown = 0;
    for (const cell of document.querySelectorAll("td[data-verdict]")) {
      const fit = fits(cell);
      cell.classList.toggle("faded", !fit);
      shown += fit ? 1 : 0;
    }
    for (const row of document.querySelectorAll(".compatibility tbody tr")) {
      row.classList.toggle("hidden", ![...row.querySelectorAll("td[data-verdict]")].some(fits));
    }
    for (const item of document.querySelectorAll("tr[data-verdict], .section[data-verdict], li[data-verdict]")) {
      item.classList.toggle("hidden", !fits(item));
    }
    const active = words || chosen.length || card.value;
    count.textContent = active ? `cells shown: ${shown}` : "";
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "true" ? "false" : "true");
      apply();
    });
  }
  text.addEventListener("input", apply);
  card.addEventListener("change", apply);
  bar.hidden = false;
  for (const button of navigator.clipboard ? document.querySelectorAll("button.copy") : []) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.closest(".section").querySelector("pre.command").textContent);
        button.textContent = "copied";
      } catch {
        button.textContent = "not allowed here";
      }
    });
    button.hidden = false;
  }
})();
