// The list of all films and labels: filters, sorting, and only the rows in sight as elements.

const ROW_HEIGHT = 32;
const list = {
  frame: document.getElementById("list"),
  table: document.getElementById("list-table"),
  body: document.getElementById("list-body"),
  rows: [],
  sort: { key: "probability", down: true },
};

const COLUMNS = {
  film: { name: "Film", value: (f) => content.films[f], text: (f) => shortName(content.films[f]) },
  label: { name: "Label", value: (f, l) => content.labels[l], text: (f, l) => content.labels[l] },
  probability: {
    name: "p", hint: "predicted probability of the label", value: (f, l) => content.models[state.model].probability[f][l],
    text: (f, l) => number(COLUMNS.probability.value(f, l), 3),
  },
  truth: {
    name: "Truth", value: (f, l) => content.truth[f][l], text: (f, l) => truthOf(f, l),
  },
  outcome: {
    name: "Outcome", hint: "p against the threshold that Youden’s index chose on validation films", value: (f, l) => outcomeOf(state.model, f, l),
    text: (f, l) => COLUMNS.outcome.value(f, l).replace(/[-?]/, DASH),
  },
  hit: {
    name: "Hit", hint: `whether the map’s maximum lies in the ${content.outline}`, value: (f, l) => listedScore("hit", f, l),
    text: (f, l) => ({ 1: "hit", 0: "miss" })[COLUMNS.hit.value(f, l)] ?? DASH,
  },
  iou: {
    name: "IoU", hint: `${content.outline} and map above its threshold: overlap over union`,
    value: (f, l) => listedScore("iou", f, l), text: (f, l) => number(COLUMNS.iou.value(f, l), 2),
  },
};

function shortName(film) {
  // CheXpert's names without their words: "64797 s1 v2 frontal"; others as they are.
  return film.replace(/^patient(\d+)_study(\d+)_view(\d+)_/, "$1 s$2 v$3 ");
}

function listedScore(kind, film, label) {
  // Of a map of the model whose p and outcome stand in the row: a row is about one network.
  const method = methodOf(state.model);
  return method === undefined ? null : scoreOf(kind, film, label, state.protocol, method);
}

function listedScoresText() {
  const method = methodOf(state.model);
  const model = content.models[state.model].name;
  return method === undefined
    ? `p and outcome of ${model}, of which there are no maps.`
    : `p and outcome of ${model}; hit and IoU of its ${content.methods[method].name} maps, ${state.protocol} protocol.`;
}

function filteredRows() {
  const chosen = (id) => document.getElementById(id).value;
  const [label, outcome] = [chosen("filter-label"), chosen("filter-outcome")];
  const words = chosen("filter-text").toLowerCase().split(/\s+/).filter(Boolean);
  const onlyPictures = document.getElementById("filter-pictures").checked;
  const onlyApart = document.getElementById("filter-disagree").checked;
  const rows = [];
  for (let f = 0; f < content.films.length; f += 1) {
    if (onlyPictures && !pictured.has(f)) continue;
    for (let l = 0; l < content.labels.length; l += 1) {
      if (label !== "" && Number(label) !== l) continue;
      if (onlyApart && !disagree(f, l)) continue;
      if (outcome && outcomeOf(state.model, f, l) !== outcome) continue;
      const text = words.length ? `${content.films[f]} ${content.paths[f]} ${content.labels[l]}`.toLowerCase() : "";
      if (words.every((word) => text.includes(word))) rows.push([f, l]);
    }
  }
  return rows;
}

function disagree(film, label) {
  // Whether one model calls what another does not.
  const outcomes = content.models.map((_, model) => outcomeOf(model, film, label));
  const calls = new Set(outcomes.filter((outcome) => !"-?".includes(outcome)).map((outcome) => outcome[1]));
  return calls.size > 1;
}

function sortRows(rows) {
  // What is undefined comes last either way; ties stay in the order of films and labels, for sorting is stable.
  const { key, down } = list.sort;
  const keyed = rows.map(([f, l]) => ({ row: [f, l], value: COLUMNS[key].value(f, l) }));
  keyed.sort((a, b) => {
    if (a.value === b.value) return 0;
    if (a.value === null) return 1;
    if (b.value === null) return -1;
    return (a.value < b.value ? -1 : 1) * (down ? -1 : 1);
  });
  return keyed.map((item) => item.row);
}

