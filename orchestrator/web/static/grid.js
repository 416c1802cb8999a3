// The live picture of GPipe: a row per stage, a column per clock cycle, filled as the cycles are done.

import {Canvas, hatching, labelWidth} from "./canvas.js";
import {setAttribute, setText} from "./dom.js";
import * as format from "./format.js";
import {kinds} from "./states.js";

const rowHeight = 30, top = 22, gap = 2;
const leastCell = 9, mostCell = 46, textFrom = 22;
const watchable = 0.3;  // Seconds of a step from which on its cycles are shown one after the other.
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// The schedule's cells before they are done: {stage, cycle, kind, micro_batch}.
export function expected(stages, microBatches, training) {
  const cells = [], half = microBatches + stages - 1;
  for (let stage = 0; stage < stages; ++stage) {
    for (let i = 0; i < microBatches; ++i) {
      cells.push({stage, cycle: i + stage, kind: "ACTION_KIND_FORWARD", micro_batch: i});
      const back = half + microBatches - 1 - i + stages - 1 - stage;
      if (training) cells.push({stage, cycle: back, kind: "ACTION_KIND_BACKWARD", micro_batch: i});
    }
    if (training) cells.push({stage, cycle: 2 * half, kind: "ACTION_KIND_OPTIMIZER"});
  }
  return cells;
}

export class CycleGrid {
  constructor({canvas, caption}) {
    this.element = canvas;
    this.caption = caption;
    this.names = [];
    this.waiting = [];  // Cycles to be shown, with the time when they are due.
    this.lastDue = 0;
    this.picture = {round: null, cells: new Map(), cycle: -1};
    this.expected = [];
    this.shape = {stages: 0, microBatches: 0, training: true, stepSeconds: 0};
    this.canvas = new Canvas(canvas, 100, (...args) => this.paint(...args), () => labelWidth(0) + this.cycles() * leastCell);
  }

  close() {
    this.canvas.close();
    this.closed = true;
  }

  // names: the worker of each stage.
  setShape(shape, names) {
    this.shape.stepSeconds = shape.stepSeconds;
    const same = ["stages", "microBatches", "training"].every((part) => shape[part] === this.shape[part]);
    if (same && names.join("\n") === this.names.join("\n")) return;
    Object.assign(this.shape, shape);
    this.names = names;
    this.expected = expected(this.shape.stages, this.shape.microBatches, this.shape.training);
    this.canvas.height = top + Math.max(1, this.shape.stages) * rowHeight + 6;
    this.canvas.draw();
  }

  cycles() {
    const {stages, microBatches, training} = this.shape;
    const half = microBatches + stages - 1;
    return Math.max(1, training ? 2 * half + 1 : half, this.picture.cycle + 1);
  }

  // A cycle that all stages have done. Workers report many at once: they are shown in the pace of the step, at most one
  // step behind.
  add(cycle) {
    const now = performance.now(), round = format.num(cycle.round);
    const seconds = this.shape.stepSeconds;
    const pace = calm.matches || seconds < watchable ? 0 : Math.min(400, 800 * seconds / this.cycles());
    if (round !== this.lastRound) {
      for (const earlier of this.waiting) earlier.due = now;
      this.lastDue = now;
    }
    this.lastRound = round;
    this.lastDue = Math.max(now, this.lastDue + pace);
    this.waiting.push({cycle, round, due: this.lastDue});
    if (this.waiting.length > 5000) this.waiting.splice(0, 2500);
    this.play();
  }

