// The stages of a job: where each is, what it does now, and what its time goes into.

import {el, keyed, setAttribute, setText} from "./dom.js";
import * as format from "./format.js";

const parts = ["forward", "recompute", "backward", "optimizer"];

export class Stages {
  constructor({rows}) {
    this.rows = rows;
    this.done = new Map();  // By stage: the newest StageDone.
  }

  takeDone(stagesDone) {
    for (const stage of stagesDone.stages ?? []) this.done.set(format.num(stage.stage), stage);
  }

  // Another attempt cuts the model anew.
  forget() {
    this.done.clear();
  }

  render(job) {
    const stages = (job.stage_worker ?? []).map((worker, stage) => ({
      stage, job,
      index: format.num(worker),
      worker: job.workers?.[format.num(worker)] ?? "",
      layers: format.num(job.balance?.[stage]),
      busy: job.last_step?.stage_busy?.[stage],
      activity: job.activities?.[format.num(worker)],
      done: this.done.get(stage),
      saved: this.done.get(stage)?.peak_saved_bytes ?? job.last_step?.stage_peak_saved_bytes?.[stage],
    }));
    keyed(this.rows, stages, ({stage}) => stage, makeRow, updateRow);
  }
}

function cell(name, label, ...children) {
  return el("td", {role: "cell", class: name, "data-label": label}, ...children);
}

function makeRow({stage}) {
  const bar = el("span", {class: "split", role: "img"}, ...parts.map((part) => el("span", {class: part})));
  return el("tr", {role: "row"},
    el("th", {role: "rowheader", scope: "row", class: "number"}, String(stage)),
    cell("worker", "Worker"),
    cell("number layers", "Layers"),
    cell("doing", "Now"),
    cell("time", "Time of the step", bar, el("span", {class: "of"})),
    cell("waits", "Waits for"),
    cell("number sent", "Sent"),
    cell("number saved", "Saved activations"));
}

function updateRow(row, {worker, layers, busy, activity, done, saved, job}) {
  const at = (name) => row.querySelector(`.${name}`);
  setText(at("worker"), worker);
  setText(at("layers"), format.count(layers));
  setText(at("doing"), job.state === "STATE_PAUSED" ? "paused" : format.activity(activity));
  const seconds = done ? secondsOf(done) : null;
  updateSplit(at("split"), seconds);
  setText(at("of"), seconds ? `${busyOf(seconds)} busy` : busy !== undefined ? `${format.percent(format.num(busy))} busy` : "");
  setText(at("waits"), done ? waitsOf(done, job) : "–");
  setText(at("sent"), done ? format.bytes(sum(done.traffic, "sent_bytes")) : "–");
  setText(at("saved"), saved !== undefined ? format.bytes(saved) : "–");
}

const sum = (list, field) => (list ?? []).reduce((total, one) => total + format.num(one[field]), 0);

function secondsOf(done) {
  const seconds = Object.fromEntries([...parts, "idle"].map((part) => [part, format.num(done[part])]));
  seconds.all = Object.values(seconds).reduce((a, b) => a + b, 0);
  return seconds;
}

// Styles are set by properties, which the page's policy allows, where an attribute would not be.
function updateSplit(bar, seconds) {
  for (const part of parts) {
    bar.querySelector(`.${part}`).style.width = seconds?.all > 0 ? `${100 * seconds[part] / seconds.all}%` : "0";
  }
  for (const name of ["aria-label", "title"]) setAttribute(bar, name, seconds ? splitWords(seconds) : "no step is done yet");
}

const busyOf = (seconds) => format.percent(seconds.all > 0 ? 1 - seconds.idle / seconds.all : 0);

function splitWords(seconds) {
  const share = (part) => format.percent(seconds.all > 0 ? seconds[part] / seconds.all : 0);
  return `${busyOf(seconds)} busy: forward ${share("forward")}, ` +
    (seconds.recompute > 0 ? `recompute ${share("recompute")}, ` : "") + `backward ${share("backward")}, optimizer ${share("optimizer")}`;
}

function waitsOf(done, job) {
  const longest = [...(done.traffic ?? [])].sort((a, b) => format.num(b.wait_nanos) - format.num(a.wait_nanos))[0];
  if (!longest || format.num(longest.wait_nanos) === 0) return "nobody";
  return `${job.workers?.[format.num(longest.worker)] ?? ""}, ${format.seconds(format.num(longest.wait_nanos) / 1e9)}`;
}
