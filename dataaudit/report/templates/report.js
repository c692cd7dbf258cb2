"use strict";
const find = (query, inside = document) => inside.querySelector(query);
const all = (query, inside = document) => [...inside.querySelectorAll(query)];

function sortable(table) {
  const body = table.tBodies[0];
  all("thead th", table).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const numeric = head.classList.contains("num");
      const down = before ? before === "ascending" : numeric;
      all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => numeric ? Number(row.cells[column].dataset.value) : row.cells[column].textContent.trim();
      const compare = (a, b) => numeric ? value(a) - value(b) : value(a).localeCompare(value(b));
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * compare(a, b)));
    });
  });
}

function filterable(section) {
  const cards = all(".card", section);
  const texts = cards.map((card) => card.textContent.toLowerCase());
  const words = find("#words"), group = find("#class"), code = find("#code"), chip = find("#pair");
  const number = find("#number"), empty = find("#empty");
  let pair = null;

  function update() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    cards.forEach((card, index) => {
      const { given, suggested } = card.dataset;
      const fits = wanted.every((word) => texts[index].includes(word))
        && (!group.value || group.value === given || group.value === suggested)
        && (!code || !code.value || code.value === card.dataset.code)
        && (!pair || (pair.given === given && pair.suggested === suggested));
      card.hidden = !fits;
      shown += fits;
    });
    number.textContent = shown === cards.length ? `${shown} shown` : `${shown} of ${cards.length} shown`;
    empty.hidden = shown > 0;
    chip.hidden = !pair;
    chip.textContent = pair ? `${pair.label}  ×` : "";
  }

  words.addEventListener("input", update);
  group.addEventListener("change", update);
  if (code) code.addEventListener("change", update);
  chip.addEventListener("click", () => { pair = null; update(); });
  all(".matrix button").forEach((cell) => cell.addEventListener("click", () => {
    const { given, suggested } = cell.dataset;
    pair = { given, suggested, label: `${given} → ${suggested}` };
    words.value = "";
    group.value = "";
    if (code) code.value = "";
    update();
    section.scrollIntoView();
  }));
  find(".tools", section).hidden = false;
  update();
}

all("table.sortable").forEach(sortable);
const findings = find("#findings");
if (findings) filterable(findings);
