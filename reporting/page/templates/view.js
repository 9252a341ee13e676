// Enlarging and moving the film, its window of grey values, the linked cursor, the case in the address, files to keep.

function showZoom() {
  for (const pane of document.querySelectorAll(".pane")) {
    const [x, y] = state.pan.map((share) => -100 * share * (state.zoom - 1) / state.zoom);
    pane.style.transform = `scale(${state.zoom}) translate(${x}%, ${y}%)`;
    pane.classList.toggle("large", state.zoom > 1);
  }
}

function zoomTo(zoom) {
  const nearest = Math.min(8, Math.max(1, Math.round(4 * zoom) / 4));
  change({ zoom: nearest, pan: nearest === 1 ? [0.5, 0.5] : state.pan });
}

function resetView() {
  change({ zoom: 1, pan: [0.5, 0.5], window: 100, level: 50 });
}

function setUpView() {
  state.pan = [0.5, 0.5]; // in shares of what is out of sight
  for (const name of ["window", "level"]) {
    at(name).addEventListener("input", (event) => change({ [name]: Number(event.target.value) }));
  }
  at("zoom").addEventListener("input", (event) => zoomTo(Number(event.target.value)));
  at("reset").addEventListener("click", resetView);
  at("save-picture").addEventListener("click", savePicture);
  at("save-list").addEventListener("click", saveList);
  for (const pane of document.querySelectorAll(".pane")) {
    pane.addEventListener("pointermove", (event) => {
      showCursor(pane, event);
      if (event.buttons === 1 && state.zoom > 1) drag(pane, event);
    });
    pane.addEventListener("pointerleave", () => showCursor(pane, null));
  }
  window.addEventListener("hashchange", () => {
    const found = addressed();
    if (!found) openList();
    else if (found[0] !== state.film || found[1] !== state.label) chooseCase(...found);
  });
}

function drag(pane, event) {
  const size = [pane.clientWidth, pane.clientHeight];
  const by = [event.movementX, event.movementY].map((moved, axis) => moved / (size[axis] * (state.zoom - 1)));
  state.pan = state.pan.map((share, axis) => Math.min(1, Math.max(0, share - by[axis])));
  showZoom();
}

function showCursor(pane, event) {
  // The same place of the film in the other picture.
  const frame = pane.getBoundingClientRect();
  for (const other of document.querySelectorAll(".pane")) {
    const cursor = other.querySelector(".cursor");
    cursor.hidden = event === null || other === pane || !state.beside;
    if (cursor.hidden) continue;
    cursor.style.left = `${(100 * (event.clientX - frame.left)) / frame.width}%`;
    cursor.style.top = `${(100 * (event.clientY - frame.top)) / frame.height}%`;
  }
}

function asksForCases() {
  const address = new URLSearchParams(location.hash.slice(1));
  return ["film", "label", "model", "method"].some((name) => address.has(name));
}

function showAddress() {
  if (document.readyState === "loading" && location.hash && !asksForCases()) return; // it names a part of the page
  const address = new URLSearchParams({ film: content.films[state.film], label: content.labels[state.label] });
  try {
    history.replaceState(null, "", `#${address}`);
  } catch { /* a page without an address of its own, as in a preview */ }
}

function addressed() {
  // [film, label] of the address, or undefined.
  const address = new URLSearchParams(location.hash.slice(1));
  const film = content.films.indexOf(address.get("film"));
  const label = content.labels.indexOf(address.get("label"));
  return film < 0 || label < 0 ? undefined : [film, label];
}

function savePicture() {
  // What is on show, as wide as it is stored: film, colours, outline, marks, and a line that says what it is.
  const films = [at("film"), ...(state.beside ? [at("film-beside")] : [])];
  const [width, height] = [films[0].width, films[0].height];
  const canvas = Object.assign(document.createElement("canvas"), { width: films.length * width, height: height + 56 });
  const context = canvas.getContext("2d");
  context.fillStyle = "#000000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  films.forEach((film, place) => {
    context.setTransform(1, 0, 0, 1, place * width, 0);
    context.drawImage(film, 0, 0);
    const lines = film.parentElement.querySelector(".marks");
    for (const [name, colour, thick, dash] of [
      ["under", "#000000", 4, []], ["over", content.colours.outline, 2, []], ["cut", "#ffffff", 1.5, [3, 2]],
      ["maximum", "#00ffff", 2.5, []],
    ]) {
      const path = new Path2D();
      const scaled = new DOMMatrix([width / 1000, 0, 0, height / 1000, 0, 0]);
      path.addPath(new Path2D(lines.querySelector(`.${name}`).getAttribute("d") ?? ""), scaled);
      Object.assign(context, { strokeStyle: colour, lineWidth: thick });
      context.setLineDash(dash);
      context.stroke(path);
    }
    context.fillStyle = "#ffffff";
    context.font = "16px sans-serif";
    const method = place ? state.beside : state.method;
    const model = content.models[content.methods[method].model];
    const p = model ? `, p = ${number(model.probability[state.film][state.label], 3)} of ${model.name}` : "";
    context.fillText(`${content.labels[state.label]}: ${truthOf(state.film, state.label)}${p}`, 8, height + 22, width - 16);
    context.fillText(`${content.methods[method].name}, ${state.protocol}; ${content.films[state.film]}`, 8, height + 44, width - 16);
  });
  canvas.toBlob((blob) => keep(blob, `${content.films[state.film]}_${content.labels[state.label]}.png`), "image/png");
}

function saveList() {
  const cell = (text) => `"${String(text).replace(/^[=+\-@\t\r\n]/, "'$&").replaceAll('"', '""')}"`;
  const names = ["film", "label", "truth", ...content.models.flatMap(({ name }) => [`p ${name}`, `outcome ${name}`])];
  const rows = list.rows.map(([film, label]) => [
    content.films[film], content.labels[label], truthOf(film, label),
    ...content.models.flatMap((model, place) => [
      model.probability[film][label] ?? "", outcomeOf(place, film, label).replace(/[-?]/, ""),
    ]),
  ]);
  const lines = [names, ...rows].map((row) => row.map((value) => (typeof value === "number" ? value : cell(value))));
  keep(new Blob([lines.map((line) => `${line.join(",")}\n`).join("")], { type: "text/csv" }), "cases.csv");
}

function keep(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
