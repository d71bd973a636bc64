// The page: opens a result, moves through it, and keeps picture, timeline and tools at the same state.

import { getBytes, getJson } from "./server.js";
import { Live } from "./live.js";
import { Media } from "./media.js";
import { Picture } from "./picture.js";
import { Timeline } from "./timeline.js";
import { Tools } from "./tools.js";
import { Work } from "./work.js";

const $ = (id) => document.getElementById(id);
const app = { key: "", meta: null, state: null, frame: 0, selected: 0, other: 0, playing: false };
window.entitysam = app; // for a look from the console

const picture = new Picture($("picture"), $("picture-box"));
const timeline = new Timeline(document.querySelector(".timeline"), { seek: (frame) => seek(frame, true), select });
const tools = new Tools(app, picture, { notice, seek, select, changed, redraw: () => picture.draw() });
const work = new Work(app, { notice, seek, select, open: (key) => guarded(() => open(key)), finished: () => guarded(openFirst) });
const live = new Live(app, picture, {
  notice,
  open: (key) => guarded(async () => {
    await listResults();
    await open(key);
  }),
  started: async () => {
    stop();
    await tools.busy; // edits of what was open
    $("empty").hidden = true;
    app.key = ""; // what was open is drawn no more
    app.meta = app.state = null;
    timeline.close();
    tools.setPrompt(null);
    work.opened();
    for (const id of ["count", "of", "time"]) $(id).textContent = "";
    $("frame").value = 0;
    $("result").value = "";
    document.title = "entitysam";
    select(0);
    tools.update();
  },
});
Object.assign(app, { picture, timeline, tools, work, live });

export function notice(text, isLasting = false) {
  $("notice").firstChild.textContent = text && text[0].toUpperCase() + text.slice(1);
  $("notice").hidden = !text;
  clearTimeout(notice.timer);
  if (text && !isLasting) notice.timer = setTimeout(() => notice(""), 8000);
}

async function guarded(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") notice(error.message);
    return undefined;
  }
}

// -- results

async function listResults() {
  const results = await getJson("results");
  $("result").replaceChildren(...results.filter((r) => r.ready).map((r) => new Option(r.title, r.key)));
  $("result").hidden = !results.length;
  if (app.key) $("result").value = app.key;
  return results;
}

// After a job: what it made is in the list, and open where nothing else is.
async function openFirst() {
  const [first] = (await listResults()).filter((result) => result.ready);
  if (first && !app.key && !live.running) await open(first.key);
}

async function open(key) {
  stop();
  $("name").blur(); // takes over what is typed
  await tools.busy; // edits of what was open
  const { state, ...meta } = await getJson(`results/${key}`);
  app.media?.close();
  Object.assign(app, { key, meta, state: null, frame: 0, selected: 0, other: 0, media: new Media(key, meta.frames) });
  sessionStorage.setItem("result", key);
  $("result").value = key;
  document.title = `${meta.title} · entitysam`;
  picture.open(meta.width, meta.height);
  tools.setPrompt(null);
  timeline.open(meta.frames, meta.times);
  $("frame").max = meta.frames - 1;
  $("of").textContent = `of ${meta.frames - 1}`;
  const remembered = Number(sessionStorage.getItem(`frame ${key}`)) || 0;
  await changed(key, state);
  work.opened();
  await seek(Math.min(remembered, meta.frames - 1));
  if (state.set_aside) notice(`The edits in this folder belong to an earlier run; they are kept in ${state.set_aside}.`, true);
}

// Takes over a state after edits of a result, of this tab or of another one.
async function changed(key, state) {
  const isOld = () => key !== app.key || (app.state && state.revision <= app.state.revision);
  if (isOld()) return;
  const lanes = new Uint8Array(await getBytes(`results/${key}/lanes`));
  if (isOld()) return; // a newer state came while the lanes were read
  app.state = state;
  app.media.edited();
  picture.entities = new Map(state.entities.map((entity) => [entity.id, entity]));
  timeline.set(state.entities, lanes, $("sort").value);
  $("count").textContent = state.entities.length;
  if (!picture.entities.has(app.selected) && app.selected !== tools.fresh) app.selected = 0;
  if (!picture.entities.has(app.other)) app.other = 0;
  select(app.selected);
  await show();
}

