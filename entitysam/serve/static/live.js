// Live inputs. A frame of the browser's camera is sent when the map of the one before has arrived; of a stream, which the server
// reads, the newest frame is asked for when the one before is drawn.

import { unpackMaps } from "./media.js";
import { getJson } from "./server.js";

const $ = (id) => document.getElementById(id);
const MAX_SIDE = 640;
const EVENTS = 30; // shown

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

export class Live {
  constructor(app, picture, on) {
    Object.assign(this, { app, picture, on, running: false });
    $("camera").addEventListener("click", () => this.toggle(null));
  }

  // Starts a stream by its name, null = the camera of this browser; or stops what is running.
  async toggle(source) {
    if (this.running) {
      this.running = false;
      return;
    }
    let stream;
    if (source === null) {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: MAX_SIDE } } });
      } catch (error) {
        this.on.notice(`The camera cannot be used: ${error.message}`);
        return;
      }
    }
    this.running = true;
    await this.on.started();
    const button = $(source === null ? "camera" : "use-source");
    const text = button.textContent;
    button.textContent = "Stop";
    $("camera-state").textContent = "starts the network…";
    $("camera-events").replaceChildren();
    try {
      const { key } = await getJson("live", { json: { source } });
      if (source === null) await this.camera(key, stream);
      else await this.stream(key);
      $("camera-state").textContent = "finishes the files…";
      const result = await getJson(`live/${key}/stop`, { json: {} });
      $("camera-state").textContent = `${result.frames} ${result.frames === 1 ? "frame" : "frames"}`;
      await this.on.open(result.key);
    } catch (error) {
      this.on.notice(error.message, true);
      $("camera-state").textContent = "";
    }
    for (const track of stream?.getTracks() ?? []) track.stop();
    this.running = false;
    button.textContent = text;
  }

  async camera(key, stream) {
    const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: stream });
    await video.play();
    const scale = Math.min(1, MAX_SIDE / Math.max(video.videoWidth, video.videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    this.begin(canvas);
    while (this.running) {
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const jpeg = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
      const bitmap = await createImageBitmap(jpeg);
      const answer = await getJson(`live/${key}/frames`, { method: "POST", body: jpeg });
      const seconds = (performance.now() - this.started) / 1000;
      await this.show(answer, bitmap, answer.events.map(([kind, id]) => [seconds, kind, id]));
    }
  }

  async stream(key) {
    let after = -1;
    while (this.running) {
      const answer = await getJson(`live/${key}/newest?after=${after}`);
      if (answer.ended) break;
      if (answer.frame === after) continue; // the stream is silent
      const bitmap = await createImageBitmap(new Blob([bytes(answer.jpeg)], { type: "image/jpeg" }));
      if (after < 0) this.begin(bitmap);
      after = answer.frame;
      await this.show(answer, bitmap, answer.events);
    }
  }

  begin({ width, height }) {
    this.picture.open(width, height);
    this.started = performance.now();
    this.first = null;
  }

  // `events` = [seconds, kind, id] in their order.
  async show(answer, bitmap, events) {
    const maps = await new Response(new Blob([bytes(answer.runs)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
    this.picture.entities = new Map(answer.entities.map((entity) => [entity.id, entity]));
    this.picture.show(unpackMaps(maps)[0][0], bitmap);
    document.body.dataset.live = answer.frame;
    const now = performance.now();
    this.first ??= { frame: answer.frame, at: now }; // before it the network starts
    const rate = answer.frame > this.first.frame ? ` · ${(((answer.frame - this.first.frame) * 1000) / (now - this.first.at)).toFixed(1)} frames/s` : "";
    const count = answer.entities.length;
    $("camera-state").textContent = `${count} ${count === 1 ? "entity" : "entities"}${rate}`;
    for (const [at, kind, id] of events) {
      const item = document.createElement("li");
      item.textContent = `${at.toFixed(1)} s: entity ${id} ${kind}`;
      $("camera-events").prepend(item);
    }
    while ($("camera-events").children.length > EVENTS) $("camera-events").lastChild.remove();
  }
}
