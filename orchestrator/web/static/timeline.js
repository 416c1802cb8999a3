// One step as it was: what each worker computed, and when; what is between is the bubble.

import {get} from "./api.js";
import {Canvas, hatching, labelWidth, ticks} from "./canvas.js";
import {setAttribute, setText} from "./dom.js";
import * as format from "./format.js";
import {fitted} from "./grid.js";
import {actionName, kinds} from "./states.js";

const rowHeight = 30, bottom = 26, right = 12;
const refreshMillis = 1000;
const manyActions = 5000;  // Such a step is drawn less often.

export class Timeline {
  constructor(parts, job) {
    Object.assign(this, {parts, job});
    this.step = 0;       // 0: the last one, as new ones come.
    this.cursor = null;  // Index of the action that is read out.
    const {canvas, earlier, later, latest} = parts;
    this.canvas = new Canvas(canvas, 60, (...args) => this.paint(...args));
    earlier.addEventListener("click", () => this.go(-1));
    later.addEventListener("click", () => this.go(1));
    latest.addEventListener("click", () => this.show(0));
    canvas.addEventListener("pointermove", (event) => this.point(event.offsetX, event.offsetY));
    canvas.addEventListener("pointerleave", () => this.read(null));
    canvas.addEventListener("blur", () => this.read(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    this.load();
  }

  close() {
    this.canvas.close();
    clearTimeout(this.later);
    this.closed = true;
  }

  // Another step is done: the last one is shown, but not more often than one can look at.
  stepDone() {
    if (this.step === 0 && !this.later) {
      this.later = setTimeout(() => {
        this.later = null;
        this.load();
      }, this.timeline?.actions?.length > manyActions ? 5 * refreshMillis : refreshMillis);
    }
  }

  go(by) {
    const shown = format.num(this.timeline?.step);
    if (shown > 0) this.show(shown + by);
  }

  show(step) {
    this.step = step;
    this.load();
  }

  async load() {
    try {
      const timeline = await get(`/jobs/${encodeURIComponent(this.job)}/timeline`, {step: this.step});
      if (this.closed) return;
      this.timeline = timeline;
      this.problem = "";
    } catch (error) {
      if (this.closed) return;
      this.problem = error.message;
    }
    this.render();
  }

  render() {
    const {earlier, later, latest, caption, figures, canvas} = this.parts;
    const timeline = this.timeline;
    const step = format.num(timeline?.step);
    earlier.disabled = !timeline || step <= format.num(timeline.first_kept);
    later.disabled = !timeline || step >= format.num(timeline.last_kept);
    setAttribute(latest, "aria-pressed", String(this.step === 0));
    canvas.hidden = !timeline;
    setText(caption, timeline ? `Step ${format.count(step)} took ${format.seconds(format.num(timeline.step_seconds))}` +
      (this.step !== 0 && this.problem ? `. ${this.problem}` : "") : this.problem || "No step is done yet.");
    setText(figures, timeline ? figuresOf(timeline) : "");
    this.rows = timeline?.workers ?? [];
    this.canvas.height = this.rows.length * rowHeight + bottom;
    this.read(null);
  }

  length() {
    const least = Math.max(1, format.num(this.timeline.step_seconds) * 1e9);
    return (this.timeline.actions ?? []).reduce((end, a) => Math.max(end, format.num(a.start_nanos) + format.num(a.nanos)), least);
  }

  rowOf(action) {
    return format.num(this.timeline.stage_worker?.[format.num(action.stage)]);
  }

  paint(context, width, height, colour) {
    if (!this.timeline) return;
    const length = this.length(), label = labelWidth(width);
    this.x = (nanos) => label + nanos / length * (width - label - right);
    context.textBaseline = "middle";
    const bubble = hatching(context, colour("--bubble"));
    this.rows.forEach((name, row) => {
      context.textAlign = "left";
      context.fillStyle = colour("--text");
      context.fillText(fitted(context, name, label - 10), 0, row * rowHeight + rowHeight / 2);
      context.fillStyle = bubble;
      context.fillRect(label, row * rowHeight + 2, width - label - right, rowHeight - 4);
    });
    (this.timeline.actions ?? []).forEach((action, index) => this.paintAction(context, action, index, colour));
    this.paintAxis(context, width, length, colour);
    setAttribute(this.parts.canvas, "aria-label", `${this.parts.caption.textContent}. ${this.parts.figures.textContent}`);
  }

  paintAction(context, action, index, colour) {
    const from = this.x(format.num(action.start_nanos));
    const size = Math.max(1, this.x(format.num(action.start_nanos) + format.num(action.nanos)) - from);
    const y = this.rowOf(action) * rowHeight + 2;
    context.fillStyle = colour(kinds[action.kind]?.colour ?? "--muted");
    context.fillRect(from, y, size > 3 ? size - 1 : size, rowHeight - 4);
    const text = actionName(action);
    if (size > 16 && context.measureText(text).width < size - 4) {
      context.fillStyle = colour("--on-action");
      context.textAlign = "center";
      context.fillText(text, from + size / 2, y + rowHeight / 2 - 1);
    }
    if (index !== this.cursor) return;
    context.strokeStyle = colour("--text");
    context.lineWidth = 2;
    context.strokeRect(from, y, size, rowHeight - 4);
    context.lineWidth = 1;
  }

  paintAxis(context, width, length, colour) {
    context.fillStyle = colour("--muted");
    context.textAlign = "center";
    for (const at of ticks(0, length, (width - labelWidth(width)) / 90)) {
      context.fillText(format.seconds(at / 1e9), Math.min(this.x(at), width - 24), this.rows.length * rowHeight + 14);
    }
  }

  point(offsetX, offsetY) {
    const row = Math.floor(offsetY / rowHeight);
    const found = (this.timeline?.actions ?? []).findIndex((action) => this.rowOf(action) === row &&
      offsetX >= this.x(format.num(action.start_nanos)) &&
      offsetX <= this.x(format.num(action.start_nanos) + format.num(action.nanos)));
    this.read(found < 0 ? null : found);
  }

  key(event) {
    const last = (this.timeline?.actions ?? []).length - 1, here = this.cursor ?? -1;
    const to = {ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last}[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.read(Math.min(last, Math.max(0, to)));
  }

  read(index) {
    this.cursor = index;
    const action = this.timeline?.actions?.[index];
    setText(this.parts.readout, action ? `${this.rows[this.rowOf(action)]}: ${kinds[action.kind]?.word ?? ""} ${actionName(action)}` +
      ` of stage ${format.num(action.stage)}, ${format.seconds(format.num(action.nanos) / 1e9)}, from ` +
      `${format.seconds(format.num(action.start_nanos) / 1e9)} on, clock cycle ${format.num(action.cycle)}` : "");
    this.canvas.draw();
  }
}

function figuresOf(timeline) {
  const shares = [`Bubble ${format.percent(format.num(timeline.bubble_share))}`];
  if (timeline.forecast) shares.push(`forecast ${format.percent(format.num(timeline.forecast.bubble_share))}`);
  shares.push(`fill and drain alone ${format.percent(format.num(timeline.ideal_bubble_share))}`);
  const predicted = format.num(timeline.forecast?.step_seconds);
  return shares.join(", ") + (predicted > 0 ? `; step forecast ${format.seconds(predicted)}` : "");
}