async function follow() {
  let version = -1;
  for (;;) {
    try {
      const news = await getJson(`events?version=${version}`);
      if (version !== -1 || news.version) await listResults();
      if (follow.lost) {
        notice("");
        work.poll();
      }
      follow.lost = false;
      version = news.version;
      const { key } = app;
      if (key && app.state && !(key in news.revisions)) notice("The server does not have this result open any more.", true);
      if (key && app.state && news.revisions[key] > app.state.revision) await changed(key, await getJson(`results/${key}/state`));
    } catch (error) {
      follow.lost = true;
      notice(error.message, true);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

// -- frames

// A frame is drawn only if it is still the one to be seen, in the state of edits in which its map was asked for.
async function show() {
  const { frame, media, state } = app;
  const [map, bitmap] = await Promise.all([media.map(frame), media.bitmap(frame)]);
  if (!app.meta || frame !== app.frame || media !== app.media || state !== app.state) return false;
  $("empty").hidden = Boolean(bitmap) || !media.noFrames;
  $("empty").textContent = media.noFrames ? `No frames: ${media.noFrames}` : "";
  picture.show(map, bitmap);
  Object.assign(document.body.dataset, { frame, revision: state?.revision ?? 0, result: app.meta.title });
  return true;
}

async function seek(frame, isDrag = false) {
  if (!app.meta) return;
  if (isDrag) stop();
  app.frame = Math.min(Math.max(Math.round(frame), 0), app.meta.frames - 1);
  sessionStorage.setItem(`frame ${app.key}`, app.frame);
  const time = app.meta.times[app.frame];
  if (document.activeElement !== $("frame") || !isTyping()) $("frame").value = app.frame;
  $("time").textContent = `${Math.floor(time / 60)}:${(time % 60).toFixed(2).padStart(5, "0")}`;
  timeline.seek(app.frame);
  tools.moved();
  clearTimeout(seek.rest);
  const { media } = app;
  if (!app.playing) seek.rest = setTimeout(() => media.ahead(app.frame, 40), 300); // where one rests, one may play
  await guarded(show);
}

let clock = null; // {start: milliseconds, from: seconds}

function play() {
  if (!app.meta || app.playing) return;
  if (app.frame === app.meta.frames - 1) seek(0);
  app.playing = true;
  app.drawn = 0;
  clock = null;
  app.media.ahead(app.frame, 24);
  $("play").classList.add("on");
  $("play").setAttribute("aria-label", "Stop");
  requestAnimationFrame(tick);
}

function stop() {
  app.playing = false;
  $("play").classList.remove("on");
  $("play").setAttribute("aria-label", "Play");
}

async function tick(now) {
  if (!app.playing) return;
  const { times, frames } = app.meta;
  clock ??= { start: now, from: times[app.frame] };
  let next = app.frame;
  const time = clock.from + (now - clock.start) / 1000;
  while (next + 1 < frames && times[next + 1] <= time) next += 1;
  if (next !== app.frame) {
    app.media.ahead(next, 40);
    if (app.media.isReady(next)) {
      await seek(next);
      app.drawn += 1;
    } else {
      clock = null; // waits for the server and goes on from here
      await Promise.allSettled([app.media.maps.need(next), app.media.noFrames ? null : app.media.jpegs.need(next)]);
    }
    if (app.frame === frames - 1) stop();
  }
  requestAnimationFrame(tick);
}

// -- entities

function select(id, isOther = false) {
  if (!isOther && id !== app.selected) $("name").blur(); // a name that is typed belongs to the entity of before
  if (isOther) app.other = id === app.selected ? 0 : id;
  else app.selected = id;
  if (app.other === app.selected) app.other = 0;
  picture.selected = app.selected;
  if (!app.meta) return;
  timeline.select(app.selected, app.other);
  tools.update();
  picture.draw();
}

// -- controls

function isTyping() {
  const element = document.activeElement;
  return element instanceof HTMLInputElement && ["text", "number"].includes(element.type);
}

function setOption(id, value) {
  $(id).checked = value;
  picture.options[id] = value;
  document.querySelector(".stage").classList.toggle("side", picture.options.side);
  picture.draw();
}

for (const id of ["outlines", "labels", "alone", "side"]) $(id).addEventListener("change", () => setOption(id, $(id).checked));
$("opacity").addEventListener("input", () => {
  picture.options.opacity = $("opacity").value / 100;
  picture.draw();
});
$("play").addEventListener("click", () => (app.playing ? stop() : play()));
$("first").addEventListener("click", () => seek(0, true));
$("back").addEventListener("click", () => seek(app.frame - 1, true));
$("forward").addEventListener("click", () => seek(app.frame + 1, true));
$("frame").addEventListener("change", () => {
  seek($("frame").value ? Number($("frame").value) : app.frame, true);
  $("frame").value = app.frame;
});
$("frame").addEventListener("keydown", (event) => event.key === "Enter" && $("frame").blur());
$("sort").addEventListener("change", () => timeline.sort($("sort").value));
$("zoom-in").addEventListener("click", () => timeline.zoom(0.5));
$("zoom-out").addEventListener("click", () => timeline.zoom(2));
$("result").addEventListener("change", () => guarded(() => open($("result").value)));
$("close-notice").addEventListener("click", () => notice(""));
$("help").addEventListener("click", () => $("keys").showModal());
const zoom = (factor) => app.meta && picture.zoomBy(factor, picture.focus(), true);
$("nearer").addEventListener("click", () => zoom(2));
$("farther").addEventListener("click", () => zoom(0.5));
new ResizeObserver(() => picture.draw()).observe($("picture-box"));

const tabs = [...document.querySelectorAll("[role=tab]")];
export function showTab(tab) {
  for (const one of tabs) {
    one.setAttribute("aria-selected", String(one === tab));
    one.tabIndex = one === tab ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = one !== tab;
  }
}
tabs.forEach((tab, k) => {
  tab.addEventListener("click", () => showTab(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(k + step + tabs.length) % tabs.length];
    showTab(next);
    next.focus();
    event.stopPropagation();
    event.preventDefault();
  });
});

const KEYS = {
  " ": () => (app.playing ? stop() : play()),
  ArrowLeft: (event) => seek(app.frame - (event.shiftKey ? 10 : 1), true),
  ArrowRight: (event) => seek(app.frame + (event.shiftKey ? 10 : 1), true),
  Home: () => seek(0, true),
  End: () => seek(app.meta.frames - 1, true),
  ArrowUp: () => select(timeline.neighbour(-1)),
  ArrowDown: () => select(timeline.neighbour(1)),
  "+": () => timeline.zoom(0.5),
  "-": () => timeline.zoom(2),
  a: () => setOption("alone", !picture.options.alone),
  o: () => setOption("outlines", !picture.options.outlines),
  t: () => setOption("labels", !picture.options.labels),
  d: () => setOption("side", !picture.options.side),
  z: (event) => zoom(event.shiftKey ? 0.5 : 2),
  f: () => work.move(1),
  p: () => work.move(-1),
  "?": () => $("keys").showModal(),
  Escape: () => (tools.brush ? tools.setBrush("") : select(0)),
};

document.addEventListener("keydown", (event) => {
  if ((!app.meta && event.key !== "?") || document.querySelector("dialog[open]")) return;
  const target = event.target;
  if (isTyping() || target instanceof HTMLSelectElement) return;
  if (target instanceof HTMLInputElement && ["range", "color"].includes(target.type)) return;
  if (event.key === " " && target instanceof HTMLButtonElement && target.id !== "play") return;
  if (event.key === " " && target instanceof HTMLInputElement) return;
  if (target.getAttribute?.("role") === "tab" && event.key.startsWith("Arrow")) return;
  const isCommand = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (isCommand && key === "z") tools.step(event.shiftKey ? "redo" : "undo");
  else if (isCommand && key === "y") tools.step("redo");
  else if (isCommand || event.altKey) return;
  else if (KEYS[key]) KEYS[key](event);
  else if (!tools.key(key, event)) return;
  event.preventDefault();
});

// -- start

guarded(async () => {
  const place = new URLSearchParams(location.hash.slice(1));
  const link = place.get("link");
  let key = place.get("result") ?? sessionStorage.getItem("result");
  if (link) {
    history.replaceState(null, "", location.pathname);
    ({ key } = await getJson(`results/follow/${encodeURIComponent(link)}`, { method: "POST" }));
  }
  const results = (await listResults()).filter((result) => result.ready);
  const chosen = results.find((result) => result.key === key) ?? results[0];
  if (chosen) await open(chosen.key);
  else {
    $("empty").hidden = false;
    $("empty").textContent = "Nothing is open yet. Upload a video under New, or start with a result: entitysam serve out/demo";
    showTab($("tab-new"));
  }
  document.body.dataset.started = "";
  follow();
});
