// How far a job is, how fast, and how long it will take.

import {num, timeOf} from "./format.js";

export const terminal = new Set(["STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELLED"]);
const moving = new Set(["STATE_RUNNING"]);

const windowMillis = 30_000;  // Of what was seen of a job, over which its speed is taken.
const seen = new Map();       // By id: [{time, done}], the oldest first.

// {done, total, unit, share}: optimizer steps in training, mini-batches in inference.
export function progressOf(job) {
  const training = num(job.steps_total) > 0;
  const done = num(training ? job.steps_done : job.rounds_done);
  const total = num(training ? job.steps_total : job.rounds_total);
  return {done, total, unit: training ? "step" : "mini-batch", share: total > 0 ? Math.min(1, done / total) : 0};
}

// Takes note of where a job is; call it for each update that is shown.
export function note(job, now = Date.now()) {
  if (!moving.has(job.state)) return seen.delete(job.id);
  const {done} = progressOf(job);
  const history = seen.get(job.id) ?? [];
  const last = history.at(-1);
  if (last && done < last.done) history.length = 0;  // Another attempt, from an earlier checkpoint.
  if (!last || done !== last.done) history.push({time: now, done});
  while (history.length > 2 && now - history[0].time > windowMillis) history.shift();
  return seen.set(job.id, history);
}

// Steps or mini-batches per second; 0 when it is not known.
export function speedOf(job) {
  const history = seen.get(job.id);
  if (history?.length > 1) {
    const first = history[0], last = history.at(-1);
    if (last.time - first.time > 2000) return (last.done - first.done) / ((last.time - first.time) / 1000);
  }
  const step = num(job.last_step?.step_seconds);
  return step > 0 ? 1 / step : 0;
}

// NaN when it cannot be told.
export function secondsLeft(job) {
  if (!moving.has(job.state)) return NaN;
  const {done, total} = progressOf(job), speed = speedOf(job);
  return total > 0 && speed > 0 ? (total - done) / speed : NaN;
}

// From its start to its end or until now; NaN when it has not started.
export function secondsRun(job, now = Date.now()) {
  const end = timeOf(job.end_time);
  return ((Number.isNaN(end) ? now : end) - timeOf(job.start_time)) / 1000;
}
