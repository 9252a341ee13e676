"use strict";
// What the page holds, what is chosen, and what follows from both. Nothing here touches the document's elements.

const content = JSON.parse(document.getElementById("list-content").textContent);
const METHODS = Object.keys(content.methods);
const DASH = "–";

const state = {
  model: 0,
  film: 0,
  label: 0,
  protocol: content.protocols[0],
  method: METHODS[0],
  beside: "",
  opacity: 70,
  fixed: true,
  window: 100,
  level: 50,
  zoom: 1,
  pan: [0, 0],
  marks: true,
  mask: true,
  patches: true,
  patch: [0, 0],
  keys: true,
};

function isPositive(film, label) {
  return content.truth[film][label] === "1";
}

const TRUTH_NAMES = { 1: "present", 0: "absent", "?": "not labelled" };

function truthOf(film, label) {
  return TRUTH_NAMES[content.truth[film][label]];
}

function outcomeOf(model, film, label) {
  // "TP", "FP", "FN" or "TN" by the Youden threshold; "?" for a film that is not labelled, "-" where threshold or
  // probability is missing.
  if (content.truth[film][label] === "?") return "?";
  const probability = content.models[model].probability[film][label];
  const threshold = content.models[model].threshold[label];
  if (probability === null || threshold === null) return "-";
  const called = probability >= threshold;
  return (called === isPositive(film, label) ? "T" : "F") + (called ? "P" : "N");
}

const OUTCOME_NAMES = {
  TP: "true positive", FP: "false positive", FN: "false negative", TN: "true negative", "-": "no threshold",
  "?": "not labelled",
};

function methodOf(model) {
  // The method on show where it explains this model, else the model's first one; undefined for a model without any.
  const explains = (method) => content.methods[method].model === model;
  return explains(state.method) ? state.method : METHODS.find(explains);
}

function scoreOf(kind, film, label, protocol = state.protocol, method = state.method) {
  // "hit" or "iou" of a map, null where it was not scored.
  const task = content.tasks.indexOf(content.labels[label]);
  const scores = content.scores[`${protocol} ${method}`];
  return task < 0 || !scores ? null : scores[kind][film][task];
}

function number(value, digits) {
  if (value === null || value === undefined) return DASH;
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text;
}

function signed(value, digits) {
  const text = number(value, digits);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text.replace("-", "−");
}

const pictured = new Set(content.pictured);

function isHere(film) {
  // Whether the page has been read as far as this film's pictures: the case of the start stands before all others.
  const block = document.getElementById(`film-${film}`);
  return document.readyState !== "loading" || Boolean(block?.nextSibling);
}

function picturesOf(film) {
  // What the page holds of a film; parsed when it is looked at, and null where it holds nothing, or not yet.
  if (!pictured.has(film) || !isHere(film)) return null;
  if (!picturesOf.kept.has(film)) {
    const block = document.getElementById(`film-${film}`);
    if (picturesOf.kept.size > 8) picturesOf.kept.clear();
    picturesOf.kept.set(film, block && JSON.parse(block.textContent)); // null in a page that was cut off
  }
  return picturesOf.kept.get(film);
}
picturesOf.kept = new Map();

function whenRead(action) {
  // At once, or as soon as the rest of the page has been read.
  if (document.readyState !== "loading") action();
  else document.addEventListener("DOMContentLoaded", action, { once: true });
}

function mapOf(pictures, protocol, method, label) {
  // Its place in the sheet, its largest logit (of evidence) and its maximum in thousandths of the picture; or undefined.
  const stored = pictures?.maps[`${protocol} ${method}`]?.[content.labels[label]];
  if (!stored) return undefined;
  const [place, x, y, logit] = stored;
  const [left, top, width, height] = protocol === "published" ? [0, 0, 1, 1] : pictures.crop;
  return { place, logit, maximum: [1000 * left + width * x, 1000 * top + height * y] };
}
