// Frames and id maps of the open result: fetched in ranges, kept up to a number of bytes, the ones used last longest.

import { getBytes } from "./server.js";

const MAP_RANGE = 16;
const FRAME_RANGE = 8;
const MAP_BYTES = 64 * 2 ** 20;
const FRAME_BYTES = 64 * 2 ** 20;
const BITMAPS = 24;

class Ranges {
  // `load(start, count)` gives [value, bytes] for each frame of a range.
  constructor(range, maxBytes, total, load) {
    Object.assign(this, { range, maxBytes, total, load, values: new Map(), bytes: 0, pending: new Map(), generation: 0 });
  }

  get(index) {
    const entry = this.values.get(index);
    if (!entry) return undefined;
    this.values.delete(index); // to the end: used last
    this.values.set(index, entry);
    return entry[0];
  }

  fetch(index) {
    const start = index - (index % this.range);
    if (!this.pending.has(start)) {
      const generation = this.generation;
      const count = Math.min(this.range, this.total - start);
      const loading = this.load(start, count).then(
        (entries) => {
          if (generation !== this.generation) return;
          this.pending.delete(start);
          entries.forEach((entry, k) => this.put(start + k, entry));
        },
        (error) => {
          if (generation === this.generation) this.pending.delete(start);
          throw error;
        },
      );
      this.pending.set(start, loading);
    }
    return this.pending.get(start);
  }

  put(index, entry) {
    const old = this.values.get(index);
    if (old) this.bytes -= old[1];
    this.values.delete(index);
    this.values.set(index, entry);
    this.bytes += entry[1];
    for (const [key, value] of this.values) {
      if (this.bytes <= this.maxBytes || this.values.size <= this.range) break;
      this.values.delete(key);
      this.bytes -= value[1];
    }
  }

  // Frames that half of the cache holds, by the mean size of those in it.
  room() {
    const mean = this.bytes / this.values.size || 0;
    return Math.max(this.range, Math.floor(this.maxBytes / 2 / Math.max(mean, 1)));
  }

  async need(index) {
    let value = this.get(index);
    while (value === undefined) {
      await this.fetch(index);
      value = this.get(index);
    }
    return value;
  }

  clear() {
    this.generation += 1;
    this.values.clear();
    this.pending.clear();
    this.bytes = 0;
  }
}

export function unpackMaps(buffer) {
  const words = new Uint32Array(buffer);
  const maps = [];
  let at = 1;
  for (let k = 0; k < words[0]; k++) {
    const n = words[at];
    const ids = words.slice(at + 1, at + 1 + n);
    const lengths = words.slice(at + 1 + n, at + 1 + 2 * n);
    maps.push([{ ids, lengths }, 8 * n]);
    at += 1 + 2 * n;
  }
  return maps;
}

function unpackFrames(buffer) {
  const view = new DataView(buffer);
  const frames = [];
  let at = 4;
  for (let k = 0; k < view.getUint32(0, true); k++) {
    const size = view.getUint32(at, true);
    frames.push([new Blob([new Uint8Array(buffer, at + 4, size)], { type: "image/jpeg" }), size]);
    at += 4 + size;
  }
  return frames;
}

export class Media {
  constructor(key, total) {
    const ask = (kind, start, count) => getBytes(`results/${key}/${kind}?start=${start}&count=${count}`);
    this.total = total;
    this.maps = new Ranges(MAP_RANGE, MAP_BYTES, total, async (s, c) => unpackMaps(await ask("maps", s, c)));
    this.jpegs = new Ranges(FRAME_RANGE, FRAME_BYTES, total, async (s, c) => unpackFrames(await ask("frames", s, c)));
    this.bitmaps = new Map();
    this.noFrames = ""; // why there are none
  }

  map(index) {
    return this.maps.need(index);
  }

  // The picture of a frame, or null where the result has none.
  async bitmap(index) {
    if (this.noFrames) return null;
    if (!this.bitmaps.has(index)) {
      const decoded = this.jpegs.need(index).then((blob) => createImageBitmap(blob));
      this.bitmaps.set(index, decoded);
      decoded.catch(() => this.bitmaps.delete(index));
      for (const [key, old] of this.bitmaps) {
        if (this.bitmaps.size <= BITMAPS) break;
        this.bitmaps.delete(key);
        old.then((bitmap) => setTimeout(() => bitmap.close(), 1000), () => {});
      }
    }
    try {
      return await this.bitmaps.get(index);
    } catch (error) {
      if (error.status !== 422) throw error;
      this.noFrames = error.message;
      return null;
    }
  }

  isReady(index) {
    return this.maps.values.has(index) && (Boolean(this.noFrames) || this.jpegs.values.has(index));
  }

  // While a video plays: fetches what comes next, as much of it as half the cache holds.
  ahead(index, frames) {
    const end = Math.min(index + frames, this.total);
    for (const ranges of this.noFrames ? [this.maps] : [this.maps, this.jpegs]) this.fill(ranges, index, Math.min(end, index + ranges.room()));
    if (!this.noFrames) for (let k = index; k < Math.min(index + 4, end); k += 1) if (this.jpegs.values.has(k)) this.bitmap(k);
  }

  // One range at a time, so that the server decodes them in their order; never back to one that a full cache has dropped.
  fill(ranges, index, end) {
    let next = index;
    while (next < end && ranges.values.has(next)) next += 1;
    if (next >= Math.min(end, this.total) || ranges.pending.size) return;
    const after = next - (next % ranges.range) + ranges.range;
    ranges.fetch(next).then(() => this.fill(ranges, after, end), () => {});
  }

  // After an edit all maps may differ.
  edited() {
    this.maps.clear();
  }

  get bytes() {
    return this.maps.bytes + this.jpegs.bytes;
  }

  close() {
    this.total = 0;
    this.maps.clear();
    this.jpegs.clear();
    for (const old of this.bitmaps.values()) old.then((bitmap) => bitmap.close(), () => {});
    this.bitmaps.clear();
  }
}
