"use strict";
// Tables that sort by a click on a heading, filters over their rows, pictures that enlarge. Without scripts the page
// shows all of it, unsorted.

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const numbers = head.dataset.type === "number";
      // Numbers start with the largest, texts with A; a second click turns the order round.
      const before = head.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : numbers;
      const key = row => {
        const cell = row.cells[column], value = cell.dataset.v ?? cell.textContent.trim();
        return numbers ? (value === "" ? NaN : Number(value)) : value.toLowerCase();
      };
      const sign = descending ? -1 : 1;
      const rows = [...body.rows].map(row => [key(row), row]).sort(([a], [b]) => {
        const none = (a !== a || a === "") - (b !== b || b === "");  // what is unknown stays at the end
        return none || (a < b ? -sign : a > b ? sign : 0);
      });
      body.append(...rows.map(([, row]) => row));
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    });
  });
}

for (const form of document.querySelectorAll("form.controls")) {
  const rows = [...document.getElementById(form.dataset.table).tBodies[0].rows];
  const texts = rows.map(row => row.textContent.toLowerCase());
  const selects = [...form.querySelectorAll("select")], output = form.querySelector("output");
  const apply = () => {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const keep = words.every(word => texts[i].includes(word)) &&
        selects.every(({name, value}) => !value || row.dataset[name].split(" ").includes(value));
      row.hidden = !keep;
      shown += keep;
    });
    output.textContent = shown === rows.length ? `${shown} photographs` : `${shown} of ${rows.length} photographs`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", event => event.preventDefault());
  apply();
}

const zoom = document.getElementById("zoom");
document.addEventListener("click", event => {
  if (event.target.matches(".case img, .tiny img")) {
    const [image, text] = zoom.children;
    image.src = event.target.src;
    image.alt = text.textContent = event.target.alt;
    zoom.showModal();
  } else if (zoom.open) {
    zoom.close();
  }
});
