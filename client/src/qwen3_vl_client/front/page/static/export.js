// What was asked and answered, as a file.

import { allTurns, lastSummary } from "./conversation.js";
import { allFiles } from "./files.js";
import { text } from "./texts.js";

const EXTENSIONS = { markdown: "md", json: "json", vtt: "vtt", srt: "srt" };

const button = document.getElementById("export");
const menu = document.getElementById("export-menu");

const markdown = () =>
  [
    `# ${allFiles().map((file) => file.name).join(", ") || text("title")}`,
    ...allTurns().map((turn) => (turn.role === "user" ? `## ${turn.text}` : turn.text)),
  ].join("\n\n") + "\n";

const json = () => {
  const turns = allTurns().map(({ role, text, usage }) => ({ role, text, usage }));
  const made = lastSummary();
  return JSON.stringify(
    { files: allFiles().map(({ name }) => name), turns, summary: made ? JSON.parse(made.json) : undefined },
    null,
    2,
  );
};

function save(form) {
  const content = form === "markdown" ? markdown() : form === "json" ? json() : lastSummary()[form];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
  const name = (allFiles()[0]?.name ?? "conversation").replace(/\.[^.]*$/, "");
  link.download = `${name}.${EXTENSIONS[form]}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function toggle(open) {
  menu.hidden = !open;
  button.setAttribute("aria-expanded", open);
  if (open) menu.querySelector("button:not([disabled])").focus();
}

/** Whether there is something to export. */
export function updateExport() {
  button.disabled = allTurns().length === 0;
}

export function setUpExport() {
  button.addEventListener("click", () => {
    for (const item of menu.children) item.disabled = ["vtt", "srt"].includes(item.dataset.export) && !lastSummary();
    toggle(menu.hidden);
  });
  menu.addEventListener("click", (event) => {
    const form = event.target.dataset.export;
    if (!form) return;
    save(form);
    toggle(false);
    button.focus();
  });
  menu.addEventListener("keydown", (event) => {
    const items = [...menu.children].filter((item) => !item.disabled);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) items.at((items.indexOf(document.activeElement) + step) % items.length).focus();
    if (event.key === "Escape") {
      toggle(false);
      button.focus();
    }
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".menu")) toggle(false);
  });
}
