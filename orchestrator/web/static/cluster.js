// The workers, and the jobs that change, as they are now: one watch of the cluster that all parts of the page share.
// Browsers open six connections to one server, for all windows together. So a page has one watch at a time: who watches
// something else holds this one, and says instead whether there is a connection.

import {get, Stream, token} from "./api.js";
import {terminal} from "./progress.js";

const mostJobs = 5000;  // A page that is open for weeks forgets what was over first.

const nobody = () => ({workers: new Set(), jobs: new Set()});

// Events: `change` when a worker or job is new, other or gone; `synced` when all that is there now has arrived;
// `link` when the connection comes or goes.
export class Cluster extends EventTarget {
  constructor() {
    super();
    this.jobs = new Map();     // By id: those that changed since the page is open, and those that are not over.
    this.workers = new Map();  // By name: {worker, heard}.
    this.gone = new Set();     // Jobs that were deleted.
    this.connected = false;
    this.lostAt = null;
    window.addEventListener("token", () => this.stream && this.start());
  }

  // What is here stays as it is until the watch starts again.
  hold() {
    this.stream?.close();
    this.stream = null;
  }

  start() {
    this.stream?.close();
    this.stream = new Stream("/watch", {}, {
      open: () => this.opened(),
      update: (update) => this.take(update),
      down: (error) => this.setLink(false, error),
      end: (error) => this.ended(error),
    });
  }

  opened() {
    this.arriving = nobody();
    this.linked();
  }

  linked() {
    this.setLink(true, null);
    this.checkVersion();
  }

  take(update) {
    if (update.worker) this.takeWorker(update.worker);
    else if (update.worker_gone) this.workers.delete(update.worker_gone);
    else if (update.job) this.takeJob(update.job);
    else if (update.job_gone) this.forget(update.job_gone);
    else if (update.complete) return this.synced();
    else if (update.dropped) this.arriving = nobody();  // If too much was, all is sent again.
    this.dispatchEvent(new Event("change"));
  }

  takeWorker(worker) {
    this.arriving?.workers.add(worker.name);
    this.workers.set(worker.name, {worker, heard: Date.now()});
  }

  takeJob(job) {
    this.arriving?.jobs.add(job.id);
    this.jobs.set(job.id, job);
    if (this.jobs.size > mostJobs) this.jobs.delete([...this.jobs.values()].find(({state}) => terminal.has(state))?.id);
  }

  forget(id) {
    this.jobs.delete(id);
    this.gone.add(id);
    if (this.gone.size > mostJobs) this.gone.delete(this.gone.values().next().value);
  }

  // A watch begins with everything: what did not come again is gone, or a job that is over, which who shows it lists.
  synced() {
    for (const part of ["workers", "jobs"]) {
      for (const key of this.arriving ? this[part].keys() : []) {
        if (!this.arriving[part].has(key)) this[part].delete(key);
      }
    }
    this.arriving = null;
    this.dispatchEvent(new Event("synced"));
    this.dispatchEvent(new Event("change"));
  }

  // With a token that is not accepted nothing could be read: the page goes on without it.
  ended(error) {
    this.setLink(false, error);
    if (error?.denied && token.get()) token.set("");
  }

  setLink(connected, error) {
    if (!connected && this.connected) this.lostAt = new Date();
    this.connected = connected;
    this.error = error;
    this.dispatchEvent(new Event("link"));
  }

  // The page of an orchestrator that was replaced by another version should be loaded again.
  async checkVersion() {
    const {version, read_only} = await get("/version").catch(() => ({}));
    this.readOnly = read_only ?? "";
    this.outdated = this.version !== undefined && version !== undefined && version !== this.version;
    this.version ??= version;
    this.dispatchEvent(new Event("link"));
  }
}
