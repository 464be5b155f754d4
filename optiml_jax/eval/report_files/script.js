"use strict";
// Sorting, filters and samples of the table of tasks. The state is the address behind "#":
//   sort, dir (asc | desc), q, level, category, task (open), open (all | none), view (tasks)
// so that every view can be linked. Text reaches the page through textContent only.
(() => {
  const byId = (id) => document.getElementById(id);
  const table = byId("tasks");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const tasks = rows.filter((row) => row.dataset.kind === "task");
  const headers = Array.from(table.tHead.rows[0].cells);
  const columns = new Map(
    headers.map((cell, index) => [cell.dataset.sort, { cell, index }]).filter(([name]) => name));
  const roles = headers.map((cell) => cell.dataset.sort)
    .filter((name) => ["score", "before", "after"].includes(name));
  const FEW = 40; // Tasks of a report whose categories start unfolded.
  const KEYS = ["sort", "dir", "q", "level", "category", "task", "open", "view"];

  let state = {};
  let details = null;
  let arranged = ""; // Column and direction of the rows as they stand; "" is by category.
  const toggled = new Set(); // Categories whose fold a reader changed.

  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    const made = {};
    for (const key of KEYS) made[key] = given.get(key) || "";
    if (!columns.has(made.sort)) made.sort = "";
    if (!["asc", "desc"].includes(made.dir)) made.dir = "";
    if (made.sort && !made.dir) made.dir = first(made.sort);
    return made;
  }

  function first(sort) {
    return columns.get(sort).cell.dataset.first || "desc";
  }

  function set(changes) {
    state = { ...state, ...changes };
    const told = new URLSearchParams();
    for (const key of KEYS) if (state[key]) told.set(key, state[key]);
    if (!state.sort) told.delete("dir");
    history.replaceState(null, "", "#" + told.toString());
    show();
  }

  const texts = new Map(rows.map((row) => [row, [
    row.dataset.task || "", row.cells[0].textContent, row.dataset.category,
    row.dataset.level, row.cells[1].textContent, row.cells[3].textContent,
  ].join(" ").toLowerCase()]));

  function matches(row) {
    if (state.level && row.dataset.level !== state.level) return false;
    if (state.category && row.dataset.category !== state.category) return false;
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    return words.every((word) => texts.get(row).includes(word));
  }

  function value(row, index) {
    const text = row.cells[index].dataset.v;
    if (text === undefined) return null;
    const number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text;
  }

  function sorted(list) {
    const { index } = columns.get(state.sort);
    const sign = state.dir === "desc" ? -1 : 1;
    const values = new Map(list.map((row) => [row, value(row, index)]));
    const places = new Map(list.map((row, place) => [row, place]));
    return list.slice().sort((one, two) => {
      const a = values.get(one);
      const b = values.get(two);
      if (a === null || b === null) return (a === null) - (b === null) || places.get(one) - places.get(two);
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
      return sign * order || places.get(one) - places.get(two);
    });
  }

  // Rows are moved only when their order changes: with thousands of them that takes its time.
  function arrange(wanted) {
    if (wanted === arranged) return;
    arranged = wanted;
    const order = wanted ? sorted(tasks) : rows;
    body.append(...order);
  }

  function isFlat() {
    return Boolean(state.sort) || state.view === "tasks";
  }

  const groupOf = (row) => row.dataset.level + "/" + row.dataset.category;

  function isUnfolded(group) {
    const byDefault = state.open ? state.open === "all" : tasks.length <= FEW;
    const filtered = Boolean(state.q || state.category);
    return toggled.has(group) ? !(byDefault || filtered) : byDefault || filtered;
  }

  function show() {
    const found = new Set(tasks.filter(matches));
    const flat = isFlat();
    arrange(state.sort && `${state.sort} ${state.dir}`);
    const groups = new Set();
    const parents = new Set();
    let parent = null;
    for (const row of rows) {
      if (row.dataset.kind === "parent") parent = row;
      if (row.dataset.kind !== "task" || !found.has(row)) continue;
      groups.add(row.dataset.level + "/").add(groupOf(row));
      if (row.dataset.depth === "3") parents.add(parent);
    }
    for (const old of body.querySelectorAll(".detail")) old.remove();
    table.classList.toggle("flat", flat);
    const isOpen = (row) => row.dataset.task === state.task && row.dataset.task;
    for (const row of rows) {
      const kind = row.dataset.kind;
      const group = groupOf(row);
      const unfolded = isUnfolded(group);
      row.hidden = kind === "task" ? !found.has(row)
        : flat || !(kind === "parent" ? parents.has(row) : groups.has(group));
      row.classList.toggle("folded",
        !flat && !unfolded && (kind === "task" || kind === "parent") && !isOpen(row));
      if (kind === "category") {
        row.classList.toggle("unfolded", unfolded);
        row.querySelector("button").setAttribute("aria-expanded", String(unfolded));
      }
      if (kind === "task") {
        const open = Boolean(isOpen(row)) && !row.hidden;
        row.querySelector("button").setAttribute("aria-expanded", String(open));
        if (open) row.after(detail(row));
      }
    }
    for (const [name, { cell }] of columns) {
      if (name === state.sort) cell.setAttribute("aria-sort", state.dir === "desc" ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    byId("q").value = state.q;
    byId("level").value = state.level;
    byId("category").value = state.category;
    byId("order").value = state.sort || (flat ? "view" : "");
    byId("direction").hidden = !state.sort;
    byId("direction").textContent = state.dir === "desc" ? "↓ descending" : "↑ ascending";
    byId("fold").hidden = flat;
    byId("fold").textContent = isAllOpen() ? "Fold all" : "Unfold all";
    byId("reset").hidden = !KEYS.some((key) => state[key]);
    byId("count").textContent = found.size === tasks.length
      ? `${tasks.length.toLocaleString("en")} tasks`
      : `${found.size.toLocaleString("en")} of ${tasks.length.toLocaleString("en")} tasks`;
    byId("nothing").hidden = found.size > 0;
  }

  function isAllOpen() {
    return rows.filter((row) => row.dataset.kind === "category" && !row.hidden)
      .every((row) => isUnfolded(groupOf(row)));
  }

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function block(className, text) {
    const empty = text === "";
    const node = make("div", "text " + className + (empty ? " empty" : ""), empty ? "(empty)" : text);
    node.dir = "auto";
    return node;
  }

  function list(items, more) {
    const node = make("ul");
    for (const item of items) {
      const line = make("li", "", item);
      line.dir = "auto";
      node.append(line);
    }
    if (more) node.append(make("li", "empty", `and ${more} more`));
    return node;
  }

  function heading(text, className, score) {
    const node = make("h4", className);
    node.append(make("span", "", text));
    if (score !== undefined) node.append(make("span", "", score));
    return node;
  }

  const title = (word) => word[0].toUpperCase() + word.slice(1);

  function sample(row, total, varies) {
    const node = make("article", "sample");
    const head = make("div", "head");
    const place = !varies ? "" : row.rank === 1 ? ", lowest" : row.rank === total ? ", highest" : "";
    head.append(make("span", "", `${row.rank} of ${total} by score${place}`));
    if (row.prompt_id) {
      const wording = make("span", "", "wording ");
      wording.append(make("code", "", row.prompt_id));
      head.append(wording);
    }
    const id = make("span", "", "instance ");
    id.append(make("code", "", row.id));
    head.append(id);
    node.append(head);
    const left = make("div");
    left.append(heading("Prompt"));
    const source = block("source", row.source);
    source.tabIndex = 0;
    left.append(source);
    const right = make("div");
    right.append(heading(row.references.length + row.more_references > 1 ? "Expected (any of)" : "Expected"));
    right.append(list(row.references, row.more_references));
    row.answers.forEach((answer, index) => {
      const name = roles[index] === "score" ? "Answer" : "Answer " + roles[index];
      if (!answer) {
        right.append(heading(name, roles[index]), block("", "(not evaluated)"));
        return;
      }
      const told = `${answer.score.toFixed(1)}${answer.truncated ? ", prompt cut" : ""}`;
      right.append(heading(name, roles[index], told), block("", answer.text));
    });
    if (row.options.length) {
      right.append(heading("Options"), list(row.options, row.more_options));
    }
    node.append(left, right);
    return node;
  }

  // A span over hidden columns too would add empty ones to the table and squeeze the others.
  const numShown = () => headers.filter((cell) => getComputedStyle(cell).display !== "none").length;

  function detail(row) {
    details = details || JSON.parse(byId("details").textContent);
    const found = details[row.dataset.task] || { total: 0, rows: [], baselines: [], metrics: [], p: "" };
    const line = make("tr", "detail");
    line.setAttribute("role", "row");
    const cell = make("td");
    cell.colSpan = numShown();
    cell.setAttribute("role", "cell");
    const facts = make("div", "facts");
    facts.append(make("code", "", row.dataset.task));
    for (const [name, ...scores] of [...found.metrics, ...found.baselines]) {
      const fact = make("span", "", name + " ");
      fact.append(make("b", "", scores.join(" → ")));
      facts.append(fact);
    }
    if (found.p) {
      const fact = make("span", "", "p of the difference, adjusted ");
      fact.append(make("b", "", found.p));
      facts.append(fact);
    }
    facts.append(make("span", "", found.rows.length
      ? `${found.rows.length} of ${found.total} samples shown, from the lowest to the highest score`
      : "no samples of this task are in the report"));
    const close = make("button", "close", "Close");
    close.type = "button";
    close.addEventListener("click", () => toggle(row));
    facts.append(close);
    cell.append(facts);
    const scores = found.rows.map((one) => one.answers.findLast((answer) => answer).score);
    const varies = scores[0] !== scores[scores.length - 1];
    for (const one of found.rows) cell.append(sample(one, found.total, varies));
    line.append(cell);
    line.addEventListener("keydown", (event) => {
      if (event.key === "Escape") toggle(row);
    });
    return line;
  }

  function toggle(row) {
    const name = row.dataset.task;
    set({ task: state.task === name ? "" : name });
    row.querySelector("button").focus({ preventScroll: state.task === name });
  }

  function sortBy(name) {
    if (state.sort !== name) set({ sort: name, dir: first(name) });
    else if (state.dir === first(name)) set({ dir: state.dir === "desc" ? "asc" : "desc" });
    else set({ sort: "", dir: "" });
  }

  document.documentElement.classList.add("js");
  for (const [name, { cell }] of columns) {
    const button = make("button", "", cell.textContent);
    button.type = "button";
    button.title = `Sort by ${cell.textContent.toLowerCase()}`;
    button.addEventListener("click", () => sortBy(name));
    const option = make("option", "", `by ${cell.textContent.toLowerCase()}`);
    option.value = name;
    byId("order").append(option);
    cell.dataset.title = cell.textContent;
    cell.replaceChildren(button);
  }
  const all = make("option", "", "tasks only");
  all.value = "view";
  byId("order").options[0].after(all);

  body.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const row = event.target.closest("tr");
    if (!button || !row) return;
    if (button.classList.contains("open")) toggle(row);
    if (button.classList.contains("toggle")) {
      const group = groupOf(row);
      if (!toggled.delete(group)) toggled.add(group);
      show();
      button.focus();
    }
  });
  byId("q").addEventListener("input", (event) => set({ q: event.target.value }));
  byId("level").addEventListener("change", (event) => set({ level: event.target.value }));
  byId("category").addEventListener("change", (event) => set({ category: event.target.value }));
  byId("order").addEventListener("change", (event) => {
    const name = event.target.value;
    if (name === "view" || !name) set({ sort: "", dir: "", view: name && "tasks" });
    else set({ sort: name, dir: first(name) });
  });
  byId("direction").addEventListener("click", () => set({ dir: state.dir === "desc" ? "asc" : "desc" }));
  byId("fold").addEventListener("click", () => {
    const open = isAllOpen() ? "none" : "all";
    toggled.clear();
    set({ open });
  });
  byId("reset").addEventListener("click", () => {
    toggled.clear();
    set(Object.fromEntries(KEYS.map((key) => [key, ""])));
  });
  document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  // Links to sections leave the state of the table, which is also kept behind "#", as it is.
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const target = document.querySelector(link.getAttribute("href"));
      target.scrollIntoView();
      target.tabIndex = -1;
      target.focus({ preventScroll: true });
    });
  }
  function apply() {
    state = read();
    toggled.clear();
    show();
    const open = state.task && tasks.find((row) => row.dataset.task === state.task);
    if (open) open.scrollIntoView({ block: "start" });
  }
  window.addEventListener("hashchange", apply);
  window.addEventListener("resize", () => {
    for (const cell of body.querySelectorAll(".detail > td")) cell.colSpan = numShown();
  });
  // Print shows what is folded away on the screen.
  const closed = new Set();
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) {
      closed.add(one);
      one.open = true;
    }
  });
  window.addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
    closed.clear();
  });
  apply();
})();
