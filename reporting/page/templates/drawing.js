// Films, maps and mask outlines on canvases.

const colours = Object.fromEntries(["signed", "unsigned"].map((kind) => [
  kind, content.colours[kind].match(/../g).map((digits) => parseInt(digits, 16)),
]));

function paint(levels, isSigned, gain) {
  // Grey levels of a map (its stored bytes) -> a canvas with its colours: the stronger the evidence, the less of the
  // film is seen through them. gain: by how much a map reaches beyond full colour.
  const table = isSigned ? colours.signed : colours.unsigned;
  const side = content.sheet.side;
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i += 1) image.data.set(tint(levels[i], isSigned, gain, table), 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function tint(level, isSigned, gain, table) {
  // [red, green, blue, share of the colour * 255]
  const strength = isSigned ? Math.max(level - 128, -127) / 127 : level / 255;
  const place = 3 * (strength < 0 ? Math.round(0.08 * 254) : Math.round(isSigned ? 0.92 * 254 : 0.84 * 255));
  return [table[place], table[place + 1], table[place + 2], Math.round(255 * Math.min(1, gain * Math.abs(strength)))];
}

function gainOf(map, protocol, method, label) {
  // Own scale: full colour at the map's own extreme. Fixed scale: at the same logit on every film.
  const full = content.fullColour[`${protocol} ${method}`]?.[content.labels[label]];
  return content.methods[method].signed && state.fixed && full ? map.logit / full : 1;
}

async function decoded(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return image;
}

async function decodedPictures(pictures) {
  // The film as an image and its sheet of maps as bytes, decoded once per film.
  if (!pictures.decoded) {
    const [film, sheet] = await Promise.all([decoded(pictures.film), decoded(pictures.sheet)]);
    const canvas = Object.assign(document.createElement("canvas"), { width: sheet.width, height: sheet.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(sheet, 0, 0);
    pictures.decoded = { film, context };
  }
  return pictures.decoded;
}

function levelsOf(context, place) {
  const { side, across } = content.sheet;
  const data = context.getImageData(side * (place % across), side * Math.floor(place / across), side, side).data;
  return data.filter((_, i) => i % 4 === 0);
}

function windowed(images) {
  // The film in the chosen window of grey values, as a canvas of its own size.
  const of = `${state.window} ${state.level}`;
  if (images.windowed?.of === of) return images.windowed.canvas;
  const { width, height } = images.film;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(images.film, 0, 0);
  if (of !== "100 50") {
    const image = context.getImageData(0, 0, width, height);
    const low = 2.55 * (state.level - state.window / 2);
    const grey = Uint8ClampedArray.from({ length: 256 }, (_, value) => (100 * (value - low)) / Math.max(state.window, 1));
    for (let i = 0; i < image.data.length; i += 1) if (i % 4 < 3) image.data[i] = grey[image.data[i]];
    context.putImageData(image, 0, 0);
  }
  images.windowed = { of, canvas };
  return canvas;
}

function drawCase(canvas, pictures, images, protocol, method, label, opacity) {
  // The film, and over it the map where the protocol puts it: in the square that the network saw, or, as published,
  // stretched over the whole film.
  const [width, height] = pictures.shape;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(windowed(images), 0, 0, width, height);
  const map = mapOf(pictures, protocol, method, label);
  if (!map) return false;
  const [x, y, w, h] = frameOf(pictures, protocol);
  context.globalAlpha = opacity / 100;
  const gain = gainOf(map, protocol, method, label);
  const painted = paint(levelsOf(images.context, map.place), content.methods[method].signed, gain);
  context.drawImage(painted, x * width, y * height, w * width, h * height);
  context.globalAlpha = 1;
  return true;
}

function frameOf(pictures, protocol) {
  return protocol === "published" ? [0, 0, 1, 1] : pictures.crop;
}

function drawOutline(svg, pictures, label, shown) {
  const outlines = (shown && pictures?.masks[content.labels[label]]) || [];
  const path = outlines.map((line) => {
    const points = [];
    for (let i = 0; i < line.length; i += 2) points.push(`${line[i]} ${line[i + 1]}`);
    return `M${points.join("L")}Z`;
  }).join("");
  for (const element of svg.querySelectorAll("path")) element.setAttribute("d", path);
  svg.querySelector(".over").setAttribute("stroke", content.colours.outline);
  return outlines.length > 0;
}

function drawMarks(svg, pictures, images, protocol, method, label) {
  // The map's maximum as a cross, and the outline of what lies above its tuned threshold.
  const map = mapOf(pictures, protocol, method, label);
  const cut = content.cuts[`${protocol} ${method}`]?.[content.labels[label]];
  const shown = state.marks && map;
  const [x, y] = shown ? map.maximum : [0, 0];
  svg.querySelector(".maximum").setAttribute("d", shown ? `M${x - 14} ${y}H${x + 14}M${x} ${y - 14}V${y + 14}` : "");
  const line = shown && cut !== undefined
    ? contour(levelsOf(images.context, map.place), cut, frameOf(pictures, protocol), content.methods[method].signed) : "";
  svg.querySelector(".cut").setAttribute("d", line);
}

function drawScale(canvas, isSigned) {
  // The colours over middle grey, as they lie over a film.
  const table = isSigned ? colours.signed : colours.unsigned;
  canvas.width = 255;
  const image = new ImageData(canvas.width, 1);
  for (let i = 0; i < canvas.width; i += 1) {
    const [red, green, blue, alpha] = tint(isSigned ? i + 1 : i, isSigned, 1, table);
    const share = (alpha / 255) * (state.opacity / 100);
    image.data.set([...[red, green, blue].map((value) => share * value + (1 - share) * 128), 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
