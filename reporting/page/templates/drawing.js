// Films, maps and mask outlines on canvases.

const colours = Object.fromEntries(["signed", "unsigned"].map((kind) => [
  kind, content.colours[kind].match(/../g).map((digits) => parseInt(digits, 16)),
]));

function paint(levels, isSigned) {
  // Grey levels of a map (its stored bytes) -> a canvas with its colours.
  const table = isSigned ? colours.signed : colours.unsigned;
  const side = content.sheet.side;
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i += 1) {
    const place = 3 * (isSigned ? Math.max(levels[i] - 1, 0) : levels[i]);
    image.data.set([table[place], table[place + 1], table[place + 2], 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
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

function drawCase(canvas, pictures, images, protocol, method, label, opacity) {
  // The film, and over it the map where the protocol puts it: in the square that the network saw, or, as published,
  // stretched over the whole film. Film and colours are mixed.
  const [width, height] = pictures.shape;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(images.film, 0, 0, width, height);
  const map = mapOf(pictures, protocol, method, label);
  if (!map) return false;
  const [x, y, w, h] = protocol === "published" ? [0, 0, 1, 1] : pictures.crop;
  context.globalAlpha = opacity / 100;
  context.imageSmoothingQuality = "high";
  const painted = paint(levelsOf(images.context, map[0]), content.methods[method].signed);
  context.drawImage(painted, x * width, y * height, w * width, h * height);
  context.globalAlpha = 1;
  return true;
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

function drawScale(canvas, isSigned) {
  const table = isSigned ? colours.signed : colours.unsigned;
  canvas.width = table.length / 3;
  const image = new ImageData(canvas.width, 1);
  for (let i = 0; i < canvas.width; i += 1) image.data.set([...table.slice(3 * i, 3 * i + 3), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
