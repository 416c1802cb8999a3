// The workers: what each is doing, and how much of its machine it uses.

import {el, fromTemplate, keyed, onFrame, setAttribute, setText, show} from "./dom.js";
import * as format from "./format.js";
import {workerBadge} from "./states.js";

const rowsPerPage = 100;
const byName = new Intl.Collator("en", {numeric: true});

export class WorkersView {
  constructor(outlet, cluster) {
    Object.assign(this, fromTemplate("workers-view"));
    this.title = "Workers";
    this.cluster = cluster;
    this.page = 0;
    this.draw = onFrame(() => this.render());
    cluster.addEventListener("change", this.draw);
    this.parts.search.addEventListener("input", () => this.turn(0));
    this.parts.previous.addEventListener("click", () => this.turn(this.page - 1));
    this.parts.next.addEventListener("click", () => this.turn(this.page + 1));
    outlet.append(this.root);
    this.clock = setInterval(this.draw, 1000);  // Ages of heartbeats.
    this.draw();
  }

  close() {
    this.cluster.removeEventListener("change", this.draw);
    clearInterval(this.clock);
    this.closed = true;
  }

  turn(page) {
    this.page = page;
    this.draw();
  }

  render() {
    if (this.closed) return;
    const wanted = this.parts.search.value.trim().toLowerCase();
    const all = [...this.cluster.workers.values()].sort((a, b) => byName.compare(a.worker.name, b.worker.name));
    const matching = all.filter(({worker}) => textOf(worker).includes(wanted));
    const pages = Math.max(1, Math.ceil(matching.length / rowsPerPage));
    this.page = Math.min(Math.max(0, this.page), pages - 1);
    const first = this.page * rowsPerPage;
    const shown = matching.slice(first, first + rowsPerPage);
    keyed(this.parts.rows, shown, ({worker}) => worker.name, makeRow, updateRow);
    this.renderAround(all, matching.length, first, shown.length);
  }

  renderAround(all, total, first, shown) {
    const {previous, next, range, empty, table, summary} = this.parts;
    previous.disabled = this.page === 0;
    next.disabled = first + shown >= total;
    show(previous.parentElement, total > rowsPerPage);
    setText(range, shown ? `${first + 1} to ${first + shown} of ${format.count(total)}` : "");
    show(table, total > 0);
    show(empty, total === 0);
    setText(empty, all.length > 0 ? "No worker is like that."
      : "No worker has joined yet. Start one with: gpipe-worker --orchestrator HOST:PORT --name NAME");
    setText(summary, summaryOf(all));
  }
}

function summaryOf(all) {
  const counts = new Map();
  for (const {worker} of all) counts.set(format.word(worker.state), (counts.get(format.word(worker.state)) ?? 0) + 1);
  return [...counts].map(([state, count]) => `${count} ${state}`).join(", ");
}

function textOf(worker) {
  return [worker.name, worker.state, worker.hello?.device, worker.hello?.device_name, worker.attempt?.job].join(" ").toLowerCase();
}

// {used, total} bytes: a GPU's memory, or of a CPU's machine what the process has.
export function memoryOf(worker) {
  const gpu = num0(worker.use?.device_used_bytes);
  return {used: gpu > 0 ? gpu : num0(worker.use?.process_bytes), total: num0(worker.hello?.memory_bytes)};
}

const num0 = (value) => Math.max(0, format.num(value));

function cell(name, label, ...children) {
  return el("td", {role: "cell", class: name, "data-label": label}, ...children);
}

function gauge(label) {
  return [el("meter", {min: 0, max: 1, "aria-label": label}), el("span", {class: "of"})];
}

