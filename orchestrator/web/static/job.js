// One job, live: its numbers, its loss, its clock cycles, the last step's timeline, its stages, events and logs.

import {get, post, Stream, token} from "./api.js";
import {LossChart} from "./chart.js";
import {announce, el, fromTemplate, onFrame, setAttribute, setText, show} from "./dom.js";
import {Events} from "./events.js";
import * as format from "./format.js";
import {CycleGrid} from "./grid.js";
import {note, progressOf, secondsLeft, secondsRun, terminal} from "./progress.js";
import {Stages} from "./stages.js";
import {stateBadge} from "./states.js";
import {Timeline} from "./timeline.js";

const stepFields = "steps.step,steps.loss,steps.lr,evaluations,next_page_token";

export class JobView {
  constructor(outlet, cluster, access, id) {
    Object.assign(this, fromTemplate("job-view"), {cluster, access, id, title: id});
    this.path = `/jobs/${encodeURIComponent(id)}`;
    outlet.append(this.root);
    setText(this.parts.id, id);
    const part = (name) => this.partsOf(name);
    this.chart = new LossChart(part("loss"));
    this.grid = new CycleGrid(part("grid"));
    this.stages = new Stages(part("stages"));
    this.events = new Events(part("events"));
    this.draw = onFrame(() => this.render());
    this.bind();
    this.clock = setInterval(this.draw, 1000);
    this.watch();
  }

  // The parts of one section: `loss-canvas` is {canvas} of `loss`.
  partsOf(section) {
    const found = {};
    for (const [name, element] of Object.entries(this.parts)) {
      if (name.startsWith(`${section}-`)) found[name.slice(section.length + 1)] = element;
    }
    return found;
  }

  close() {
    this.closed = true;
    this.stream.close();
    if (!this.cluster.stream) this.cluster.start();
    for (const part of [this.chart, this.grid, this.timeline]) part?.close();
    clearInterval(this.clock);
    window.removeEventListener("token", this.onToken);
  }

  bind() {
    const {pause, resume, cancel, confirm, token: ask} = this.parts;
    this.onToken = () => {
      if (this.failed) this.watch();
      this.draw();
    };
    window.addEventListener("token", this.onToken);
    ask.addEventListener("click", () => this.access.open());
    pause.addEventListener("click", () => this.control("pause"));
    resume.addEventListener("click", () => this.control("resume"));
    cancel.addEventListener("click", () => confirm.showModal());
    confirm.addEventListener("close", () => {
      if (confirm.returnValue === "cancel-job") this.control("cancel");
      confirm.returnValue = "";
    });
  }

  async control(verb) {
    const {problem} = this.parts;
    setText(problem, "");
    try {
      this.takeJob(await post(`${this.path}:${verb}`));
    } catch (error) {
      setText(problem, error.message);
      if (error.status === 401) this.access.open(`The token is not accepted: ${error.message}`);
    }
  }

  // First the watch, then what was before it: so nothing is missed in between.
  watch() {
    this.failed = false;
    this.cluster.hold();
    this.stream = new Stream(`${this.path}/watch`, {cycles: true, stages: true}, {
      open: () => this.opened(),
      update: (update) => this.take(update),
      down: (error) => this.cluster.setLink(false, error),
      end: (error) => this.ended(error),
    });
  }

  opened() {
    this.cluster.linked();
    this.loadPast();
  }

  async loadPast() {
    try {
      this.takeJob(await get(this.path));
      await Promise.all([this.loadEvents(), this.loadMetrics()]);
      this.past = true;
    } catch (error) {
      if (!this.closed) this.fail(error);
    }
  }

  async loadEvents() {
    let page_token = "";
    do {
      const page = await get(`${this.path}/events`, {page_size: 1000, page_token});
      this.events.add(page.events ?? []);
      page_token = page.next_page_token ?? "";
    } while (page_token && !this.closed);
    this.eventsChanged = true;
    this.draw();
  }

  async loadMetrics() {
    let page_token = "";
    do {
      const page = await get(`${this.path}/metrics`, {page_size: 5000, page_token, fields: stepFields});
      if (this.closed) return;
      if (!page_token) this.chart.dropAfter(0);
      this.chart.addSteps(page.steps ?? []);
      this.chart.addEvaluations(page.evaluations ?? []);
      page_token = page.next_page_token ?? "";
    } while (page_token);
    this.chart.refresh();
  }

  take(update) {
    if (update.job) this.takeJob(update.job);
    else if (update.step) this.takeStep(update.step);
    else if (update.evaluation) this.chart.addEvaluations([update.evaluation]);
    else if (update.cycle) this.grid.add(update.cycle);
    else if (update.event) this.takeEvent(update.event);
    else if (update.activity) this.takeActivity(update.activity);
    else if (update.stages) this.stages.takeDone(update.stages);
    this.draw();
  }

  // Updates come without the spec.
  takeJob(job) {
    if (this.closed) return;
    const before = this.job;
    this.job = {...job, spec: job.spec ?? before?.spec, last_step: job.last_step ?? before?.last_step};
    if (before && before.state !== job.state) announce(`${this.id} is ${format.word(job.state)} now`);
    if (before && format.num(before.attempt) !== format.num(job.attempt)) this.nextAttempt(job);
    note(this.job);
    this.timeline ??= new Timeline(this.partsOf("timeline"), this.id);
    this.draw();
  }

  nextAttempt(job) {
    this.stages.forget();
    this.chart.dropAfter(format.num(job.steps_done));
  }

