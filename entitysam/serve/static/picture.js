// Draws a frame and its entities on the canvas, and says which entity is at a point.

const MAX_LABEL = 24; // letters of a name in the picture
const GAP = 6; // between original and overlay, in CSS pixels
const MAX_ZOOM = 16;

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

export class Picture {
  constructor(canvas, box) {
    Object.assign(this, { canvas, box, shown: null, overlay: document.createElement("canvas"), stroke: null, prompt: null });
    this.options = { opacity: 0.45, outlines: true, labels: true, alone: false, side: false };
    this.entities = new Map();
    this.selected = 0;
    this.other = 0;
  }

  open(width, height) {
    this.width = width;
    this.height = height;
    this.zoom = 1;
    this.middle = [width / 2, height / 2]; // of the part in view
    this.shown = null;
  }

  // `map` = {ids, lengths}; `bitmap` may be null.
  show(map, bitmap) {
    this.shown = { map, bitmap };
    this.draw();
  }

  // Colours [inside, outline] of each entity that is seen, as words of a canvas.
  colours() {
    const alpha = Math.round(255 * this.options.opacity);
    const table = new Map();
    for (const [id, entity] of this.entities) {
      if (this.options.alone && this.selected && id !== this.selected) continue;
      const value = parseInt(entity.colour.slice(1), 16);
      const swapped = ((value & 255) << 16) | (value & 0xff00) | (value >> 16); // little-endian: A B G R
      const own = id === this.selected ? Math.min(255, alpha + 50) : alpha;
      const inside = ((own << 24) | swapped) >>> 0;
      const outline = id === this.selected ? 0xffffffff : (swapped | 0xff000000) >>> 0;
      table.set(id, [inside, this.options.outlines ? outline : inside]);
    }
    return table;
  }

  // Draws the map on the overlay of width x height pixels, run by run: what a pixel shows is the map at its middle. A pixel with
  // another entity above, below or beside it belongs to the outline.
  tint(width, height) {
    const { overlay } = this;
    if (overlay.width !== width || overlay.height !== height || !this.image) {
      overlay.width = width;
      overlay.height = height;
      this.image = overlay.getContext("2d").createImageData(width, height);
    }
    const pixels = new Uint32Array(this.image.data.buffer);
    const table = this.colours();
    const look = [width, height, ...table].join();
    if (this.tinted?.map === this.shown.map && this.tinted.look === look) return; // only moved
    this.tinted = { map: this.shown.map, look };
    const hidden = [0, 0];
    const { ids, lengths } = this.shown.map;
    let run = 0;
    let end = lengths[0]; // of the run, in pixels of the map
    let above = [];
    for (let y = 0; y < height; y++) {
      const first = Math.floor(((y + 0.5) * this.height) / height) * this.width;
      const row = y * width;
      while (end <= first) end += lengths[++run];
      const parts = []; // of this row: {id, from, to}
      for (let from = 0; from < width; ) {
        const to = Math.min(Math.ceil(((end - first) * width) / this.width - 0.5), width);
        const last = parts.at(-1);
        if (to > from) {
          if (last?.id === ids[run]) last.to = to;
          else parts.push({ id: ids[run], from, to });
          from = to;
        }
        if (from < width) end += lengths[++run];
      }
      for (const part of parts) {
        const [inside, outline] = table.get(part.id) ?? hidden;
        pixels.fill(inside, row + part.from, row + part.to);
        if (part.from > 0) pixels[row + part.from] = outline;
        if (part.to < width) pixels[row + part.to - 1] = outline;
      }
      for (let k = 0, j = 0; k < parts.length && j < above.length; ) {
        const [one, other] = [parts[k], above[j]];
        const [from, to] = [Math.max(one.from, other.from), Math.min(one.to, other.to)];
        if (one.id !== other.id) {
          pixels.fill((table.get(one.id) ?? hidden)[1], row + from, row + to);
          pixels.fill((table.get(other.id) ?? hidden)[1], row - width + from, row - width + to);
        }
        if (one.to === to) k += 1;
        if (other.to === to) j += 1;
      }
      above = parts;
    }
    overlay.getContext("2d").putImageData(this.image, 0, 0);
  }

