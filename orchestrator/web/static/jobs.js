// The list of jobs: the newest first, those that run as they change.

import {get} from "./api.js";
import {el, fromTemplate, keyed, onFrame, setAttribute, setText, show} from "./dom.js";
import * as format from "./format.js";
import {note, progressOf, secondsLeft, secondsRun, terminal} from "./progress.js";
import {stateBadge} from "./states.js";

const rowsPerPage = 50;
const firstFetch = 200, nextFetch = 1000;
const fields = ["next_page_token", ...["id", "state", "reason", "create_time", "start_time", "end_time", "workers", "steps_done",
  "steps_total", "rounds_done", "rounds_total", "last_step", "restarts", "paused"].map((name) => `jobs.${name}`)].join(",");

const filters = {
  all: () => true,
  active: (job) => !terminal.has(job.state),
  over: (job) => terminal.has(job.state),
};

export class JobsView {
  constructor(outlet, cluster) {
    Object.assign(this, fromTemplate("jobs-view"));
    this.title = "Jobs";
    this.cluster = cluster;
    this.listed = new Map();
    this.nextPage = "";
    this.page = 0;
    this.filter = "all";
    this.draw = onFrame(() => this.render());
    this.reload = () => this.load(true);
    cluster.addEventListener("change", this.draw);
    cluster.addEventListener("synced", this.reload);
    this.bind();
    outlet.append(this.root);
    this.clock = setInterval(this.draw, 5000);  // Ages and times left.
    this.reload();
  }

  close() {
    this.cluster.removeEventListener("change", this.draw);
    this.cluster.removeEventListener("synced", this.reload);
    clearInterval(this.clock);
    this.closed = true;
  }

  bind() {
    const {search, previous, next, filters: choices} = this.parts;
    search.addEventListener("input", () => this.turn(0));
    previous.addEventListener("click", () => this.turn(this.page - 1));
    next.addEventListener("click", () => this.turn(this.page + 1));
    for (const button of choices.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        this.filter = button.dataset.filter;
        this.turn(0);
      });
    }
  }

  turn(page) {
    this.page = page;
    this.draw();
    if (this.nextPage && (this.parts.search.value || this.matching().length < (page + 2) * rowsPerPage)) this.load(false);
  }

  // A page of the server's list: the first one again, or what follows what is here.
  async load(again) {
    if (this.loading) return;
    this.loading = true;
    try {
      const page_token = again ? "" : this.nextPage;
      const answer = await get("/jobs", {page_size: page_token ? nextFetch : firstFetch, page_token, fields});
      if (again) this.listed.clear();
      for (const job of answer.jobs ?? []) this.listed.set(job.id, job);
      this.nextPage = answer.next_page_token ?? "";
      this.loaded = true;
      this.failed = "";
    } catch (error) {
      this.failed = error.message;
    } finally {
      this.loading = false;
    }
    if (!this.closed) this.draw();
  }

  // What the watch says is newer than what was listed.
  all() {
    const all = new Map([...this.listed, ...this.cluster.jobs]);
    for (const id of this.cluster.gone) all.delete(id);
    const dated = [...all.values()].map((job) => ({job, time: format.timeOf(job.create_time)}));
    return dated.sort((a, b) => b.time - a.time).map(({job}) => job);
  }

  matching() {
    const wanted = this.parts.search.value.trim().toLowerCase();
    return this.all().filter((job) => filters[this.filter](job) && job.id.toLowerCase().includes(wanted));
  }

  render() {
    if (this.closed) return;
    const jobs = this.matching();
    const pages = Math.max(1, Math.ceil(jobs.length / rowsPerPage));
    this.page = Math.min(Math.max(0, this.page), pages - 1);
    const first = this.page * rowsPerPage;
    const shown = jobs.slice(first, first + rowsPerPage);
    shown.forEach((job) => note(job));
    keyed(this.parts.rows, shown, (job) => job.id, makeRow, updateRow);
    this.renderPager(jobs.length, first, shown.length);
    this.renderEmpty(jobs.length);
  }

  renderPager(total, first, shown) {
    const {previous, next, range, filters: choices} = this.parts;
    setText(range, shown ? `${first + 1} to ${first + shown} of ${format.count(total)}${this.nextPage ? " or more" : ""}` : "");
    previous.disabled = this.page === 0;
    next.disabled = first + shown >= total;
    show(previous.parentElement, total > rowsPerPage || this.page > 0);
    for (const button of choices.querySelectorAll("button")) {
      setAttribute(button, "aria-pressed", String(button.dataset.filter === this.filter));
    }
  }

  renderEmpty(total) {
    const {empty, table} = this.parts;
    show(table, total > 0);
    show(empty, total === 0);
    const searching = this.parts.search.value || this.filter !== "all";
    setText(empty, this.failed ? `The jobs cannot be listed: ${this.failed}`
      : !this.loaded ? "Loading the jobs…"
      : searching ? "No job is like that."
      : "No job has been submitted yet. Submit one with: gpipe job submit SPEC");
  }
}

function cell(name, label, ...children) {
  return el("td", {role: "cell", class: name, "data-label": label}, ...children);
}

function makeRow(job) {
  const bar = el("progress", {max: 1, "aria-label": `progress of ${job.id}`});
  return el("tr", {role: "row"},
    el("th", {role: "rowheader", scope: "row", class: "id"},
      el("a", {href: `#/jobs/${encodeURIComponent(job.id)}`}, job.id), el("span", {class: "reason"})),
    cell("state", "State", el("span", {class: "badge"})),
    cell("progress", "Progress", bar, el("span", {class: "of"})),
    cell("number loss", "Loss"),
    cell("number rate", "Samples/s"),
    cell("number left", "Time left"),
    cell("number workers", "Workers"),
    cell("created", "Submitted"));
}

function updateRow(row, job) {
  const at = (name) => row.querySelector(`.${name}`);
  const {done, total, unit, share} = progressOf(job);
  stateBadge(at("badge"), job);
  setText(at("reason"), ["STATE_FAILED", "STATE_QUEUED"].includes(job.state) ? job.reason ?? "" : "");
  row.querySelector("progress").value = job.state === "STATE_SUCCEEDED" ? 1 : share;
  setAttribute(row.querySelector("progress"), "data-state", format.word(job.state));
  setText(at("of"), total > 0 ? `${unit} ${format.count(done)} of ${format.count(total)}` : "");
  setText(at("loss"), format.loss(job.last_step?.loss));
  setText(at("rate"), job.state !== "STATE_RUNNING" ? "–" : format.rate(job.last_step?.samples_per_second));
  setText(at("left"), terminal.has(job.state) ? `took ${format.clock(secondsRun(job))}` : format.clock(secondsLeft(job)));
  setText(at("workers"), format.count(job.workers?.length));
  setText(at("created"), format.ago(job.create_time));
  setAttribute(at("created"), "title", format.dateTime(job.create_time));
}
