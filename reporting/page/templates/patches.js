// The patch grid: what each patch adds to the logit, by pointer and by arrow keys, and the bar of what they add up to.

const patchGrid = document.getElementById("patches");
const patchReadout = document.getElementById("patch-readout");

function sharesOf(pictures, label) {
  // (k, k): what each patch contributes; null where it is not known. The file holds contributions times their number.
  const logits = pictures?.patches[content.labels[label]];
  return logits ? logits.map((row) => row.map((logit) => logit / (row.length * logits.length))) : null;
}

function showPatches(pictures, label) {
  // Made anew for another case only: a patch that has the focus keeps it.
  const shares = sharesOf(pictures, label);
  patchGrid.hidden = !shares;
  patchGrid.classList.toggle("lines", state.patches);
  const of = `${state.film} ${label} ${Boolean(pictures)}`;
  if (patchGrid.dataset.of !== of) {
    patchGrid.dataset.of = of;
    layOut(shares, pictures);
    showSum(shares, pictures, label);
  }
  choosePatch(...state.patch);
}

function layOut(shares, pictures) {
  const k = shares ? shares.length : 0;
  if (shares) {
    const [x, y, w, h] = pictures.crop.map((share) => `${100 * share}%`);
    Object.assign(patchGrid.style, { left: x, top: y, width: w, height: h });
    patchGrid.style.gridTemplate = `repeat(${k}, 1fr) / repeat(${k}, 1fr)`;
    state.patch = strongest(shares);
  }
  patchGrid.replaceChildren(...(shares || []).map((row, r) => {
    const element = document.createElement("div");
    element.setAttribute("role", "row");
    element.append(...row.map((share, c) => patchButton(r, c, share)));
    return element;
  }));
}

function strongest(shares) {
  // [row, column] of the patch that speaks loudest, for or against: what a case opens with.
  const all = shares.flat().map(Math.abs);
  const place = all.indexOf(Math.max(...all));
  return [Math.floor(place / shares.length), place % shares.length];
}

function patchButton(row, column, share) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("role", "gridcell");
  button.dataset.place = `${row},${column}`;
  button.setAttribute("aria-label", `Row ${row + 1}, column ${column + 1}: ${signed(share, 4)}`);
  button.addEventListener("pointerenter", () => choosePatch(row, column));
  button.addEventListener("focus", () => choosePatch(row, column));
  return button;
}

function choosePatch(row, column) {
  state.patch = [row, column];
  for (const button of patchGrid.querySelectorAll("button")) {
    const current = button.dataset.place === `${row},${column}`;
    button.tabIndex = current ? 0 : -1;
    button.classList.toggle("current", current && state.patches);
  }
  const shares = sharesOf(picturesOf(state.film), state.label);
  patchReadout.replaceChildren();
  if (!shares) return;
  const share = shares[row][column];
  const strong = document.createElement("span");
  strong.className = share >= 0 ? "patch-for" : "patch-against";
  strong.textContent = `${signed(share, 4)} ${share >= 0 ? "for" : "against"} ${content.labels[state.label]}`;
  const own = `its own logit ${signed(share * shares.length ** 2, 2)}, over ${shares.length ** 2} patches`;
  const notes = [
    content.certificates.mean ? own : "",
    content.certificates.local ? "" : "depends on neighbours: it changes when other patches do",
  ].filter(Boolean);
  patchReadout.append(`Patch in row ${row + 1}, column ${column + 1}: `, strong, notes.length ? ` (${notes.join("; ")})` : "");
  mirrorState();
}

function movePatch(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const step = steps[event.key];
  const k = patchGrid.children.length;
  if (!step || !k) return;
  event.preventDefault();
  const [row, column] = state.patch.map((place, axis) => Math.min(Math.max(place + step[axis], 0), k - 1));
  patchGrid.querySelector(`[data-place="${row},${column}"]`).focus();
}
patchGrid.addEventListener("keydown", movePatch);

function showSum(shares, pictures, label) {
  const target = document.getElementById("sum");
  target.replaceChildren();
  if (!shares) {
    const why = !pictures
      ? "This film has no pictures in this page, and the patches come with them."
      : "What each patch says is not known here: evidence files of a patch network hold it, heat-map pickles do not.";
    target.append(Object.assign(document.createElement("p"), { textContent: why }));
    patchReadout.replaceChildren();
    return;
  }
  const all = shares.flat();
  const add = (values) => values.reduce((sum, value) => sum + value, 0);
  const speaking = { for: add(all.filter((share) => share > 0)), against: add(all.filter((share) => share < 0)) };
  const logit = speaking.for + speaking.against;
  const text = document.createElement("p");
  text.id = "sum-text";
  const filed = content.patchModel === null ? null : content.models[content.patchModel].probability[state.film][label];
  const parts = `for ${signed(speaking.for, 2)}, against ${signed(speaking.against, 2)}, sum`;
  target.classList.toggle("incomplete", !content.certificates.complete);
  text.textContent = content.certificates.complete
    ? `${parts} = logit ${signed(logit, 2)} → probability ${number(1 / (1 + Math.exp(-logit)), 3)} (dashed: the decision threshold)`
    : `${parts} ${signed(logit, 2)}, which is not the logit: this network’s contributions are not complete`;
  const note = document.createElement("p");
  note.className = "small";
  note.textContent =
    `Maps and patches are made from the full-size film; the table’s probability, ${number(filed, 3)}, from the ` +
    "preprocessed copy.";
  const limit = content.patchModel === null ? null : content.models[content.patchModel].threshold[label];
  target.append(sumBar(speaking, logit, limit), text, note);
}

function sumBar(speaking, logit, limit) {
  // 0 in the middle, both sides on one scale.
  const needed = limit > 0 && limit < 1 ? Math.log(limit / (1 - limit)) : null; // the threshold as a logit
  const scale = 48 / Math.max(speaking.for, -speaking.against, Math.abs(needed ?? 0), 1e-9);
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  const part = (name, left, width) => {
    const element = document.createElement("div");
    element.className = name;
    element.style.left = `${left}%`;
    if (width !== undefined) element.style.width = `${width}%`;
    return element;
  };
  bar.append(
    part("against", 50 + scale * speaking.against, -scale * speaking.against),
    part("for", 50, scale * speaking.for), part("zero", 50), part("total", 50 + scale * logit),
    ...(needed === null ? [] : [part("threshold", 50 + scale * needed)]),
  );
  return bar;
}