  play() {
    if (this.playing) return;
    this.playing = true;
    const frame = () => {
      const now = performance.now();
      const due = this.waiting.findIndex((one) => one.due > now);
      const taken = this.waiting.splice(0, due < 0 ? this.waiting.length : due);
      if (taken.length > 0) this.takeAll(taken);
      this.playing = this.waiting.length > 0 && !this.closed;
      if (this.playing) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  // Of another mini-batch the picture begins anew; of the same one only what is new is painted.
  takeAll(cycles) {
    const last = cycles.at(-1).round, before = this.cycles();
    const again = this.picture.round !== last || !this.place;
    if (this.picture.round !== last) this.picture = {round: last, cells: new Map(), cycle: -1};
    const keys = cycles.filter(({round}) => round === last).flatMap(({cycle}) => this.take(cycle));
    if (again || this.cycles() !== before) return this.canvas.draw();
    for (const key of keys) this.paintDone(this.canvas.context, this.place, key, this.picture.cells.get(key), this.canvas.colour);
    this.say();
  }

  // The keys of its cells.
  take(cycle) {
    this.picture.cycle = Math.max(this.picture.cycle, format.num(cycle.cycle));
    const keys = new Set();
    for (const action of cycle.actions ?? []) {
      const key = `${format.num(action.stage)}/${format.num(action.cycle)}`;
      this.picture.cells.set(key, [...(this.picture.cells.get(key) ?? []), action]);
      keys.add(key);
    }
    return [...keys];
  }

  paint(context, width, height, colour) {
    const label = labelWidth(width), cell = Math.min(mostCell, (width - label) / this.cycles());
    const place = this.place = {cell, label, x: (cycle) => label + cycle * cell, y: (stage) => top + stage * rowHeight};
    this.paintFrame(context, place, colour);
    for (const waits of this.expected) {
      if (!this.picture.cells.has(`${waits.stage}/${waits.cycle}`)) this.paintExpected(context, place, waits, colour);
    }
    for (const [key, actions] of this.picture.cells) this.paintDone(context, place, key, actions, colour);
    this.say();
  }

  paintFrame(context, {cell, label, x, y}, colour) {
    const cycles = this.cycles(), bubble = hatching(context, colour("--bubble"));
    context.textBaseline = "middle";
    for (let stage = 0; stage < this.shape.stages; ++stage) {
      context.fillStyle = colour("--text");
      context.textAlign = "left";
      const name = this.names[stage] ?? "";
      context.fillText(fitted(context, label < 80 ? name : `${stage}  ${name}`, label - 10), 0, y(stage) + rowHeight / 2);
      context.fillStyle = bubble;
      context.fillRect(x(0), y(stage) + gap / 2, cycles * cell - gap, rowHeight - gap);
    }
    context.fillStyle = colour("--muted");
    context.textAlign = "center";
    const every = [1, 2, 5, 10, 20, 50].find((step) => step * cell >= 26) ?? 100;
    for (let cycle = 0; cycle < cycles; cycle += every) context.fillText(String(cycle), x(cycle) + cell / 2, 10);
  }

  paintExpected(context, {cell, x, y}, {stage, cycle, kind}, colour) {
    context.clearRect(x(cycle), y(stage) + gap / 2, cell - gap, rowHeight - gap);
    context.strokeStyle = colour(kinds[kind].colour);
    context.globalAlpha = 0.45;
    context.strokeRect(x(cycle) + 0.5, y(stage) + gap / 2 + 0.5, cell - gap - 1, rowHeight - gap - 1);
    context.globalAlpha = 1;
  }

  paintDone(context, {cell, x, y}, key, actions, colour) {
    const [stage, cycle] = key.split("/").map(Number);
    context.clearRect(x(cycle), y(stage) + gap / 2, cell - gap, rowHeight - gap);
    const share = (cell - gap) / actions.length;
    actions.forEach((action, index) => {
      context.fillStyle = colour(kinds[action.kind]?.colour ?? "--muted");
      context.fillRect(x(cycle) + index * share, y(stage) + gap / 2, share, rowHeight - gap);
    });
    const text = label(actions);
    if (cell < textFrom || context.measureText(text).width > cell - 3) return;
    context.fillStyle = colour("--on-action");
    context.textAlign = "center";
    context.fillText(text, x(cycle) + (cell - gap) / 2, y(stage) + rowHeight / 2);
  }

  say() {
    const {stages, microBatches} = this.shape, {round, cycle} = this.picture;
    const words = round === null ? "No clock cycle is done yet."
      : `Round ${format.count(round + 1)} of this attempt, clock cycle ${cycle + 1} of ${this.cycles()}`;
    setText(this.caption, words);
    setAttribute(this.element, "aria-label", `${stages} stages, ${microBatches} micro-batches. ${words}`);
  }
}

// `F3`, and `RB2` where what is computed again is followed by its backward.
function label(actions) {
  const letters = actions.map((action) => kinds[action.kind]?.letter ?? "?").join("");
  const micro = actions.find((action) => !["ACTION_KIND_OPTIMIZER", "ACTION_KIND_REDUCE_GRAD"].includes(action.kind));
  return micro ? `${letters}${format.num(micro.micro_batch)}` : letters;
}

export function fitted(context, text, width) {
  let fits = text;
  while (fits.length > 1 && context.measureText(fits).width > width) fits = `${fits.slice(0, -2)}…`;
  return fits;
}