function refreshList() {
  list.rows = sortRows(filteredRows());
  const count = list.rows.length;
  document.getElementById("list-count").textContent =
    `${count.toLocaleString("en")} of ${(content.films.length * content.labels.length).toLocaleString("en")} cases`;
  document.getElementById("list-scores").textContent = listedScoresText();
  list.table.setAttribute("aria-rowcount", String(count + 1));
  for (const head of document.querySelectorAll("#list-head th")) {
    const sorted = head.dataset.key === list.sort.key;
    head.setAttribute("aria-sort", sorted ? (list.sort.down ? "descending" : "ascending") : "none");
    head.querySelector("span").textContent = sorted ? (list.sort.down ? " ▼" : " ▲") : "";
  }
  showRows();
}

function showRows() {
  const first = Math.max(0, Math.floor(list.frame.scrollTop / ROW_HEIGHT) - 5);
  const last = Math.min(list.rows.length, first + Math.ceil(list.frame.clientHeight / ROW_HEIGHT) + 10);
  const rows = list.rows.slice(first, last).map(([film, label], i) => rowElement(film, label, first + i));
  list.body.replaceChildren(space(first), ...rows, space(list.rows.length - last));
  const current = list.body.querySelector('[aria-selected="true"]');
  if (current) list.table.setAttribute("aria-activedescendant", current.id);
  else list.table.removeAttribute("aria-activedescendant");
}

function space(rows) {
  const element = document.createElement("tr");
  element.className = "space";
  element.setAttribute("aria-hidden", "true");
  element.style.height = `${rows * ROW_HEIGHT}px`;
  return element;
}

function rowElement(film, label, place) {
  const element = document.createElement("tr");
  element.id = `case-${film}-${label}`;
  element.setAttribute("role", "row");
  element.setAttribute("aria-rowindex", String(place + 2));
  element.setAttribute("aria-selected", String(film === state.film && label === state.label));
  for (const column of Object.values(COLUMNS)) {
    const cell = document.createElement("td");
    cell.setAttribute("role", "gridcell");
    cell.textContent = column.text(film, label);
    element.append(cell);
  }
  element.title = `${content.labels[label]}: ${content.films[film]}`;
  element.addEventListener("click", () => chooseCase(film, label));
  return element;
}

function currentPlace() {
  return list.rows.findIndex(([film, label]) => film === state.film && label === state.label);
}

function stepCase(steps) {
  if (!list.rows.length) return;
  const place = currentPlace();
  const next = place < 0 ? 0 : Math.min(Math.max(place + steps, 0), list.rows.length - 1);
  chooseCase(...list.rows[next]);
}

function scrollToCurrent() {
  const place = currentPlace();
  if (place < 0) return;
  const head = list.table.tHead.offsetHeight;
  const [top, room] = [place * ROW_HEIGHT, list.frame.clientHeight - head - ROW_HEIGHT];
  if (top < list.frame.scrollTop) list.frame.scrollTop = top;
  else if (top > list.frame.scrollTop + room) list.frame.scrollTop = top - room;
}

function listKey(event) {
  const page = Math.max(1, Math.floor(list.frame.clientHeight / ROW_HEIGHT) - 2);
  const steps = {
    ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -list.rows.length, End: list.rows.length,
  };
  if (!(event.key in steps) || event.target !== list.table) return;
  event.preventDefault();
  stepCase(steps[event.key]);
}

function setUpList() {
  for (const [key, column] of Object.entries(COLUMNS)) {
    const head = document.createElement("th");
    head.scope = "col";
    head.dataset.key = key;
    const button = document.createElement("button");
    button.type = "button";
    if (column.hint) button.title = column.hint;
    button.append(column.name, document.createElement("span"));
    button.addEventListener("click", () => {
      list.sort = { key, down: list.sort.key === key ? !list.sort.down : !["film", "label"].includes(key) };
      list.frame.scrollTop = 0;
      refreshList();
    });
    head.append(button);
    document.getElementById("list-head").append(head);
  }
  list.frame.addEventListener("scroll", showRows, { passive: true });
  list.table.addEventListener("keydown", listKey);
  for (const id of ["filter-label", "filter-outcome", "filter-text", "filter-pictures", "filter-disagree"]) {
    document.getElementById(id).addEventListener("input", () => {
      list.frame.scrollTop = 0;
      refreshList();
    });
  }
}
