// The camera of this browser: a frame is sent when the map of the one before has arrived.

import { unpackMaps } from "./media.js";
import { getJson } from "./server.js";

const $ = (id) => document.getElementById(id);
const MAX_SIDE = 640;
const EVENTS = 30; // shown

export class Live {
  constructor(app, picture, on) {
    Object.assign(this, { app, picture, on, running: false });
    $("camera").addEventListener("click", () => (this.running ? this.stop() : this.start()));
  }

  async start() {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: MAX_SIDE } } });
    } catch (error) {
      this.on.notice(`The camera cannot be used: ${error.message}`);
      return;
    }
    this.running = true;
    this.on.started();
    $("camera").textContent = "Stop";
    $("camera-state").textContent = "starts the network…";
    $("camera-events").replaceChildren();
    const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: stream });
    try {
      await video.play();
      const { key } = await getJson("live", { json: {} });
      await this.run(key, video);
      $("camera-state").textContent = "finishes the files…";
      const result = await getJson(`live/${key}/stop`, { json: {} });
      $("camera-state").textContent = `${result.frames} frames`;
      await this.on.open(result.key);
    } catch (error) {
      this.on.notice(error.message, true);
      $("camera-state").textContent = "";
    }
    for (const track of stream.getTracks()) track.stop();
    this.running = false;
    $("camera").textContent = "Use the camera";
  }

  stop() {
    this.running = false;
  }

  async run(key, video) {
    const scale = Math.min(1, MAX_SIDE / Math.max(video.videoWidth, video.videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    this.picture.open(canvas.width, canvas.height);
    const started = performance.now();
    while (this.running) {
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const jpeg = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
      const bitmap = await createImageBitmap(jpeg);
      const answer = await getJson(`live/${key}/frames`, { method: "POST", body: jpeg });
      const packed = Uint8Array.from(atob(answer.runs), (letter) => letter.charCodeAt(0));
      const maps = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
      this.picture.entities = new Map(answer.entities.map((entity) => [entity.id, entity]));
      this.picture.show(unpackMaps(maps)[0][0], bitmap);
      document.body.dataset.live = answer.frame;
      const seconds = (performance.now() - started) / 1000;
      $("camera-state").textContent = `${answer.entities.length} entities · ${((answer.frame + 1) / seconds).toFixed(1)} frames/s`;
      for (const [kind, id] of answer.events) {
        const item = document.createElement("li");
        item.textContent = `${seconds.toFixed(1)} s: entity ${id} ${kind}`;
        $("camera-events").prepend(item);
      }
      while ($("camera-events").children.length > EVENTS) $("camera-events").lastChild.remove();
    }
  }
}
