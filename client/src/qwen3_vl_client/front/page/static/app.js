// The page: puts its parts together.

import { announce, ask, clearConversation, isRunning, stopAnswer } from "./conversation.js";
import { setUpExport, updateExport } from "./export.js";
import { clearFiles, listFiles, setUpFiles } from "./files.js";
import * as phases from "./phases.js";
import { setUpSettings } from "./settings.js";
import { describe } from "./stage.js";
import { setUpTemplates } from "./templates.js";
import { currentLanguage, setLanguage, text } from "./texts.js";

const question = document.getElementById("question");
const composer = document.getElementById("composer");
const failures = document.getElementById("upload-error");

let asLong = false;

setLanguage(currentLanguage());
setUpSettings();
setUpExport();

const showTemplates = setUpTemplates((template) => {
  question.value = template.text;
  asLong = template.long;
  grow();
  question.focus();
  const gap = template.text.search(/…+/);
  if (gap >= 0) question.setSelectionRange(gap, gap + template.text.match(/…+/)[0].length);
});

setUpFiles({
  uploading: (name, share) => {
    failures.hidden = true;
    phases.uploading(name, share);
  },
  looking: phases.looking,
  ready: phases.clear,
  failed: (error, name) => {
    phases.clear();
    // What is wrong with a file that was just uploaded lies in the file.
    const code = error.code === "invalid_argument" ? "unreadable" : error.code;
    const advice = text(`errors.${code}`) ?? text("errors.internal");
    failures.textContent = `${name}: ${advice} ${error.message.replace(/^video_uri\[0\]/, name)}`;
    failures.hidden = false;
    announce(failures.textContent);
  },
});

function grow() {
  question.style.height = "auto";
  question.style.height = `${Math.min(question.scrollHeight + 2, 200)}px`;
}

composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = question.value.trim();
  if (!words || isRunning()) return;
  const long = asLong;
  question.value = "";
  asLong = false;
  grow();
  const answered = ask(words, long);
  updateExport();
  await answered;
  updateExport();
});

question.addEventListener("input", () => {
  if (!question.value) asLong = false;
  grow();
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && isRunning()) stopAnswer();
});
document.getElementById("stop").addEventListener("click", stopAnswer);
document.getElementById("new").addEventListener("click", () => {
  clearConversation();
  clearFiles();
  updateExport();
  failures.hidden = true;
  question.focus();
});
document.getElementById("language").addEventListener("click", () => {
  setLanguage(currentLanguage() === "en" ? "zh" : "en");
  showTemplates();
  listFiles();
  describe();
});
