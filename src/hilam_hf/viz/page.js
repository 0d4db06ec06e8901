"use strict";

const zoomed = document.getElementById("zoomed");

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.zoom");
  if (button) {
    const source = button.querySelector("img");
    const target = zoomed.querySelector("img");
    target.src = source.src;
    target.alt = source.alt;
    zoomed.showModal();
  } else if (event.target.closest("#zoomed")) {
    zoomed.close();
  }
});

const filter = document.getElementById("filter");

if (filter) {
  const entries = [...document.querySelectorAll("[data-search]")];
  const count = document.getElementById("filter-count");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const entry of entries) {
      entry.hidden = !words.every((word) => entry.dataset.search.includes(word));
      shown += !entry.hidden;
    }
    count.textContent = `${shown} of ${entries.length} episodes`;
  };
  filter.addEventListener("input", apply);
  apply();
}
