// The lanes: one per entity, with its score as height where it is visible. Names are buttons, lanes one canvas.

const ROW = 26;

export class Timeline {
  constructor(root, on) {
    this.on = on; // {seek(frame), select(id, shift)}
    this.box = root.querySelector("#lanes");
    this.list = root.querySelector("#lane-names");
    this.canvas = root.querySelector("#tracks");
    this.ruler = root.querySelector("#ruler");
    this.head = root.querySelector("#playhead");
    this.root = root;
    this.entities = [];
    this.order = [];
    this.total = 1;
    this.first = 0; // of the frames in view
    this.span = 1;
    this.frame = 0;
    this.box.addEventListener("scroll", () => this.draw());
    this.drag(this.ruler, (frame) => on.seek(frame));
    this.drag(this.canvas, (frame, event, isStart) => {
      if (isStart) {
        const row = Math.floor((event.clientY - this.canvas.getBoundingClientRect().top + this.box.scrollTop) / ROW);
        if (this.order[row]) on.select(this.order[row].id, event.shiftKey);
      }
      if (!event.shiftKey) on.seek(frame);
    });
    for (const canvas of [this.ruler, this.canvas]) {
      canvas.addEventListener("wheel", (event) => {
        if (event.ctrlKey) this.zoom(Math.exp(event.deltaY / 200), this.frameAt(event));
        else if (event.deltaX || event.shiftKey) this.pan(((event.deltaX || event.deltaY) / this.canvas.clientWidth) * this.span);
        else return;
        event.preventDefault();
      }, { passive: false });
    }
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  drag(canvas, act) {
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      act(this.frameAt(event), event, true);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) act(this.frameAt(event), event, false);
    });
  }

  frameAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const frame = Math.floor(this.first + ((event.clientX - box.left) / box.width) * this.span);
    return Math.min(Math.max(frame, 0), this.total - 1);
  }

  open(total, times) {
    this.total = total;
    this.times = times;
    this.first = 0;
    this.span = total;
    this.frame = 0;
  }

  set(entities, lanes, sort) {
    this.lane = new Map(entities.map((entity, k) => [entity.id, lanes.subarray(k * this.total, (k + 1) * this.total)]));
    this.entities = entities;
    this.sort(sort);
  }

  sort(by) {
    const compare = {
      birth: (a, b) => a.first - b.first || a.id - b.id,
      area: (a, b) => b.area * b.count - a.area * a.count,
      name: (a, b) => (a.name || "\uffff").localeCompare(b.name || "\uffff", undefined, { numeric: true }) || a.id - b.id,
    }[by];
    this.order = [...this.entities].sort(compare);
    this.fill();
    this.draw();
  }

  // Nothing is open.
  close() {
    this.open(1, [0]);
    this.set([], new Uint8Array(), "birth");
  }

  fill() {
    const items = this.order.map((entity, k) => {
      const item = this.list.children[k] ?? document.createElement("li");
      if (!item.firstChild) {
        const button = document.createElement("button");
        const swatch = document.createElement("span");
        const label = document.createElement("span");
        swatch.className = "swatch";
        label.className = "label";
        button.append(swatch, label);
        button.addEventListener("click", (event) => this.on.select(Number(button.dataset.id), event.shiftKey));
        item.append(button);
      }
      const button = item.firstChild;
      button.dataset.id = entity.id;
      button.firstChild.style.background = entity.colour;
      button.lastChild.textContent = (entity.name ? `${entity.name} ${entity.id}` : `Entity ${entity.id}`) + (entity.locked ? " · locked" : "");
      return item;
    });
    this.list.replaceChildren(...items);
    this.mark();
  }

  select(id, other) {
    this.selected = id;
    this.other = other;
    this.mark();
    this.draw();
    const row = this.order.findIndex((entity) => entity.id === id);
    if (row < 0) return;
    const top = row * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW - this.box.clientHeight;
  }

  mark() {
    for (const item of this.list.children) {
      const button = item.firstChild;
      button.setAttribute("aria-pressed", String(Number(button.dataset.id) === this.selected));
      button.classList.toggle("other", Number(button.dataset.id) === this.other);
    }
  }

  neighbour(step) {
    const row = this.order.findIndex((entity) => entity.id === this.selected);
    const next = row < 0 ? (step > 0 ? 0 : this.order.length - 1) : Math.min(Math.max(row + step, 0), this.order.length - 1);
    return this.order[next]?.id ?? 0;
  }

  zoom(factor, around = this.frame) {
    const span = Math.min(Math.max(this.span * factor, Math.min(10, this.total)), this.total);
    const share = (around + 0.5 - this.first) / this.span;
    this.first = around + 0.5 - share * span;
    this.span = span;
    this.pan(0);
  }

  pan(frames) {
    this.first = Math.min(Math.max(this.first + frames, 0), this.total - this.span);
    this.draw();
  }

  seek(frame) {
    this.frame = frame;
    if (frame < this.first || frame >= this.first + this.span) this.pan(frame - this.first - this.span * 0.1);
    this.place();
  }

  place() {
    const box = this.canvas.getBoundingClientRect();
    const root = this.root.getBoundingClientRect();
    const x = box.left - root.left + ((this.frame + 0.5 - this.first) / this.span) * box.width;
    this.head.hidden = !this.order.length;
    this.head.style.top = `${this.ruler.getBoundingClientRect().top - root.top}px`;
    this.head.style.transform = `translateX(${x}px)`;
  }

  draw() {
    if (!this.lane) return;
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth;
    const height = this.box.clientHeight;
    this.root.style.setProperty("--gutter", `${this.box.offsetWidth - this.box.clientWidth}px`);
    for (const canvas of [this.canvas, this.ruler]) {
      const tall = canvas === this.ruler ? 22 : height;
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(tall * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(tall * ratio);
      }
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    const style = getComputedStyle(this.root);
    this.drawLanes(width, height, style);
    this.drawRuler(width, style);
    this.place();
  }

  drawLanes(width, height, style) {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const top = this.box.scrollTop;
    for (let row = Math.floor(top / ROW); row < Math.min(this.order.length, (top + height) / ROW); row++) {
      const entity = this.order[row];
      const lane = this.lane.get(entity.id);
      const y = row * ROW - top;
      if (entity.id === this.selected) {
        context.fillStyle = style.getPropertyValue("--sunken");
        context.fillRect(0, y, width, ROW);
      }
      context.fillStyle = entity.colour;
      const step = Math.max(1, width / this.span);
      for (let x = 0; x < width; x += step) {
        const from = Math.floor(this.first + (x / width) * this.span);
        const to = Math.max(from + 1, Math.floor(this.first + ((x + step) / width) * this.span));
        let most = 0;
        for (let k = from; k < Math.min(to, this.total); k++) if (lane[k] > most) most = lane[k];
        if (!most) continue;
        const tall = 4 + ((most - 1) / 254) * (ROW - 10);
        context.fillRect(x, y + ROW - 3 - tall, step + 0.4, tall);
      }
      context.fillStyle = style.getPropertyValue("--line");
      context.fillRect(0, y + ROW - 1, width, 1);
    }
  }

  drawRuler(width, style) {
    const context = this.ruler.getContext("2d");
    context.clearRect(0, 0, width, 22);
    context.fillStyle = style.getPropertyValue("--quiet");
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    let step = 1;
    for (const next of [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000]) {
      step = next;
      if ((next / this.span) * width >= 64) break;
    }
    for (let frame = Math.ceil(this.first / step) * step; frame < this.first + this.span; frame += step) {
      const x = ((frame + 0.5 - this.first) / this.span) * width;
      context.fillRect(x, 15, 1, 7);
      context.textAlign = x < 20 ? "left" : x > width - 20 ? "right" : "center";
      context.fillText(String(frame), x, 8);
    }
  }
}
