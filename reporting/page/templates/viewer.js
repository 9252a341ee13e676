// The case on show: controls, what they change, and the keyboard.

const at = (id) => document.getElementById(id);
let drawing = 0;

function mirrorState() {
  // The state as attributes: for style sheets, tests and whoever looks.
  const shown = {
    film: content.films[state.film], label: content.labels[state.label], method: state.method,
    protocol: state.protocol, opacity: state.opacity, mask: state.mask, patches: state.patches, marks: state.marks,
    patch: state.patch.join(","), beside: state.beside, zoom: state.zoom, fixed: state.fixed,
  };
  for (const [name, value] of Object.entries(shown)) at("viewer").dataset[name] = String(value);
}

function chooseCase(film, label) {
  Object.assign(state, { film, label });
  scrollToCurrent();
  showRows();
  showCase();
}

function change(values) {
  Object.assign(state, values);
  showCase();
}

async function showCase() {
  const run = (drawing += 1);
  const pictures = picturesOf(state.film);
  mirrorState();
  showControls();
  showVerdict();
  showPatches(pictures, state.label);
  at("stage").hidden = !pictures;
  at("no-picture").hidden = Boolean(pictures);
  const waiting = pictured.has(state.film) && !isHere(state.film);
  at("no-picture").textContent = waiting ? "The page is still being read."
    : "No pictures of this film in this page: it has no heat maps, or there was no room for them (see above the list).";
  at("stage-beside").hidden = !pictures || !state.beside;
  const outlined = drawOutline(at("outline"), pictures, state.label, state.mask);
  drawOutline(at("outline-beside"), pictures, state.label, state.mask);
  showAddress();
  if (!pictures) {
    showLegend(undefined, false, null);
    for (const canvas of at("methods").querySelectorAll("canvas")) canvas.getContext("2d").clearRect(0, 0, 999, 999);
    if (waiting) whenRead(showCase);
    else at("viewer").dataset.drawn = String(run);
    return;
  }
  const images = await decodedPictures(pictures);
  if (run !== drawing) return; // another case was chosen meanwhile
  at("stage-frame").style.setProperty("--aspect", pictures.shape[0] / pictures.shape[1]);
  showZoom();
  const { protocol, method, label, opacity } = state;
  const drawn = drawCase(at("film"), pictures, images, protocol, method, label, opacity);
  drawMarks(at("outline"), pictures, images, protocol, method, label);
  if (state.beside) {
    const found = drawCase(at("film-beside"), pictures, images, protocol, state.beside, label, opacity);
    drawMarks(at("outline-beside"), pictures, images, protocol, state.beside, label);
    at("film-beside").setAttribute("aria-label", found ? content.methods[state.beside].name : "no map of this method");
  }
  for (const input of at("methods").querySelectorAll("input")) {
    drawCase(input.parentElement.querySelector("canvas"), pictures, images, protocol, input.value, label, opacity);
  }
  showLegend(mapOf(pictures, protocol, method, label), drawn, pictures);
  at("film").setAttribute("aria-label", describe(drawn, outlined));
  at("viewer").dataset.drawn = String(run);
}

function describe(drawn, outlined) {
  const name = content.methods[state.method].name;
  const map = drawn ? `, overlaid with the ${name} map of the ${state.protocol} protocol` : ", without a map";
  const mask = outlined ? `; the ${content.outline} is drawn in` : "";
  const hit = { 1: "; the map’s maximum lies in the outline", 0: "; the map’s maximum lies outside the outline" };
  return `Chest film ${content.films[state.film]}${map} for ${content.labels[state.label]}${mask}` +
    (hit[scoreOf("hit", state.film, state.label)] ?? "");
}

function showLegend(map, drawn, pictures) {
  const isSigned = content.methods[state.method].signed;
  drawScale(at("scale"), isSigned);
  const full = drawn && isSigned ? fullLogit(map) : 0;
  const ticks = !drawn ? [] : isSigned ? [`−${full}`, "0", `+${full}`] : ["least", "most"];
  at("ticks").replaceChildren(...ticks.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
  const name = content.methods[state.method].name;
  at("scale-text").textContent = !drawn
    ? `No ${name} map of this film and label.${content.mapped.includes(state.label) ? "" :
      " Evaluation makes maps of the labels with outlines; evalClassification.py --all-labels makes them of all."}`
    : isSigned
      ? `Blue speaks against the finding, red for it; the bare film is neutral. Full colour at a logit of ±${full}` +
        (state.fixed ? " on every film." : ", the largest of this map.")
      : "The redder, the higher the value of this map; a CAM knows no evidence against.";
  at("frame-note").textContent = !drawn ? "" : !pictures.whole
    ? "The picture is the central square of the film, which is what the networks see."
    : state.protocol === "published"
      ? "As published, the square map is stretched over the whole film when it is scored."
      : "The networks see the central square of the film; the map lies where it was cut out.";
}

function fullLogit(map) {
  const fixed = content.fullColour[`${state.protocol} ${state.method}`]?.[content.labels[state.label]];
  return (state.fixed && fixed) || map.logit;
}

function showControls() {
  at("case-title").textContent = `${content.labels[state.label]}: ${shortName(content.films[state.film])}`;
  at("choose-film").value = String(state.film);
  at("choose-label").value = String(state.label);
  at("opacity").value = String(state.opacity);
  at("opacity-value").textContent = `${state.opacity}%`;
  at("show-mask").checked = state.mask;
  at("show-patches").checked = state.patches;
  at("show-marks").checked = state.marks;
  at("fixed-scale").checked = state.fixed;
  at("beside").value = state.beside;
  for (const name of ["window", "level", "zoom"]) {
    at(name).value = String(state[name]);
    at(`${name}-value`).textContent = name === "zoom" ? `${state.zoom}x` : `${state[name]}%`;
  }
  for (const input of document.querySelectorAll('[name="protocol"]')) input.checked = input.value === state.protocol;
  for (const input of document.querySelectorAll('[name="method"]')) {
    input.checked = input.value === state.method;
    const [hit, iou] = ["hit", "iou"].map((kind) =>
      scoreOf(kind, state.film, state.label, state.protocol, input.value));
    const words = [{ 1: "hit", 0: "miss" }[hit], iou === null ? undefined : `IoU ${number(iou, 2)}`];
    input.parentElement.querySelector(".score").textContent = words.filter(Boolean).join(", ");
  }
}

function showVerdict() {
  const { film, label } = state;
  const box = (title, ...lines) => {
    const element = document.createElement("div");
    element.append(Object.assign(document.createElement("strong"), { textContent: title }),
      Object.assign(document.createElement("span"), { textContent: lines.join(" ") }));
    return element;
  };
  const models = content.models.map((model, place) => {
    const outcome = OUTCOME_NAMES[outcomeOf(place, film, label)];
    return box(`${model.name}: ${outcome}`, `probability ${number(model.probability[film][label], 3)},`,
      `threshold ${number(model.threshold[label], 3)}`);
  });
  at("verdict").replaceChildren(box(`Truth: ${truthOf(film, label)}`, content.paths[film]), ...models);
}

function choice(name, value, text, inside = []) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name, value });
  label.append(...inside, input, ` ${text}`);
  input.addEventListener("change", () => {
    change({ [name]: value });
    refreshList(); // hits and IoU are those of the method and protocol
  });
  return label;
}