  // Where the picture (and the original beside it) is on the canvas, in CSS pixels: the corner of the window [right, below] through
  // which it is seen, and (x, y), where its pixel 0 would be.
  layout() {
    const box = this.box.getBoundingClientRect();
    const fit = (columns, rows) => {
      const scale = Math.min((box.width - GAP * (columns - 1)) / columns / this.width, (box.height - GAP * (rows - 1)) / rows / this.height);
      return { columns, rows, scale };
    };
    const fits = this.options.side ? [fit(2, 1), fit(1, 2)] : [fit(1, 1)];
    const { columns, rows, scale } = fits.reduce((best, one) => (one.scale > best.scale ? one : best));
    const width = Math.max(1, Math.floor(this.width * scale));
    const height = Math.max(1, Math.floor(this.height * scale));
    const right = columns === 2 ? width + GAP : 0;
    const below = rows === 2 ? height + GAP : 0;
    const zoomed = (width / this.width) * this.zoom;
    const x = right - clamp(this.middle[0] * zoomed - width / 2, 0, Math.max(0, this.width * zoomed - width));
    const y = below - clamp(this.middle[1] * zoomed - height / 2, 0, Math.max(0, this.height * zoomed - height));
    return { width, height, right, below, x, y, scale: zoomed, full: [width * columns + GAP * (columns - 1), height * rows + GAP * (rows - 1)] };
  }

  // Shows more or less of the picture; the point (x, y) of the frame stays where it is, or comes to the middle.
  zoomBy(factor, [x, y], isMiddle = false) {
    const before = this.layout();
    const half = [before.width / 2, before.height / 2];
    const seen = isMiddle ? half : [before.x - before.right + x * before.scale, before.y - before.below + y * before.scale];
    this.zoom = clamp(this.zoom * factor, 1, MAX_ZOOM);
    const { scale } = this.layout();
    this.middle = [x + (half[0] - seen[0]) / scale, y + (half[1] - seen[1]) / scale];
    this.pan(0, 0);
  }

  // Moves the picture by CSS pixels, not beyond its edges.
  pan(right, down) {
    const { width, height, right: left, below: top, x, y, scale } = this.layout();
    this.middle = [(left - x + width / 2 - right) / scale, (top - y + height / 2 - down) / scale];
    this.draw();
  }

  // Of the selected entity where it is seen, or of the view.
  focus() {
    const spot = this.shown && this.labelSpots().get(this.selected);
    return spot ? [spot.x, spot.y] : this.middle;
  }

