// The token that lets a person pause, resume and cancel: typed into a dialog, kept for this tab only. Where the
// orchestrator asks nobody who he is, any one does, and none need be typed.

import {get, token} from "./api.js";
import {announce, setText, show} from "./dom.js";

export class Access {
  constructor() {
    this.dialog = document.getElementById("access");
    this.button = document.getElementById("access-open");
    this.field = document.getElementById("access-token");
    this.problem = document.getElementById("access-problem");
    this.button.addEventListener("click", () => this.open());
    this.dialog.querySelector("form").addEventListener("submit", (event) => this.submit(event));
    document.getElementById("access-forget").addEventListener("click", () => this.forget());
    document.getElementById("access-close").addEventListener("click", () => this.dialog.close());
    window.addEventListener("token", () => this.render());
    this.render();
  }

  async open(problem = "") {
    setText(this.problem, problem);
    this.field.value = "";
    this.dialog.showModal();
    this.openToAll = (await get("/access").catch(() => ({}))).open ?? false;
    show(document.getElementById("access-named"), !this.openToAll);
    show(document.getElementById("access-unnamed"), this.openToAll);
    this.field.required = !this.openToAll;
  }

  // A token that nobody knows is found out at once, and not when a job must be stopped.
  async submit(event) {
    event.preventDefault();
    const before = token.get();
    token.set(this.openToAll ? "nobody" : this.field.value.trim());
    try {
      await get("/jobs", {page_size: 1, fields: "jobs.id"});
    } catch (error) {
      if (!error.denied) return setText(this.problem, error.message);
      token.set(before);
      return setText(this.problem, `The token is not accepted: ${error.message}`);
    }
    this.dialog.close();
    announce(token.get() ? "You can control jobs now." : "Read-only.");
  }

  forget() {
    token.set("");
    this.dialog.close();
    announce("Read-only.");
  }

  render() {
    setText(this.button, token.get() ? "In control" : "Read-only");
    this.button.dataset.set = String(token.get() !== "");
    show(document.getElementById("access-forget"), token.get() !== "");
  }
}
