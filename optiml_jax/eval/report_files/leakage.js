"use strict";
// Sorting, search and evidence of the table of pairs. Text reaches the page through textContent only.
(() => {
  const byId = (id) => document.getElementById(id);
  const { pairs, verdicts } = JSON.parse(byId("data").textContent);
  const table = byId("pairs");
  const body = table.tBodies[0];
  const headers = Array.from(table.tHead.rows[0].cells);
  const labels = headers.map((cell) => cell.textContent);
  const STEP = 200;
  const hasNear = headers.some((cell) => cell.dataset.sort === "near_duplicate_fraction");
  const texts = new Map(pairs.map((pair) => [pair, [
    pair.train, pair.eval, pair.train_category, pair.eval_category, ...pair.train_sources, ...pair.eval_sources,
  ].join(" ").toLowerCase()]));
  let shown = STEP;
  let sort = "";
  let isDown = true;

  function make(name, text, className) {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  // A name that may be broken after its underscores.
  function named(element, text) {
    text.split("_").forEach((part, number) => {
      if (number) element.append("_", document.createElement("wbr"));
      element.append(part);
    });
    return element;
  }

  function percent(fraction) {
    return (100 * fraction).toFixed(fraction >= 0.1 ? 1 : 2);
  }

  function found() {
    const words = byId("q").value.toLowerCase().split(/\s+/).filter(Boolean);
    const level = byId("level").value;
    const verdict = byId("verdict").value;
    const kept = pairs.filter((pair) =>
      (!level || pair.eval_level === level) && (!verdict || pair.verdict === verdict) &&
      words.every((word) => texts.get(pair).includes(word)));
    if (!sort) return kept;
    const sign = isDown ? -1 : 1;
    return kept.sort((one, two) => {
      const a = one[sort];
      const b = two[sort];
      return sign * (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en"));
    });
  }

  function row(pair) {
    const made = make("tr", undefined, "pair");
    made.setAttribute("role", "row");
    const first = make("th");
    first.scope = "row";
    const open = named(make("button", undefined, "open"), pair.train);
    open.type = "button";
    open.setAttribute("aria-expanded", "false");
    open.addEventListener("click", () => toggle(made, pair, open));
    first.append(open, make("small", pair.train_category));
    const second = named(make("td"), pair.eval);
    second.append(make("small", `${pair.eval_category}, ${pair.eval_level.replaceAll("_", " ")}`));
    made.append(first, second, make("td", percent(pair.fraction), "num"), make("td", percent(pair.bare_fraction), "num"));
    if (hasNear) made.append(make("td", percent(pair.near_duplicate_fraction), "num"));
    made.append(make("td", pair.num_eval.toLocaleString("en"), "num"), make("td", verdicts[pair.verdict], pair.verdict));
    // On a narrow screen rows are cards, and each number has its name.
    Array.from(made.cells).forEach((cell, number) => {
      cell.setAttribute("role", number ? "cell" : "rowheader");
      cell.dataset.label = labels[number];
    });
    return made;
  }

  function toggle(under, pair, open) {
    const isOpen = open.getAttribute("aria-expanded") === "true";
    open.setAttribute("aria-expanded", String(!isOpen));
    if (isOpen) {
      under.nextElementSibling.remove();
      return;
    }
    const list = make("dl");
    const tell = (name, text) => list.append(make("dt", name), make("dd", text));
    if (pair.shared) {
      tell("Shared", `“${pair.shared.gram}”`);
      tell("Training example", pair.shared.train_example);
      tell("Evaluation example", pair.shared.eval_example);
    }
    tell("Sequences", `${pair.count} of ${pair.num_eval}, ${pair.grams_per_example.toFixed(1)} shared grams each`);
    tell("Instances", `${pair.bare_count} of ${pair.num_eval}`);
    if (pair.num_whole || pair.num_too_short) {
      tell("Shorter than a gram", `${pair.num_whole} compared by their whole input, ${pair.num_too_short} too short to compare`);
    }
    if (pair.near_duplicate) {
      const near = pair.near_duplicate;
      tell("Near-duplicates", `${pair.near_duplicates} of ${pair.num_eval}, e.g. ${near.train_example} and ${near.eval_example} (Jaccard ${near.jaccard.toFixed(2)})`);
    }
    tell("Data sets", `${pair.train_sources.join(", ") || "not told"}; evaluated: ${pair.eval_sources.join(", ") || "not told"}`);
    const cell = make("td", undefined, "evidence");
    cell.colSpan = headers.length;
    cell.append(list);
    cell.setAttribute("role", "cell");
    const made = make("tr", undefined, "detail");
    made.setAttribute("role", "row");
    made.append(cell);
    under.after(made);
  }

  function show() {
    const kept = found();
    body.replaceChildren(...kept.slice(0, shown).map(row));
    const number = (value) => value.toLocaleString("en");
    const all = `${number(pairs.length)} ${pairs.length === 1 ? "pair" : "pairs"}`;
    byId("count").textContent = kept.length === pairs.length ? all : `${number(kept.length)} of ${all}`;
    byId("more").hidden = kept.length <= shown;
    for (const cell of headers) {
      if (cell.dataset.sort === sort) cell.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  function refresh() {
    shown = STEP;
    show();
  }

  for (const cell of headers) {
    const button = make("button", cell.textContent);
    button.type = "button";
    button.addEventListener("click", () => {
      const name = cell.dataset.sort;
      const startsDown = cell.classList.contains("num");
      if (sort !== name) [sort, isDown] = [name, startsDown];
      else if (isDown === startsDown) isDown = !isDown;
      else sort = "";
      refresh();
    });
    cell.replaceChildren(button);
  }
  byId("q").addEventListener("input", refresh);
  for (const id of ["level", "verdict"]) byId(id).addEventListener("change", refresh);
  byId("reset").addEventListener("click", () => {
    for (const id of ["q", "level", "verdict"]) byId(id).value = "";
    sort = "";
    refresh();
  });
  byId("more").addEventListener("click", () => {
    shown += STEP;
    show();
  });
  document.querySelector("form.tools").addEventListener("submit", (event) => event.preventDefault());
  document.documentElement.classList.add("js");
  show();
})();