  draw() {
    if (!this.shown) return;
    const place = this.layout();
    const ratio = window.devicePixelRatio || 1;
    const { canvas } = this;
    const [fullWidth, fullHeight] = place.full;
    if (canvas.width !== Math.round(fullWidth * ratio) || canvas.height !== Math.round(fullHeight * ratio)) {
      canvas.width = Math.round(fullWidth * ratio);
      canvas.height = Math.round(fullHeight * ratio);
      canvas.style.width = `${fullWidth}px`;
      canvas.style.height = `${fullHeight}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#24272e";
    context.clearRect(0, 0, fullWidth, fullHeight);
    if (this.options.side) {
      this.drawFrame(context, { ...place, x: place.x - place.right, y: place.y - place.below, right: 0, below: 0 });
      context.restore();
    }
    this.drawFrame(context, place);
    const shrink = Math.min(1, place.scale * ratio);
    this.tint(Math.max(1, Math.round(this.width * shrink)), Math.max(1, Math.round(this.height * shrink)));
    context.imageSmoothingEnabled = false;
    context.drawImage(this.overlay, place.x, place.y, this.width * place.scale, this.height * place.scale);
    context.imageSmoothingEnabled = true;
    if (this.options.labels) this.drawLabels(context, place);
    if (this.stroke) this.drawStroke(context, place);
    if (this.prompt) this.drawPrompt(context, place);
    context.restore();
  }

  // And leaves only its window to be drawn on, up to `restore`.
  drawFrame(context, { right, below, width, height, x, y, scale }) {
    context.save();
    context.beginPath();
    context.rect(right, below, width, height);
    context.clip();
    if (this.shown.bitmap) context.drawImage(this.shown.bitmap, x, y, this.width * scale, this.height * scale);
    else context.fillRect(right, below, width, height);
  }

  drawPrompt(context, place) {
    const { points, labels, box } = this.prompt;
    const at = (x, y) => [place.x + x * place.scale, place.y + y * place.scale];
    context.lineWidth = 2;
    points.forEach(([x, y], k) => {
      context.beginPath();
      context.arc(...at(x, y), 6, 0, 2 * Math.PI);
      context.fillStyle = labels[k] ? "#22c55e" : "#ef4444";
      context.strokeStyle = "#fff";
      context.fill();
      context.stroke();
    });
    if (!box) return;
    const [left, top] = at(box[0], box[1]);
    const [right, bottom] = at(box[2], box[3]);
    context.strokeStyle = "#fff";
    context.setLineDash([6, 4]);
    context.strokeRect(left, top, right - left, bottom - top);
    context.setLineDash([]);
  }

  drawLabels(context, place) {
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    for (const [id, spot] of this.labelSpots()) {
      const entity = this.entities.get(id);
      if (!entity || (this.options.alone && this.selected && id !== this.selected)) continue;
      const name = entity.name.length > MAX_LABEL ? `${entity.name.slice(0, MAX_LABEL)}…` : entity.name;
      const text = name ? `${name} ${id}` : String(id);
      const half = context.measureText(text).width / 2 + 3;
      const [x, y] = [place.x + spot.x * place.scale - place.right, place.y + spot.y * place.scale - place.below];
      if (x < 0 || y < 0 || x > place.width || y > place.height) continue;
      context.lineWidth = 3;
      context.strokeStyle = "rgb(0 0 0 / 0.85)";
      const at = [place.right + clamp(x, half, place.width - half), place.below + clamp(y, 9, place.height - 9)];
      context.strokeText(text, ...at);
      context.fillStyle = "#fff";
      context.fillText(text, ...at);
    }
  }

  // For each entity the middle of its longest run near the row of its centre.
  labelSpots() {
    const sums = new Map();
    const each = (visit) => {
      let at = 0;
      const { ids, lengths } = this.shown.map;
      for (let k = 0; k < ids.length; k++) {
        let left = lengths[k];
        if (ids[k]) {
          let start = at;
          while (left > 0) {
            const y = Math.floor(start / this.width);
            const x = start - y * this.width;
            const length = Math.min(left, this.width - x);
            visit(ids[k], x, y, length);
            start += length;
            left -= length;
          }
        }
        at += lengths[k];
      }
    };
    each((id, x, y, length) => {
      const sum = sums.get(id) ?? { area: 0, y: 0 };
      sum.area += length;
      sum.y += length * y;
      sums.set(id, sum);
    });
    const best = new Map();
    const least = this.width * this.height * 0.0015;
    each((id, x, y, length) => {
      const sum = sums.get(id);
      if (sum.area < least) return;
      const value = length - 0.6 * Math.abs(y - sum.y / sum.area);
      const found = best.get(id);
      if (!found || value > found.value) best.set(id, { value, x: x + length / 2, y: y + 0.5 });
    });
    return best;
  }

  drawStroke(context, place) {
    const { points, radius, colour } = this.stroke;
    context.save();
    context.translate(place.x, place.y);
    context.scale(place.scale, place.scale);
    context.strokeStyle = context.fillStyle = colour;
    context.globalAlpha = 0.7;
    context.lineWidth = 2 * radius;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(points[0][0], points[0][1]);
    for (const [x, y] of points) context.lineTo(x, y);
    if (points.length === 1) context.lineTo(points[0][0] + 0.01, points[0][1]);
    context.stroke();
    context.restore();
  }

  // (x, y) in pixels of the frame of a pointer event; null outside.
  position(event) {
    const place = this.layout();
    const box = this.canvas.getBoundingClientRect();
    let x = event.clientX - box.left - place.x;
    let y = event.clientY - box.top - place.y;
    if (place.right && event.clientX - box.left < place.right) x += place.right; // on the original
    if (place.below && event.clientY - box.top < place.below) y += place.below;
    x /= place.scale;
    y /= place.scale;
    return x < 0 || y < 0 || x >= this.width || y >= this.height ? null : [x, y];
  }

  entityAt([x, y]) {
    const { ids, lengths } = this.shown.map;
    const place = Math.floor(y) * this.width + Math.floor(x);
    let run = 0;
    for (let end = lengths[0]; end <= place; end += lengths[run]) run += 1;
    return ids[run];
  }
}