  takeStep(step) {
    if (this.job) {
      this.job.last_step = step;
      if (format.num(this.job.steps_total) > 0) this.job.steps_done = Math.max(format.num(this.job.steps_done), format.num(step.step));
      note(this.job);
    }
    this.chart.addSteps([step]);
    this.chart.refresh();
    this.timeline?.stepDone();
  }

  takeEvent(event) {
    this.events.add([event]);
    this.eventsChanged = true;
  }

  takeActivity({worker, activity}) {
    if (this.job) (this.job.activities ??= [])[format.num(worker)] = activity;
  }

  // The watch is over: the job is, or it is not there.
  ended(error) {
    this.cluster.start();
    if (error) return this.fail(error);
    this.loadPast();
    this.timeline?.load();
  }

  fail(error) {
    this.failed = true;
    setText(this.parts.problem, error.message);
    if (!this.job) {
      show(this.parts.body, false);
      setText(this.parts.state, error.status === 404 ? "not found" : "");
    }
  }

  render() {
    if (this.closed || !this.job) return;
    const job = this.job;
    show(this.parts.body, true);
    stateBadge(this.parts.state, job);
    setText(this.parts.reason, job.state === "STATE_RUNNING" || job.failure ? "" : job.reason ?? "");
    this.renderControls(job);
    this.renderProgress(job);
    this.renderFigures(job);
    this.renderFailure(job);
    this.renderShape(job);
    this.stages.render(job);
    show(this.parts.stages, (job.stage_worker ?? []).length > 0);
    if (this.eventsChanged) this.events.render();
    this.eventsChanged = false;
    this.renderSpec(job);
  }

  renderControls(job) {
    const {pause, resume, cancel, token: ask} = this.parts;
    const may = token.get() !== "", over = terminal.has(job.state);
    const paused = job.paused || job.state === "STATE_PAUSED";
    show(ask, !may && !over);
    show(pause, may && !over && !paused);
    show(resume, may && !over && paused);
    show(cancel, may && !over);
    pause.disabled = job.state !== "STATE_RUNNING";
  }

  renderProgress(job) {
    const {done, total, unit, share} = progressOf(job);
    setAttribute(this.parts.bar, "data-state", format.word(job.state));
    this.parts.bar.value = job.state === "STATE_SUCCEEDED" ? 1 : share;
    setText(this.parts.progress, total > 0 ? `${unit} ${format.count(done)} of ${format.count(total)}, ${format.percent(share)}` : "");
  }

  renderFigures(job) {
    const step = job.last_step, over = terminal.has(job.state), queued = job.state === "STATE_QUEUED";
    const figures = {
      loss: format.loss(step?.loss),
      rate: format.rate(step?.samples_per_second),
      step: step ? format.seconds(format.num(step.step_seconds)) : "–",
      bubble: step ? format.percent(format.num(step.bubble_share)) : "–",
      left: format.clock(secondsLeft(job)),
      run: queued ? "–" : format.clock(secondsRun(job)),
      attempt: `${format.num(job.attempt)}${format.num(job.restarts) > 0 ? `, restarted ${format.num(job.restarts)}×` : ""}`,
      checkpoint: format.num(job.checkpoint_step) > 0 ? `step ${format.count(job.checkpoint_step)}` : "–",
    };
    for (const [name, text] of Object.entries(figures)) setText(this.parts[`figure-${name}`], text);
    show(this.parts["figure-left"].parentElement, !over);
    setText(this.parts["figure-run"].previousElementSibling, over ? "Took" : "Running for");
    show(this.parts["figure-loss"].parentElement, step?.loss !== undefined || format.num(job.steps_total) > 0);
  }

  // What failed it, or the attempt before this one.
  renderFailure(job) {
    const failure = job.failure ?? (terminal.has(job.state) ? null : job.last_failure);
    show(this.parts.failure, Boolean(failure));
    if (!failure) return;
    const restart = (format.timeOf(job.restart_time) - Date.now()) / 1000;
    setText(this.parts["failure-title"], job.failure ? "Why it failed" : "The attempt before this one ended");
    setText(this.parts["failure-text"], failure.message ?? "");
    const facts = [failure.code, failure.worker && `worker ${failure.worker}`,
      failure.worker && `stage ${format.num(failure.stage)}`,
      failure.doing || format.num(failure.step) > 0 && `step ${format.count(failure.step)}`,
      restart > 0 && `next try in ${format.clock(restart)}`];
    setText(this.parts["failure-facts"], facts.filter(Boolean).join(" · "));
    this.parts["failure-consequences"].replaceChildren(
      ...(failure.consequences ?? []).map((consequence) => el("li", {}, consequence)));
  }

  renderShape(job) {
    const stageWorker = job.stage_worker ?? [];
    const training = format.num(job.steps_total) > 0;
    const batch = format.num(job.spec?.train?.batch_size ?? job.spec?.infer?.batch_size) || Infinity;
    const chunks = Math.min(format.num(job.spec?.pipeline?.chunks) || 1, batch);
    const names = stageWorker.map((worker) => job.workers?.[format.num(worker)] ?? "");
    const shape = {stages: stageWorker.length, microBatches: chunks, training, stepSeconds: format.num(job.last_step?.step_seconds)};
    this.grid.setShape(shape, names);
    show(this.parts.grid, stageWorker.length > 0);
    show(this.parts.loss, training);
    show(this.parts.timeline, stageWorker.length > 0);
  }

  renderSpec(job) {
    if (job.spec) setText(this.parts.spec, JSON.stringify(job.spec, null, 2));
  }
}
