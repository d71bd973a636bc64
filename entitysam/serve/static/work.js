// Work that takes longer: the review list, exports, uploads; with progress, cancel and download.

import { getJson, headers, ServerError } from "./server.js";

const $ = (id) => document.getElementById(id);
const ACTIVE = ["waiting", "running"];

export class Work {
  constructor(app, on) {
    Object.assign(this, { app, on, findings: [], current: -1, polling: false });
    for (const button of document.querySelectorAll("[data-export]")) {
      button.addEventListener("click", () => this.begin("exports", { kind: button.dataset.export }));
    }
    $("export-format").addEventListener("click", () => this.begin("exports", { kind: $("format").value }));
    $("format").addEventListener("change", () => this.sayLosses());
    $("tab-export").addEventListener("click", () => this.formats ?? this.listFormats());
    $("export-view").addEventListener("click", () => this.saveView());
    $("share").addEventListener("click", () => this.share());
    $("upload").addEventListener("click", () => this.upload());
    $("correct").addEventListener("click", () => this.correct());
    $("renew").addEventListener("click", () => this.review());
    $("next-finding").addEventListener("click", () => this.move(1));
    $("previous-finding").addEventListener("click", () => this.move(-1));
    $("tab-review").addEventListener("click", () => this.reviewed !== `${app.key} ${app.state?.revision}` && this.review());
    $("tab-new").addEventListener("click", () => this.listSources());
    $("source").addEventListener("change", () => this.nameSource());
    $("use-source").addEventListener("click", () => this.useSource());
    this.listSources();
    this.poll();
  }

  // A job for the open result.
  async begin(path, json) {
    if (this.app.key) await this.start(`results/${this.app.key}/${path}`, json);
    else this.on.notice("Open a result first.");
  }

  async start(path, json) {
    try {
      await getJson(path, { json });
    } catch (error) {
      this.on.notice(error.message);
    }
    this.poll();
  }

  // -- jobs

  async poll() {
    if (this.polling) return;
    this.polling = true;
    try {
      for (;;) {
        const jobs = await getJson("jobs");
        this.show(jobs);
        if (!jobs.some((job) => ACTIVE.includes(job.state))) break;
        await new Promise((resolve) => setTimeout(resolve, 400));
      }
    } catch (error) {
      this.on.notice(error.message);
    }
    this.polling = false;
  }

  show(jobs) {
    for (const [kind, list] of [["export", $("exports")], ["segment", $("uploads")], ["follow", $("follows")], ["correct", $("correctings")]]) {
      const shown = new Map([...list.children].map((item) => [item.dataset.key, item]));
      list.replaceChildren(...jobs.filter((job) => job.kind === kind).reverse().map((job) => {
        const old = shown.get(job.key);
        const item = old?.dataset.state === job.state ? old : this.item(job); // a button that is being pressed stays
        this.advance(item, job);
        return item;
      }));
    }
    const finished = jobs.filter((job) => job.kind === "segment" && job.state === "done").length;
    if (this.finished !== undefined && finished > this.finished) this.on.finished();
    this.finished = finished;
  }

  advance(item, job) {
    const bar = item.querySelector("progress");
    if (!bar) return;
    bar.hidden = job.state === "waiting";
    if (job.state === "running" && job.total) {
      bar.max = job.total;
      bar.value = job.done;
    }
    item.querySelector(".steps").textContent = job.state === "waiting" ? "waits for others" : job.stopping ? "stops after this frame…" : `${job.done}${job.total ? ` of ${job.total}` : ""} frames`;
  }

  item(job) {
    const element = (name, properties, ...children) => {
      const made = Object.assign(document.createElement(name), properties);
      made.append(...children);
      return made;
    };
    const row = element("div", { className: "row" }, element("span", { className: "title", textContent: job.title }));
    const item = element("li", {}, row);
    Object.assign(item.dataset, { state: job.state, key: job.key });
    if (ACTIVE.includes(job.state)) {
      const cancel = element("button", { textContent: "Cancel" });
      cancel.addEventListener("click", () => this.start(`jobs/${job.key}/cancel`, {}));
      row.append(cancel);
      const bar = element("progress", {});
      bar.setAttribute("aria-label", `${job.title}: progress`);
      item.append(bar, element("span", { className: "quiet steps" }));
    } else if (job.download) {
      row.append(element("a", { href: job.download, textContent: "Download", download: "" }));
    } else if (job.result && job.kind === "segment") {
      const open = element("button", { textContent: "Open" });
      open.addEventListener("click", () => this.on.open(job.result));
      row.append(open);
    }
    const isSaid = job.state === "cancelled" || (job.state === "done" && !job.download && job.kind !== "segment");
    const note = job.message || (isSaid ? job.state : "");
    if (note) item.append(element("span", { className: "quiet", textContent: note }));
    return item;
  }

  // -- uploads

  async upload() {
    const file = $("file").files[0];
    if (!file) {
      this.on.notice("Choose a video or an image first.");
      return;
    }
    const query = new URLSearchParams({ name: file.name, online: $("way").value === "online" });
    if ($("max-frames").value) query.set("max_frames", $("max-frames").value);
    await this.give(`/api/uploads?${query}`, file, $("upload"), $("file"));
  }

  async correct() {
    const file = $("corrected").files[0];
    if (!file || !this.app.key) {
      this.on.notice(file ? "Open a result first." : "Choose the XML of CVAT first.");
      return;
    }
    await this.give(`/api/results/${this.app.key}/corrections`, file, $("correct"), $("corrected"));
  }

  // -- videos and streams that the server offers

