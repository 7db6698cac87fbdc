// The files of this conversation: dropped or chosen, uploaded, listed, removed.

import { look, remove, upload } from "./server.js";
import { options } from "./settings.js";
import { show, showLook } from "./stage.js";
import { text } from "./texts.js";

const list = document.getElementById("files");
const drop = document.getElementById("drop");
const choose = document.getElementById("choose");

let files = [];
let current = null;

export const allFiles = () => files;
export const currentVideo = () => (current?.kind === "video" ? current : files.find((file) => file.kind === "video"));

export function clearFiles() {
  files = [];
  select(null);
}

/** `report` is told the phases of an upload, and what failed. */
export function setUpFiles(report) {
  const take = async (chosen) => {
    for (const file of chosen) {
      try {
        const stored = await upload(file, (share) => report.uploading(file.name, share));
        await add(stored);
      } catch (error) {
        report.failed(error, file.name);
        return;
      }
    }
    report.ready();
  };

  const add = async (file) => {
    if (file.kind === "video") {
      report.looking();
      try {
        file.look = await look(file, lookOptions());
      } catch (error) {
        remove(file);
        throw error;
      }
    }
    files = [...files, file];
    if (file.kind !== "subtitle" && (!current || file.kind === "video")) select(file);
    else listFiles();
  };

  choose.addEventListener("change", () => {
    take([...choose.files]);
    choose.value = "";
  });
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", over);
      if (name === "drop" && event.dataTransfer.files.length) take([...event.dataTransfer.files]);
    });
  }
  document.getElementById("settings").addEventListener("close", async () => {
    const video = currentVideo();
    if (!video) return;
    video.look = await look(video, lookOptions()).catch(() => video.look);
    if (video === current) showLook(video.look);
  });
}

const lookOptions = () => {
  const { sampler, fps, context_length } = options();
  return Object.fromEntries(Object.entries({ sampler, fps, context_length }).filter(([, value]) => value !== undefined));
};

function select(file) {
  current = file;
  show(file);
  listFiles();
}

/** The list, in the language of the page. */
export function listFiles() {
  drop.classList.toggle("small", files.length > 0);
  drop.querySelector("strong").dataset.text = files.length ? "drop_more" : "drop";
  drop.querySelector("strong").textContent = text(files.length ? "drop_more" : "drop");
  list.replaceChildren(
    ...files.map((file) => {
      const item = document.createElement("li");
      item.className = "chip";
      const name = document.createElement("button");
      name.type = "button";
      name.textContent = file.name;
      name.setAttribute("aria-label", text("show", file.name));
      name.setAttribute("aria-pressed", file === current);
      name.disabled = file.kind === "subtitle";
      name.addEventListener("click", () => select(file));
      const button = document.createElement("button");
      button.type = "button";
      button.className = "icon";
      button.textContent = "×";
      button.setAttribute("aria-label", text("remove", file.name));
      button.addEventListener("click", () => {
        remove(file);
        files = files.filter((other) => other !== file);
        if (file === current) select(files.find((other) => other.kind !== "subtitle") ?? null);
        else listFiles();
      });
      item.append(name, button);
      return item;
    }),
  );
}
