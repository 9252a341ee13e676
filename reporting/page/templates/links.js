// Rows and columns of the tables that open their cases: links with the label, model or method in the address.

function linkTables() {
  const methods = new Map(METHODS.map((method) => [content.methods[method].name, method]));
  const models = new Set(content.models.map((model) => model.name));
  for (const region of document.querySelectorAll("main .wide[aria-labelledby]")) {
    const table = region.getAttribute("aria-labelledby");
    const protocol = content.protocols.find((name) => table.endsWith(`_${name}`));
    const of = { ...(protocol ? { protocol } : {}), ...(table === "comparison" ? { disagree: "1" } : {}) };
    for (const head of region.querySelectorAll('th[scope="row"], thead th')) {
      const text = head.textContent.trim();
      const label = content.rows[text] ?? content.rows[text.replace(/(?: \([\d, ]+ films\)| \(\*\)|, positive)$/, "")];
      const method = methods.get(text.replace(/ †$/, ""));
      if (label) linkTo(head, { label, ...of });
      else if (method && protocol) linkTo(head, { method, ...of });
      else if (models.has(text)) linkTo(head, { model: text });
    }
  }
}

function linkTo(head, address) {
  const link = Object.assign(document.createElement("a"), { href: `#${new URLSearchParams(address)}` });
  link.title = `Opens the cases: ${Object.values({ ...address, disagree: address.disagree && "models disagree" })
    .filter(Boolean).join(", ")}`;
  link.append(...head.childNodes);
  head.append(link);
}

function openList() {
  // An address without a film names a part of the list: its filters are set and its first case is opened.
  const address = new URLSearchParams(location.hash.slice(1));
  const label = content.labels.indexOf(address.get("label"));
  const model = content.models.findIndex(({ name }) => name === address.get("model"));
  const method = METHODS.find((name) => name === address.get("method"));
  if (address.has("film") || (label < 0 && model < 0 && !method)) return false;
  const explains = method ? content.methods[method].model : null;
  state.model = model >= 0 ? model : explains ?? state.model;
  state.protocol = content.protocols.find((name) => name === address.get("protocol")) ?? state.protocol;
  state.method = method ?? (model >= 0 ? methodOf(model) ?? state.method : state.method);
  at("filter-model").value = String(state.model);
  at("filter-label").value = label < 0 ? "" : String(label);
  at("filter-disagree").checked = address.has("disagree");
  at("filter-pictures").checked = false;
  for (const id of ["filter-outcome", "filter-text"]) at(id).value = "";
  refreshList();
  const mapped = ([film, of]) => pictured.has(film) && mapOf(picturesOf(film), state.protocol, state.method, of);
  const first = list.rows.find(mapped) ?? list.rows[0];
  if (first) chooseCase(...first);
  at("cases").scrollIntoView();
  list.table.focus({ preventScroll: true });
  return true;
}
