// Questions that are asked often; users change them, and their browser remembers.

import { currentLanguage, text } from "./texts.js";

const DEFAULTS = {
  en: [
    ["Chaptered summary", "Summarise this video in chapters. Give each chapter its start time, a title and its key points.", true],
    ["Meeting minutes", "Write minutes of this meeting: who takes part, the topics with their times, decisions, and open tasks with who does them."],
    ["Lecture notes", "Write lecture notes: the outline with times, each concept with its explanation, formulas and examples that are shown."],
    ["Find an event", "When does … happen? Give the start and end time of each occurrence and what is seen there."],
    ["Read the text", "Read all text that is shown on the screen, in order, each with the time when it appears."],
    ["Charts and speech", "For each chart or slide: its time, what it shows, its numbers, and what is said about it."],
    ["Shot list", "List every shot: start and end time, framing, camera movement, and what is seen."],
  ],
  zh: [
    ["分章总结", "请分章节总结这个视频。每章给出开始时间、标题和要点。", true],
    ["会议纪要", "请写会议纪要：参会者、各议题及时间、决定、待办事项及负责人。"],
    ["课堂笔记", "请写课堂笔记：带时间的提纲、每个概念及其解释、出现的公式和例子。"],
    ["查找事件", "……在什么时候发生？给出每次的开始和结束时间，以及看到了什么。"],
    ["读屏幕文字", "请按顺序读出屏幕上出现的所有文字，并给出每处出现的时间。"],
    ["图表与讲解", "对每张图表或幻灯片：给出时间、内容、数据，以及对它的讲解。"],
    ["分镜表", "请列出每个镜头：起止时间、景别、运镜和画面内容。"],
  ],
};

const key = () => `templates.${currentLanguage()}`;

/** `{ name, text, long }`; long: the video is read part by part. */
export function templates() {
  const kept = JSON.parse(localStorage.getItem(key()) ?? "null");
  return (kept ?? DEFAULTS[currentLanguage()]).map(([name, question, long]) => ({ name, text: question, long: !!long }));
}

const keep = (list) =>
  localStorage.setItem(key(), JSON.stringify(list.map((each) => [each.name, each.text, each.long])));

/** Buttons that put a template into the composer, and the dialog that changes them. */
export function setUpTemplates(choose) {
  const row = document.getElementById("templates");
  const dialog = document.getElementById("template-editor");
  const fields = document.getElementById("template-fields");

  function show() {
    row.replaceChildren(
      ...templates().map((template) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "chip";
        button.textContent = template.name;
        button.title = template.text;
        button.addEventListener("click", () => choose(template));
        return button;
      }),
    );
  }

  function edit() {
    const list = templates();
    fields.replaceChildren(
      ...list.map((template, index) => {
        const group = document.createElement("fieldset");
        const name = document.createElement("input");
        name.value = template.name;
        name.setAttribute("aria-label", text("template_name"));
        const question = document.createElement("textarea");
        question.rows = 3;
        question.value = template.text;
        question.setAttribute("aria-label", text("template_text"));
        const remove = document.createElement("button");
        remove.type = "button";
        remove.className = "icon";
        remove.textContent = "×";
        remove.setAttribute("aria-label", text("remove", template.name));
        const update = () => {
          list[index] = { ...template, name: name.value, text: question.value };
          keep(list);
          show();
        };
        name.addEventListener("input", update);
        question.addEventListener("input", update);
        remove.addEventListener("click", () => {
          keep(list.filter((_, other) => other !== index));
          show();
          edit();
        });
        group.append(name, remove, question);
        return group;
      }),
    );
  }

  document.getElementById("edit-templates").addEventListener("click", () => {
    edit();
    dialog.showModal();
  });
  document.getElementById("add-template").addEventListener("click", () => {
    keep([...templates(), { name: text("template_name"), text: "", long: false }]);
    show();
    edit();
    fields.lastElementChild.querySelector("input").select();
  });
  document.getElementById("reset-templates").addEventListener("click", () => {
    localStorage.removeItem(key());
    show();
    edit();
  });
  show();
  return show;
}
