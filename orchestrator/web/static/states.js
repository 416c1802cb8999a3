// The states of jobs and workers, and what stands for each kind of work, the same everywhere on the page.

import {setAttribute, setText} from "./dom.js";
import {word} from "./format.js";

export function stateBadge(badge, job) {
  const pausing = job.paused && !["STATE_PAUSED"].includes(job.state) && !job.end_time;
  setText(badge, pausing ? `${word(job.state)}, to be paused` : word(job.state));
  setAttribute(badge, "data-state", word(job.state));
}

export function workerBadge(badge, worker) {
  const state = word(worker.state);
  setText(badge, worker.drained ? `${state}, drained` : state);
  setAttribute(badge, "data-state", worker.drained ? "drained" : state);
}

// Kinds of actions: the letter in a cell, the word in a legend, the CSS variable of the colour.
export const kinds = {
  ACTION_KIND_FORWARD: {letter: "F", word: "forward", colour: "--forward"},
  ACTION_KIND_BACKWARD: {letter: "B", word: "backward", colour: "--backward"},
  ACTION_KIND_RECOMPUTE: {letter: "R", word: "recompute", colour: "--recompute"},
  ACTION_KIND_OPTIMIZER: {letter: "OPT", word: "optimizer", colour: "--optimizer"},
  ACTION_KIND_REDUCE_GRAD: {letter: "RED", word: "reduce gradients", colour: "--optimizer"},
};

// `F3`, `OPT`
export function actionName(action) {
  const {letter} = kinds[action.kind] ?? {letter: "?"};
  return letter.length > 1 ? letter : `${letter}${Number(action.micro_batch ?? 0)}`;
}