  async listSources() {
    try {
      this.sources = await getJson("sources");
    } catch (error) {
      this.on.notice(error.message);
      return;
    }
    const chosen = $("source").value;
    $("source").replaceChildren(...this.sources.map(({ name }) => new Option(name, name)));
    if (this.sources.some(({ name }) => name === chosen)) $("source").value = chosen;
    $("given").hidden = !this.sources.length;
    this.nameSource();
  }

  get source() {
    return this.sources?.find(({ name }) => name === $("source").value);
  }

  nameSource() {
    if (!this.app.live?.running) $("use-source").textContent = this.source?.live ? "Start" : "Segment";
  }

  async useSource() {
    const { name, live } = this.source;
    if (this.app.live.running || live) {
      await this.app.live.toggle(name);
      this.nameSource();
      return;
    }
    const json = { name, online: $("way").value === "online" };
    if ($("max-frames").value) json.max_frames = Number($("max-frames").value);
    await this.start("sources", json);
  }

  // Sends a file; its button shows how far it is.
  async give(path, file, button, field) {
    const text = button.textContent;
    button.disabled = true;
    try {
      await this.send(path, file, (share) => (button.textContent = `Sending ${Math.round(100 * share)} %`));
      field.value = "";
    } catch (error) {
      this.on.notice(error.message, true);
    }
    button.disabled = false;
    button.textContent = text;
    this.poll();
  }

  // fetch tells nothing of the progress of a body that is sent
  send(path, file, onProgress) {
    return new Promise((resolve, reject) => {
      const sending = new XMLHttpRequest();
      sending.open("POST", path);
      for (const [name, value] of Object.entries(headers())) sending.setRequestHeader(name, value);
      sending.setRequestHeader("Content-Type", "application/octet-stream");
      sending.upload.addEventListener("progress", (event) => onProgress(event.loaded / event.total));
      const fail = () => {
        let text = "";
        try {
          text = JSON.parse(sending.responseText).error;
        } catch {
          text = "The server has ended the upload: it is too large, or the server has stopped.";
        }
        reject(new ServerError(text, sending.status));
      };
      sending.addEventListener("load", () => (sending.status === 200 ? resolve() : fail()));
      sending.addEventListener("error", fail);
      sending.send(file);
    });
  }

  // -- exports

  async listFormats() {
    this.formats = await getJson("formats");
    $("format").replaceChildren(...this.formats.map((format) => new Option(format.title, format.kind)));
    this.sayLosses();
  }

  sayLosses() {
    const { loses } = this.formats.find((format) => format.kind === $("format").value);
    $("loses").textContent = loses === "nothing" ? "This format holds everything." : `This format does not hold: ${loses}.`;
  }

  saveView() {
    const { app } = this;
    if (!app.meta) {
      this.on.notice("Open a result first.");
      return;
    }
    app.picture.canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${app.meta.title}-${app.meta.names[app.frame]}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    });
  }

  async share() {
    if (!this.app.key) {
      this.on.notice("Open a result first.");
      return;
    }
    try {
      const { link } = await getJson(`results/${this.app.key}/share`, { json: {} });
      $("link").textContent = `${location.origin}/#link=${link}`;
      $("link").hidden = false;
    } catch (error) {
      this.on.notice(error.message);
    }
  }

  // -- review

  // The list is of one result; of another one it is made when it is looked at.
  opened() {
    this.list([]);
    this.reviewed = $("review-state").textContent = "";
    if (!$("panel-review").hidden) this.review();
  }

  async review() {
    const { app } = this;
    const key = app.key;
    if (!key || this.reviewing === key) return;
    this.reviewing = key;
    try {
      for (;;) {
        const answer = await getJson(`results/${key}/review`);
        if (key !== app.key) break;
        if (!answer.job) this.list(answer.findings);
        $("review-state").textContent = answer.job
          ? `Looks at frame ${answer.job.done} of ${answer.job.total}…`
          : answer.findings.length ? `${answer.findings.length} entries` : "Nothing looks wrong.";
        if (!answer.job) {
          $("findings").dataset.revision = answer.revision;
          this.reviewed = `${key} ${answer.revision}`;
          break;
        }
        await new Promise((resolve) => setTimeout(resolve, 400));
      }
    } catch (error) {
      if (key === app.key) $("review-state").textContent = error.message;
    }
    if (this.reviewing === key) this.reviewing = "";
  }

  list(findings) {
    this.findings = findings;
    this.current = -1;
    const name = (id) => {
      const entity = this.app.picture.entities.get(id);
      return entity?.name ? `${entity.name} ${id}` : `entity ${id}`;
    };
    $("findings").replaceChildren(...findings.map((finding, k) => {
      const button = document.createElement("button");
      button.className = "finding";
      const at = Object.assign(document.createElement("span"), { className: "at", textContent: finding.frame });
      const text = finding.text.replace("{0}", name(finding.ids[0])).replace("{1}", name(finding.ids[1]));
      button.append(at, Object.assign(document.createElement("span"), { textContent: text[0].toUpperCase() + text.slice(1) }));
      button.setAttribute("aria-label", `Frame ${finding.frame}: ${text}`);
      button.addEventListener("click", () => this.go(k));
      const item = document.createElement("li");
      item.append(button);
      return item;
    }));
  }

  move(step) {
    if (this.findings.length) this.go(Math.min(Math.max(this.current + step, 0), this.findings.length - 1));
  }

  go(index) {
    const items = $("findings").children;
    items[this.current]?.classList.replace("current", "seen");
    this.current = index;
    items[index].classList.add("current");
    items[index].scrollIntoView({ block: "nearest" });
    const finding = this.findings[index];
    const there = finding.ids.filter((id) => this.app.picture.entities.has(id));
    this.on.seek(finding.frame, true);
    if (there.length) this.on.select(there[0]);
    if (there.length > 1) this.on.select(there[1], true);
  }
}
