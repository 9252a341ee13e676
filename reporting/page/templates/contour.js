// The line around what lies above a map's threshold.

function enlarged(levels, side, times) {
  // (times * side)^2 levels, interpolated as the picture is.
  const small = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i += 1) image.data.set([levels[i], levels[i], levels[i], 255], 4 * i);
  small.getContext("2d").putImageData(image, 0, 0);
  const fine = times * side;
  const canvas = Object.assign(document.createElement("canvas"), { width: fine, height: fine });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, fine, fine);
  return context.getImageData(0, 0, fine, fine).data.filter((_, i) => i % 4 === 0);
}

function contour(levels, cut, [x, y, w, h], isSigned) {
  // As a path in thousandths of the film. A map is scored between its least and its most, and beside the square that
  // the network saw there is no evidence.
  const side = 4 * content.sheet.side;
  const beside = w < 1 || h < 1 ? [isSigned ? 128 : 0] : [];
  const [least, most] = [Math.min(...levels, ...beside), Math.max(...levels, ...beside)];
  const lines = levelLines(enlarged(levels, content.sheet.side, 4), side, least + cut * (most - least));
  const at = ([row, column]) =>
    `${(1000 * (x + (w * (column + 0.5)) / side)).toFixed(1)} ${(1000 * (y + (h * (row + 0.5)) / side)).toFixed(1)}`;
  return lines.map((line) => `M${line.map(at).join("L")}Z`).join("");
}

function levelLines(values, side, limit) {
  // Closed lines of [row, column] between the values above the limit and the others, interpolated (marching squares);
  // what lies beyond the border is below the limit. A crossing is named by its edge: 2 * the place of the edge's first
  // value, and 1 more for an edge that goes down.
  const across = side + 2;
  const value = (row, column) =>
    row < 0 || column < 0 || row >= side || column >= side ? -1 : values[row * side + column];
  const name = (row, column, down) => 2 * ((row + 1) * across + column + 1) + down;
  const linked = new Map();
  const link = (a, b) => {
    for (const [one, other] of [[a, b], [b, a]]) linked.set(one, [...(linked.get(one) ?? []), other]);
  };
  for (let row = -1; row < side; row += 1) {
    for (let column = -1; column < side; column += 1) {
      const [a, b] = [value(row, column) > limit, value(row, column + 1) > limit];
      const [c, d] = [value(row + 1, column) > limit, value(row + 1, column + 1) > limit];
      if (a === b && a === c && a === d) continue;
      const [top, left] = [name(row, column, 0), name(row, column, 1)];
      const [bottom, right] = [name(row + 1, column, 0), name(row, column + 1, 1)];
      const crossed = [a !== b && top, a !== c && left, c !== d && bottom, b !== d && right].filter(Boolean);
      if (crossed.length === 2) link(...crossed);
      else for (const pair of a ? [[top, right], [left, bottom]] : [[top, left], [bottom, right]]) link(...pair);
    }
  }
  const pointOf = (edge) => {
    const [place, down] = [edge >> 1, edge & 1];
    const [row, column] = [Math.floor(place / across) - 1, (place % across) - 1];
    const [from, to] = [value(row, column), value(row + down, column + 1 - down)];
    const share = (limit - from) / (to - from);
    return [row + down * share, column + (1 - down) * share];
  };
  return closedLines(linked).map((line) => line.map(pointOf));
}

function closedLines(linked) {
  // Every name has two others beside it: the rounds that they make.
  const lines = [];
  for (const start of linked.keys()) {
    const line = [];
    for (let at = start; at !== undefined && linked.has(at);) {
      const beside = linked.get(at);
      linked.delete(at);
      line.push(at);
      at = beside.find((other) => linked.has(other));
    }
    if (line.length) lines.push(line);
  }
  return lines;
}
