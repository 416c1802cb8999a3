// The loss curve: each step, their running mean, and the evaluations.

import {Canvas, ticks} from "./canvas.js";
import {setText} from "./dom.js";
import * as format from "./format.js";

const height = 260, left = 56, right = 12, top = 10, bottom = 26;
const mostPoints = 20_000;   // Of more each second one goes.
const smoothFrom = 60;       // Points from which on a mean helps to see the trend.

export class LossChart {
  constructor({canvas, readout, scale}) {
    this.points = [];       // {step, loss, lr}, by step.
    this.evaluations = [];  // {step, loss, accuracy}
    this.readout = readout;
    this.logarithmic = false;
    this.cursor = null;     // Index of the point that is read out.
    this.canvas = new Canvas(canvas, height, (...args) => this.paint(...args));
    scale.addEventListener("click", () => {
      this.logarithmic = !this.logarithmic;
      scale.setAttribute("aria-pressed", String(this.logarithmic));
      this.canvas.draw();
    });
    canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    canvas.addEventListener("pointerleave", () => this.read(null));
    canvas.addEventListener("blur", () => this.read(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  close() {
    this.canvas.close();
  }

  // In any order, again where it was there before.
  addSteps(steps) {
    for (const step of steps) {
      if (step.loss === undefined) continue;
      const point = {step: format.num(step.step), loss: Number(step.loss), lr: step.lr};
      const last = this.points.at(-1);
      if (!last || point.step > last.step) this.points.push(point);
      else this.replace(point);
    }
    if (this.points.length > mostPoints) this.points = this.points.filter((_, index) => index % 2 === 0);
    this.canvas.draw();
  }

  replace(point) {
    const at = this.points.findIndex(({step}) => step >= point.step);
    this.points.splice(at, this.points[at].step === point.step ? 1 : 0, point);
  }

  addEvaluations(evaluations) {
    for (const evaluation of evaluations) {
      const step = format.num(evaluation.step);
      this.evaluations = this.evaluations.filter((other) => other.step !== step);
      this.evaluations.push({step, loss: Number(evaluation.loss ?? 0), accuracy: evaluation.accuracy});
    }
    this.evaluations.sort((a, b) => a.step - b.step);
    this.canvas.draw();
  }

  // Those behind a step are of an attempt that is over; another one does them again.
  dropAfter(step) {
    this.points = this.points.filter((point) => point.step <= step);
    this.evaluations = this.evaluations.filter((point) => point.step <= step);
    this.canvas.draw();
  }

  layOut(width) {
    const finite = [...this.points, ...this.evaluations].map(({loss}) => loss)
      .filter((loss) => Number.isFinite(loss) && (!this.logarithmic || loss > 0));
    let low = finite.reduce((a, b) => Math.min(a, b), Infinity), high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!(low < high)) [low, high] = low === high ? [low - 0.5 * Math.abs(low) - 0.1, high + 0.5 * Math.abs(high) + 0.1] : [0, 1];
    if (this.logarithmic && low <= 0) low = high / 1e6;
    const scale = this.logarithmic ? Math.log10 : (value) => value;
    const last = Math.max(this.points.at(-1)?.step ?? 1, this.evaluations.at(-1)?.step ?? 1);
    const first = Math.min(this.points[0]?.step ?? 0, last - 1);
    const x = (step) => left + (step - first) / (last - first) * (width - left - right);
    const share = (loss) => (scale(loss) - scale(low)) / (scale(high) - scale(low));
    const y = (loss) => height - bottom - share(loss) * (height - top - bottom - 6);
    return {low, high, first, last, x, y};
  }

  paint(context, width, _, colour) {
    const place = this.place = this.layOut(width);
    this.paintAxes(context, width, place, colour);
    const many = this.points.length >= smoothFrom;
    context.globalAlpha = many ? 0.35 : 1;
    this.line(context, this.points, place, colour("--accent"), many ? 1 : 2);
    context.globalAlpha = 1;
    if (many) this.line(context, smoothed(this.points), place, colour("--accent"), 2);
    if (this.points.length === 1) disc(context, place, this.points[0], colour("--accent"));
    for (const point of this.evaluations) diamond(context, place.x(point.step), place.y(point.loss), colour("--evaluation"));
    this.paintCursor(context, place, colour);
  }

  paintAxes(context, width, {low, high, first, last, x, y}, colour) {
    context.fillStyle = colour("--muted");
    context.strokeStyle = colour("--line");
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const value of this.logarithmic ? powers(low, high) : ticks(low, high, 5)) {
      const at = Math.round(y(value)) + 0.5;
      context.beginPath();
      context.moveTo(left, at);
      context.lineTo(width - right, at);
      context.stroke();
      context.fillText(Number(value.toPrecision(3)).toString(), left - 8, at);
    }
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    for (const step of ticks(first, last, width / 110).filter(Number.isInteger)) {
      context.fillText(format.count(step), Math.min(x(step), width - right - 10), height - 8);
    }
  }

  line(context, points, {x, y}, colour, width) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.beginPath();
    let pen = false;
    for (const {step, loss} of thinned(points, x)) {
      const seen = Number.isFinite(loss) && (!this.logarithmic || loss > 0);
      if (seen && pen) context.lineTo(x(step), y(loss));
      else if (seen) context.moveTo(x(step), y(loss));
      pen = seen;
    }
    context.stroke();
    context.lineWidth = 1;
  }

