// How to answer and what to look at; the browser remembers.

import { text } from "./texts.js";

const FIELDS = [
  { name: "max_tokens", value: 1024, min: 1, max: 32768, step: 1 },
  { name: "context_length", value: "", min: 256, max: 262144, step: 1 },
  { name: "temperature", value: 0.7, min: 0, max: 2, step: 0.05 },
  { name: "top_p", value: 0.8, min: 0.05, max: 1, step: 0.05 },
  { name: "sampler", value: "adaptive", options: ["adaptive", "uniform"], texts: "samplers" },
  { name: "fps", value: 2, min: 0.05, max: 60, step: 0.05 },
  { name: "long", value: "auto", options: ["auto", "always", "never"], texts: "longs" },
];

const kept = () => JSON.parse(localStorage.getItem("settings") ?? "{}");
const value = (field) => kept()[field.name] ?? field.value;

/** The options of a request, as the server names them. */
export function options() {
  const given = FIELDS.filter((field) => field.name !== "long" && value(field) !== "");
  return Object.fromEntries(given.map((field) => [field.name, value(field)]));
}

export const longMode = () => value(FIELDS.at(-1));

export function setUpSettings() {
  const dialog = document.getElementById("settings");
  const container = document.getElementById("fields");

  function control(field) {
    const input = document.createElement(field.options ? "select" : "input");
    if (field.options) {
      input.append(...field.options.map((each) => new Option(text(`${field.texts}.${each}`), each)));
    } else {
      Object.assign(input, { type: "number", min: field.min, max: field.max, step: "any", inputMode: "decimal" });
    }
    input.value = value(field);
    input.id = `setting-${field.name}`;
    input.setAttribute("aria-describedby", `help-${field.name}`);
    input.addEventListener("change", () => {
      if (!input.checkValidity()) {
        input.reportValidity();
        return;
      }
      const chosen = field.options || input.value === "" ? input.value : Number(input.value);
      localStorage.setItem("settings", JSON.stringify({ ...kept(), [field.name]: chosen }));
    });
    return input;
  }

  function show() {
    container.replaceChildren(
      ...FIELDS.map((field) => {
        const [name, help] = text(`fields.${field.name}`);
        const row = document.createElement("div");
        row.className = "field";
        const label = document.createElement("label");
        label.htmlFor = `setting-${field.name}`;
        label.textContent = name;
        const hint = document.createElement("small");
        hint.id = `help-${field.name}`;
        hint.textContent = help;
        row.append(label, control(field), hint);
        return row;
      }),
    );
  }

  document.getElementById("open-settings").addEventListener("click", () => {
    show();
    dialog.showModal();
  });
  document.getElementById("reset-settings").addEventListener("click", () => {
    localStorage.removeItem("settings");
    show();
  });
}