function makeRow({worker}) {
  return el("tr", {role: "row"},
    el("th", {role: "rowheader", scope: "row", class: "id"}, worker.name, el("span", {class: "reason"})),
    cell("state", "State", el("span", {class: "badge"})),
    cell("work", "Works on", el("a", {}), el("span", {class: "of doing"})),
    cell("device", "Device", el("span", {class: "what"}), el("span", {class: "of which"})),
    cell("memory", "Memory", ...gauge(`memory of ${worker.name}`)),
    cell("use", "Utilisation", ...gauge(`utilisation of ${worker.name}`), el("span", {class: "of health"}), el("span", {class: "trouble"})),
    cell("number heard", "Heard"));
}

function updateRow(row, {worker, heard}) {
  const at = (name) => row.querySelector(`.${name}`);
  workerBadge(at("badge"), worker);
  setText(at("reason"), worker.reason ?? "");
  updateWork(at("work"), worker);
  setText(at("what"), worker.hello?.device ?? "");
  setText(at("which"), [worker.hello?.device_name, threadsOf(worker)].filter(Boolean).join(", "));
  setAttribute(at("which"), "title", softwareOf(worker) || null);
  updateMemory(at("memory"), worker);
  updateUse(at("use"), worker);
  const age = format.num(worker.heartbeat_age_seconds) + (Date.now() - heard) / 1000;
  setText(at("heard"), `${age < 10 ? age.toFixed(0) : format.clock(age)}${age < 10 ? " s" : ""} ago`);
}

// What it computes with, for who points at it: `cudnn 9.19.0, driver 580.65.06`.
function softwareOf(worker) {
  return Object.entries(worker.hello?.software ?? {}).sort().map((entry) => entry.join(" ")).join(", ");
}

function threadsOf(worker) {
  const threads = format.num(worker.hello?.threads);
  return threads > 0 && worker.hello.device === "cpu" ? `${threads} thread${threads === 1 ? "" : "s"}` : "";
}

function updateWork(cell, worker) {
  const job = worker.attempt?.job ?? "", link = cell.querySelector("a");
  setText(link, job);
  setAttribute(link, "href", job ? `#/jobs/${encodeURIComponent(job)}` : null);
  const doing = format.activity(worker.activity);
  const stage = job && format.num(worker.activity?.stage) >= 0 ? `stage ${format.num(worker.activity?.stage)}: ` : "";
  setText(cell.querySelector(".doing"), job ? stage + doing : "");
}

function updateMemory(cell, worker) {
  const {used, total} = memoryOf(worker);
  const share = total > 0 ? used / total : 0;
  cell.querySelector("meter").value = share;
  setText(cell.querySelector(".of"), used > 0 ? `${format.bytes(used)} of ${format.bytes(total)}` : format.bytes(total));
}

function updateUse(cell, worker) {
  const share = worker.use === undefined ? NaN : format.num(worker.use.utilization);
  const known = share >= 0;
  show(cell.querySelector("meter"), known);
  if (known) cell.querySelector("meter").value = Math.min(1, share);
  setText(cell.querySelector(".of"), known ? format.percent(share) : "not known");
  setText(cell.querySelector(".health"), healthOf(worker.use?.gpu));
  setText(cell.querySelector(".trouble"), troubleOf(worker.use?.gpu));
}

// `54 °C, 412 W, 1,980 MHz`: what a GPU's driver says of it.
export function healthOf(gpu) {
  const figures = [[gpu?.temperature_celsius, "°C"], [gpu?.power_watts, "W"], [gpu?.clock_mhz, "MHz"]];
  return figures.filter(([value]) => num0(value) > 0).map(([value, unit]) => `${format.count(Math.round(num0(value)))} ${unit}`).join(", ");
}

// `slowed by heat, 2 memory errors`; empty: it is well.
export function troubleOf(gpu) {
  const errors = num0(gpu?.uncorrected_errors), slowed = gpu?.slowed_by ?? [];
  return [slowed.length > 0 && `slowed by ${slowed.join(" and ")}`,
    errors > 0 && `${format.count(errors)} memory error${errors === 1 ? "" : "s"}`].filter(Boolean).join(", ");
}