  paintCursor(context, {x, y}, colour) {
    const point = this.points[this.cursor];
    if (!point) return;
    context.strokeStyle = colour("--muted");
    context.beginPath();
    context.moveTo(x(point.step), top);
    context.lineTo(x(point.step), height - bottom);
    context.stroke();
    disc(context, {x, y}, point, colour("--accent"));
  }

  point(offset) {
    if (!this.place || this.points.length === 0) return;
    let best = 0;
    for (let i = 1; i < this.points.length; ++i) {
      if (Math.abs(this.place.x(this.points[i].step) - offset) <= Math.abs(this.place.x(this.points[best].step) - offset)) best = i;
    }
    this.read(best);
  }

  key(event) {
    const last = this.points.length - 1, by = event.shiftKey ? Math.ceil(last / 20) : 1;
    const here = this.cursor ?? last;
    const to = {ArrowLeft: here - by, ArrowRight: here + by, Home: 0, End: last}[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.read(Math.min(last, Math.max(0, to)));
  }

  read(index) {
    this.cursor = index;
    const point = this.points[index];
    setText(this.readout, point ? `step ${format.count(point.step)}: loss ${format.loss(point.loss)}` +
      (point.lr !== undefined ? `, learning rate ${Number(point.lr).toPrecision(3)}` : "") : this.summary());
    this.canvas.draw();
  }

  summary() {
    const last = this.points.at(-1), evaluation = this.evaluations.at(-1);
    if (!last) return "No step is done yet.";
    const evaluated = evaluation ? `; evaluation after step ${format.count(evaluation.step)}: loss ${format.loss(evaluation.loss)}` +
      (evaluation.accuracy !== undefined ? `, accuracy ${format.percent(Number(evaluation.accuracy), 1)}` : "") : "";
    return `Loss ${format.loss(this.points[0].loss)} at step ${format.count(this.points[0].step)}, now ${format.loss(last.loss)}${evaluated}`;
  }

  refresh() {
    if (this.cursor === null) setText(this.readout, this.summary());
  }
}

function powers(low, high) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power) {
    for (const factor of high / low > 1000 ? [1] : [1, 2, 5]) all.push(factor * 10 ** power);
  }
  return all.filter((value) => value >= low && value <= high);
}

// The running mean, over about a fiftieth of what there is.
function smoothed(points) {
  const weight = 2 / (1 + Math.max(2, points.length / 50));
  let mean = NaN;
  return points.map(({step, loss}) => {
    if (Number.isFinite(loss)) mean = Number.isFinite(mean) ? mean + weight * (loss - mean) : loss;
    return {step, loss: mean};
  });
}

// Of the points that share a pixel the least, the greatest and the last.
function* thinned(points, x) {
  let pixel = NaN, low = null, high = null, last = null;
  for (const point of points) {
    const at = Math.round(x(point.step));
    if (at !== pixel) {
      if (low) yield* [low, high, last];
      [pixel, low, high, last] = [at, point, point, point];
      continue;
    }
    if (point.loss < low.loss) low = point;
    if (point.loss > high.loss) high = point;
    last = point;
  }
  if (low) yield* [low, high, last];
}

function disc(context, {x, y}, {step, loss}, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x(step), y(loss), 4, 0, 7);
  context.fill();
}

function diamond(context, x, y, colour) {
  if (!Number.isFinite(y)) return;
  context.fillStyle = colour;
  context.beginPath();
  context.moveTo(x, y - 5);
  context.lineTo(x + 5, y);
  context.lineTo(x, y + 5);
  context.lineTo(x - 5, y);
  context.fill();
}
