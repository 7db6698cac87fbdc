// How far it is: upload, look, frames, reading, answer.

import { text } from "./texts.js";

const ORDER = ["upload", "look", "frames", "reading", "answer"];

const box = document.getElementById("phases");
const steps = document.getElementById("steps");
const bar = document.getElementById("progress");
const words = document.getElementById("phase");

function show(phase, description, share) {
  box.hidden = false;
  if (steps.dataset.phase !== phase || steps.lang !== document.documentElement.lang) {
    steps.dataset.phase = phase;
    steps.lang = document.documentElement.lang;
    steps.replaceChildren(
      ...ORDER.map((name, index) => {
        const step = document.createElement("li");
        step.textContent = text(`phases.${name}`);
        step.className = index < ORDER.indexOf(phase) ? "done" : "";
        if (name === phase) step.setAttribute("aria-current", "step");
        return step;
      }),
    );
  }
  words.textContent = description;
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

export const clear = () => {
  box.hidden = true;
};

export const uploading = (name, share) => show("upload", text("uploading", name, Math.round(100 * share)), share);
export const looking = () => show("look", text("looking"));
export const answering = () => show("answer", text("answering"));
export const counted = (description, done, total) => show("answer", description, done / total);

/** A line of progress as the server tells it. */
export function progress({ phase, prompt_tokens: total, prefilled_tokens: read }) {
  if (phase === "prefill") show("reading", text("reading", read, total), total ? read / total : undefined);
  else show("frames", text(phase === "waiting" ? "waiting" : "sampling"));
}
