// Corrections: the selected entity, the brush, and the list of edits.

import { getJson } from "./server.js";

const $ = (id) => document.getElementById(id);

export class Tools {
  constructor(app, picture, on) {
    Object.assign(this, { app, picture, on, brush: "", fresh: 0, can: {}, busy: Promise.resolve() });
    const click = (id, action) => $(id).addEventListener("click", action);
    click("undo", () => this.step("undo"));
    click("redo", () => this.step("redo"));
    for (const [id, action] of Object.entries(this.actions())) click(id, () => action());
    click("brush", () => this.setBrush("brush"));
    click("eraser", () => this.setBrush("eraser"));
    click("new-entity", () => this.newEntity());
    click("prompt", () => this.setBrush("prompt"));
    click("outside", () => $("outside").setAttribute("aria-pressed", String($("outside").getAttribute("aria-pressed") !== "true")));
    click("clear-prompt", () => this.setPrompt(null));
    for (const button of document.querySelectorAll("[data-follow]")) button.addEventListener("click", () => this.follow(button.dataset.follow));
    getJson("abilities").then((can) => {
      this.can = can;
      this.update();
    }, () => {});
    $("name").addEventListener("change", () => this.rename()); // `select` lets it happen before another entity is chosen
    $("name").addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") {
        if (event.key === "Escape") $("name").value = this.entity?.name ?? "";
        $("name").blur();
        event.stopPropagation();
      }
    });
    $("colour").addEventListener("change", () => this.edit({ kind: "recolour", id: Number($("colour").dataset.id), colour: $("colour").value }));
    $("other").addEventListener("change", () => on.select(Number($("other").value), true));
    this.listen();
  }

  get entity() {
    return this.picture.entities.get(this.app.selected);
  }

  actions() {
    const { app } = this;
    const own = () => app.selected;
    const isLocked = (id) => Boolean(this.picture.entities.get(id)?.locked);
    const other = (kind, more) => {
      if (!app.other) return this.on.notice("Choose the other entity first: Shift + click, or the list.");
      return this.edit({ kind, ...more });
    };
    return {
      lock: (id = own()) => this.edit(() => ({ kind: "lock", id, locked: !isLocked(id) })),
      split: (id = own(), frame = app.frame) => this.edit(() => ({ kind: "split", id, frame, new: app.state.next_id })),
      "delete-frame": () => this.edit({ kind: "delete", id: own(), first: app.frame, last: app.frame }),
      delete: () => this.edit({ kind: "delete", id: own(), first: 0, last: app.meta.frames - 1 }),
      "delete-range": () => this.edit({ kind: "delete", id: own(), first: Number($("range-first").value), last: Number($("range-last").value) }),
      merge: () => other("merge", { id: app.other, into: own() }),
      swap: () => other("swap", { id: own(), other: app.other, frame: app.frame }),
      join: () => other("join", { id: own(), other: app.other }),
    };
  }

  key(key, event) {
    const chosen = {
      s: "split", m: "merge", x: "swap", j: "join", l: "lock",
      Delete: event.shiftKey ? "delete" : "delete-frame",
      Backspace: event.shiftKey ? "delete" : "delete-frame",
    }[key];
    if (key === "n") this.newEntity();
    else if (key === "b") this.setBrush("brush");
    else if (key === "e") this.setBrush("eraser");
    else if (key === "c" && !$("prompts").hidden) this.setBrush("prompt");
    else if (key === "[" || key === "]") $("radius").value = Number($("radius").value) + (key === "]" ? 2 : -2);
    else if (key === "r" && this.entity) {
      $("tab-entity").click(); // where the name is
      $("name").select();
    }
    else if (chosen && this.entity) this.actions()[chosen]();
    else return Boolean(chosen);
    return true;
  }

  rename() {
    const name = $("name").value.trim();
    if (this.entity && name !== this.entity.name) this.edit({ kind: "rename", id: this.app.selected, name });
  }

  newEntity() {
    if (!this.app.state) {
      this.on.notice("Open a result first.");
      return;
    }
    if (this.refuseBoxes()) return;
    this.fresh = this.app.state.next_id;
    this.app.selected = this.fresh;
    this.picture.selected = this.fresh;
    this.setBrush("brush", true);
    this.on.notice("Paint the new entity on this frame; Esc ends.");
  }

  // -- edits go one after the other, each on the state that the one before has left

  // `edit` may be a function, which makes it from that state.
  edit(edit) {
    return this.queue(() => ["edits", { edit: edit instanceof Function ? edit() : edit }]);
  }

  step(kind) {
    return this.queue(() => [kind, {}]);
  }

  queue(make) {
    this.busy = this.busy.then(async () => {
      const { key, state } = this.app;
      try {
        const [path, body] = make();
        await this.on.changed(key, await getJson(`results/${key}/${path}`, { json: { revision: state.revision, ...body } }));
      } catch (error) {
        this.on.notice(error.message);
        this.update();
        if (error.status === 409) await getJson(`results/${key}/state`).then((state) => this.on.changed(key, state)).catch(() => {});
      }
    });
    return this.busy;
  }

  // -- brush

  refuseBoxes() {
    const boxes = this.app.meta?.boxes;
    if (boxes) this.on.notice("This result has boxes, which cannot be painted.");
    return boxes;
  }

  setBrush(kind, isOn = this.brush !== kind) {
    if (isOn && this.refuseBoxes()) return;
    if (isOn && !this.app.selected) {
      this.on.notice("Select an entity first, or start a new one.");
      return;
    }
    this.brush = isOn ? kind : "";
    if (!this.brush && this.fresh && !this.entity) this.on.select(0);
    if (!this.brush) this.fresh = 0;
    this.picture.canvas.classList.toggle("brush", Boolean(this.brush));
    for (const id of ["brush", "eraser", "prompt"]) $(id).setAttribute("aria-pressed", String(this.brush === id));
    this.update();
  }

  listen() {
    const { picture, app } = this;
    const { canvas } = picture;
    const fingers = new Map(); // id -> [x, y] of each pointer that is down
    canvas.addEventListener("pointerdown", (event) => {
      const point = app.meta && picture.position(event);
      if (!point || event.button > 1) return;
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (fingers.size > 1) {
        this.pressed = picture.stroke = null; // two fingers move the picture
        return;
      }
      if (!this.brush || event.button) {
        this.pressed = { id: picture.entityAt(point), isClick: !event.button, isOther: event.shiftKey };
        return;
      }
      if (this.brush === "prompt") {
        this.pressed = { point, outside: event.shiftKey || $("outside").getAttribute("aria-pressed") === "true" };
        return;
      }
      const colour = this.brush === "eraser" ? "#000000" : (this.entity?.colour ?? "#ffffff");
      picture.stroke = { points: [point], radius: Number($("radius").value), colour, frame: app.frame };
      picture.draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      this.showRing(event);
      if (this.drag(fingers, event) || !picture.stroke || picture.stroke.isSent) return;
      const point = picture.position(event);
      const last = picture.stroke.points.at(-1);
      if (!point || Math.hypot(point[0] - last[0], point[1] - last[1]) < 1) return;
      picture.stroke.points.push(point);
      picture.draw();
    });
    const end = (event) => {
      fingers.delete(event.pointerId);
      const { pressed } = this;
      this.pressed = null;
      if (pressed && "outside" in pressed) this.addPrompt(pressed, picture.position(event));
      else if (pressed?.isClick) this.on.select(pressed.id, pressed.isOther);
      const { stroke } = picture;
      if (!stroke || stroke.isSent) return;
      stroke.isSent = true; // it is seen until the map has it
      const points = stroke.points.slice(0, 10000).map(([x, y]) => [Math.round(x * 4) / 4, Math.round(y * 4) / 4]);
      const edit = { kind: "paint", id: app.selected, frame: stroke.frame, erase: this.brush === "eraser", points, radius: stroke.radius };
      this.edit(edit).then(() => {
        if (picture.stroke === stroke) picture.stroke = null;
        picture.draw();
      });
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", (event) => {
      fingers.delete(event.pointerId);
      this.pressed = picture.stroke = null;
      picture.draw();
    });
    canvas.addEventListener("pointerleave", () => ($("ring").hidden = true));
    canvas.addEventListener("wheel", (event) => {
      const point = app.meta && picture.position(event);
      if (!point) return;
      if (event.ctrlKey) picture.zoomBy(Math.exp(-event.deltaY / 200), point);
      else if (picture.zoom > 1) picture.pan(-event.deltaX, -event.deltaY);
      else return;
      event.preventDefault();
    }, { passive: false });
  }

  // Whether a pointer moves the picture: one that pressed it to choose, the middle button, or two fingers, which zoom as well.
  drag(fingers, event) {
    const before = fingers.get(event.pointerId);
    const { picture, pressed } = this;
    if (!before || (fingers.size < 2 && (picture.zoom === 1 || !pressed || !("isClick" in pressed)))) return false;
    const now = [event.clientX, event.clientY];
    const moved = [now[0] - before[0], now[1] - before[1]];
    if (fingers.size === 1 && pressed.isClick && Math.hypot(...moved) < 4) return true; // still a click
    fingers.set(event.pointerId, now);
    if (pressed) pressed.isClick = false;
    const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const point = others.length && picture.position(event);
    if (point) {
      const distance = (at) => Math.max(Math.hypot(at[0] - others[0][0], at[1] - others[0][1]), 10);
      picture.zoomBy(distance(now) / distance(before), point);
    }
    picture.pan(moved[0] / fingers.size, moved[1] / fingers.size);
    return true;
  }

  // The size of the brush, at the pointer.
  showRing(event) {
    const ring = $("ring");
    ring.hidden = !["brush", "eraser"].includes(this.brush) || event.pointerType === "touch";
    if (ring.hidden) return;
    const box = ring.parentElement.getBoundingClientRect();
    const size = 2 * Number($("radius").value) * this.picture.layout().scale;
    Object.assign(ring.style, { width: `${size}px`, height: `${size}px`, left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px` });
  }

  // -- prompts

  addPrompt(pressed, point) {
    if (!point) return;
    const prompt = this.picture.prompt ?? { frame: this.app.frame, points: [], labels: [], box: null };
    const [x, y] = pressed.point;
    if (Math.hypot(point[0] - x, point[1] - y) * this.picture.layout().scale > 5) {
      prompt.box = [Math.min(x, point[0]), Math.min(y, point[1]), Math.max(x, point[0]), Math.max(y, point[1])];
    } else {
      prompt.points.push([x, y]);
      prompt.labels.push(pressed.outside ? 0 : 1);
    }
    this.setPrompt(prompt);
  }

  setPrompt(prompt) {
    this.picture.prompt = prompt;
    for (const button of document.querySelectorAll("[data-follow]")) button.disabled = !prompt;
    $("clear-prompt").disabled = !prompt;
    this.picture.draw();
  }

  follow(direction) {
    const { prompt } = this.picture;
    this.app.work.begin("follow", { id: this.app.selected, direction, ...prompt });
    this.setPrompt(null);
  }

  // -- what is shown

  moved() {
    if (this.picture.prompt && this.picture.prompt.frame !== this.app.frame) this.setPrompt(null);
    for (const id of ["range-first", "range-last"]) if (document.activeElement !== $(id)) $(id).value = this.app.frame;
  }

  update() {
    const { app, entity } = this;
    const { state } = app;
    if (this.brush && !app.selected) this.setBrush("", false); // what was painted is gone
    const isBoxes = Boolean(app.meta?.boxes); // which nothing is painted in
    for (const id of ["by-hand", "new-entity"]) $(id).hidden = isBoxes;
    $("prompts").hidden = isBoxes || !this.can.prompts;
    $("corrections").hidden = isBoxes || !this.can.uploads;
    document.querySelector("[data-export=maps]").hidden = isBoxes;
    $("undo").disabled = !state?.done.length;
    $("redo").disabled = !state?.undone.length;
    $("entity").hidden = !entity;
    $("none-selected").hidden = Boolean(entity);
    if (!state) return;
    if (entity) this.describe(entity);
    $("no-edits").hidden = Boolean(state.done.length + state.undone.length);
    const item = (text, className) => Object.assign(document.createElement("li"), { textContent: text, className });
    $("edits").replaceChildren(...state.undone.toReversed().map((text) => item(text, "undone")), ...state.done.toReversed().map((text) => item(text, "")));
  }

  describe(entity) {
    const { app } = this;
    if (document.activeElement !== $("name")) $("name").value = entity.name;
    $("colour").value = entity.colour;
    $("colour").dataset.id = entity.id;
    $("lock").setAttribute("aria-pressed", String(entity.locked));
    $("lock").textContent = entity.locked ? "Locked" : "Lock";
    const facts = { Id: entity.id, Frames: entity.first === entity.last ? entity.first : `${entity.first} to ${entity.last}, ${entity.count} of them`, Size: `${entity.area.toLocaleString("en")} pixels`, Score: entity.score.toFixed(2) };
    $("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value })]));
    const others = app.state.entities.filter((one) => one.id !== entity.id);
    const text = (one) => (one.name ? `${one.name} ${one.id}` : `Entity ${one.id}`);
    $("other").replaceChildren(new Option("Choose…", 0), ...others.map((one) => new Option(text(one), one.id)));
    $("other").value = app.other;
    for (const id of ["merge", "swap", "join"]) $(id).disabled = entity.locked || !app.other;
    for (const id of ["split", "delete-frame", "delete", "delete-range", "brush", "eraser"]) $(id).disabled = entity.locked;
  }
}