function option(value, text) {
  return Object.assign(document.createElement("option"), { value: String(value), textContent: text });
}

function setUpControls() {
  at("filter-model").append(...content.models.map((model, i) => option(i, model.name)));
  at("filter-label").append(...content.labels.map((label, i) => option(i, label)));
  at("choose-label").append(...content.labels.map((label, i) => option(i, label)));
  at("choose-film").append(...content.films.map((film, i) => option(i, shortName(film) + (pictured.has(i) ? "" : " (no pictures)"))));
  at("protocols").append(...content.protocols.map((protocol) => choice("protocol", protocol, protocol)));
  at("methods").append(...METHODS.map((method) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    canvas.setAttribute("aria-hidden", "true");
    const name = content.methods[method].name.replace("MedicalPatchNet", "Medical\u200bPatchNet"); // may break there
    const label = choice("method", method, name, [canvas]);
    label.append(Object.assign(document.createElement("span"), { className: "score" }));
    return label;
  }));
  at("filter-model").addEventListener("input", (event) => {
    state.model = Number(event.target.value);
    refreshList();
  });
  at("choose-film").addEventListener("input", (event) => chooseCase(Number(event.target.value), state.label));
  at("choose-label").addEventListener("input", (event) => chooseCase(state.film, Number(event.target.value)));
  at("opacity").addEventListener("input", (event) => change({ opacity: Number(event.target.value) }));
  at("show-mask").addEventListener("input", (event) => change({ mask: event.target.checked }));
  at("show-patches").addEventListener("input", (event) => change({ patches: event.target.checked }));
  at("show-marks").addEventListener("input", (event) => change({ marks: event.target.checked }));
  at("fixed-scale").addEventListener("input", (event) => change({ fixed: event.target.checked }));
  at("beside").append(...METHODS.map((method) => option(method, content.methods[method].name)));
  at("beside").addEventListener("input", (event) => change({ beside: event.target.value }));
  at("use-keys").addEventListener("input", (event) => change({ keys: event.target.checked }));
  at("previous").addEventListener("click", () => stepCase(-1));
  at("next").addEventListener("click", () => stepCase(1));
  at("help-button").addEventListener("click", () => at("help").showModal());
}

function key(event) {
  // Keys of one letter, unless they are off, something is being typed, or the browser is meant.
  const typing = event.target.closest('select, input[type="search"]');
  if (!state.keys || typing || event.ctrlKey || event.altKey || event.metaKey || at("help").open) return;
  const other = content.protocols[(content.protocols.indexOf(state.protocol) + 1) % content.protocols.length];
  const actions = {
    j: () => stepCase(1),
    k: () => stepCase(-1),
    p: () => { change({ protocol: other }); refreshList(); },
    m: () => change({ mask: !state.mask }),
    g: () => change({ patches: !state.patches }),
    t: () => change({ marks: !state.marks }),
    z: () => zoomTo(state.zoom * 1.5),
    Z: () => zoomTo(state.zoom / 1.5),
    0: resetView,
    ...(event.target === document.body ? { ArrowLeft: () => stepCase(-1), ArrowRight: () => stepCase(1) } : {}),
    "+": () => change({ opacity: Math.min(100, state.opacity + 10) }),
    "-": () => change({ opacity: Math.max(0, state.opacity - 10) }),
    "?": () => at("help").showModal(),
  };
  METHODS.forEach((method, i) => { actions[i + 1] = () => { change({ method }); refreshList(); }; });
  if (event.key in actions) {
    event.preventDefault();
    actions[event.key]();
  }
}

setUpList();
setUpControls();
setUpView();
document.addEventListener("keydown", key);
function start() {
  const [film, label] = addressed() ?? content.first ?? list.rows[0];
  const kinds = content.protocols.flatMap((protocol) => METHODS.map((method) => ({ protocol, method })));
  const shown = kinds.find(({ protocol, method }) => mapOf(picturesOf(film), protocol, method, label));
  Object.assign(state, shown); // one of which there is a map
  refreshList();
  if (!openList()) chooseCase(film, label);
}

refreshList();
if (asksForCases()) whenRead(start); // of films that may stand at the end of the page
else start();
whenRead(linkTables);
