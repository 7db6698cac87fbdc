// Questions and answers: sent, streamed, stopped, kept for follow-ups.

import { allFiles, currentVideo } from "./files.js";
import * as phases from "./phases.js";
import { lines } from "./server.js";
import { longMode, options } from "./settings.js";
import { clock, seek } from "./stage.js";
import { currentLanguage, text } from "./texts.js";

const list = document.getElementById("turns");
const empty = document.getElementById("empty");
const send = document.getElementById("send");
const stop = document.getElementById("stop");

let turns = [];
let summary = null;
let running = null;

export const allTurns = () => turns;
export const lastSummary = () => summary;
export const isRunning = () => running !== null;

export function clearConversation() {
  running?.abort();
  turns = [];
  summary = null;
  list.replaceChildren();
  empty.hidden = false;
}

export const stopAnswer = () => running?.abort();

/** Asks; resolves when the answer is complete, stopped, or failed. */
export async function ask(question, asLong) {
  const video = currentVideo();
  const mode = longMode();
  const tooLong = mode === "always" || video?.look.wanted_tokens > video?.look.prompt_tokens;
  const long = video && mode !== "never" && (asLong || (turns.length === 0 && tooLong));
  addTurn("user", question);
  const answer = addTurn("assistant", "");
  running = new AbortController();
  busy(true);
  try {
    await (long ? summarize(video, question, answer) : converse(answer));
  } catch (error) {
    if (error.name === "AbortError") note(answer, text("stopped"));
    else fail(answer, error);
  } finally {
    running = null;
    busy(false);
    phases.clear();
    forgetEmpty();
  }
}

async function converse(answer) {
  const body = {
    files: allFiles().map((file) => file.id),
    turns: turns.slice(0, -1).map(({ role, text }) => ({ role, text })),
    options: options(),
    video_seconds: currentVideo()?.look.seconds ?? 0,
  };
  for await (const line of lines("/ask", body, running.signal)) {
    if (line.kind === "progress") phases.progress(line);
    else if (line.kind === "error") throw line;
    else {
      phases.answering();
      write(answer, line);
      if (line.kind === "answer") finish(answer, line);
    }
  }
}

async function summarize(video, about, answer) {
  const body = {
    file: video.id,
    subtitles: allFiles().find((file) => file.kind === "subtitle")?.id,
    about,
    language: currentLanguage() === "zh" ? "Chinese" : "English",
    options: options(),
  };
  let parts = 0;
  let done = 0;
  const chapters = [];
  for await (const line of lines("/summarize", body, running.signal)) {
    if (line.kind === "parts") parts = line.total;
    else if (line.kind === "part") {
      done += 1;
      chapters.push(...line.chapters);
      write(answer, { html: chapterList(chapters), text: "" });
    } else if (line.kind === "merged") phases.counted(text("merging", line.done, line.total), line.done, line.total);
    else if (line.kind === "error") throw line;
    else if (line.kind === "summary") {
      write(answer, line);
      summary = line.formats;
      announce(text("announce_answer"));
    }
    if (line.kind === "parts" || line.kind === "part") phases.counted(text("parts", done, parts), done, parts);
  }
}

function chapterList(chapters) {
  const container = document.createElement("div");
  const items = document.createElement("ul");
  for (const chapter of chapters.toSorted((a, b) => a.start - b.start)) {
    const item = document.createElement("li");
    const time = document.createElement("a");
    time.className = "time";
    time.href = `#t=${chapter.start}`;
    time.dataset.seconds = chapter.start;
    time.textContent = clock(chapter.start);
    item.append(time, ` ${chapter.title}`);
    items.append(item);
  }
  container.append(items);
  return container.innerHTML;
}

function addTurn(role, content) {
  empty.hidden = true;
  const item = document.createElement("li");
  item.className = role;
  const who = document.createElement("h2");
  who.className = "hidden";
  who.dataset.text = role === "user" ? "you" : "model";
  who.textContent = text(who.dataset.text);
  const body = document.createElement("div");
  body.className = "body";
  if (role === "user") body.textContent = content;
  item.append(who, body);
  list.append(item);
  const turn = { role, text: content, item, body };
  turns.push(turn);
  list.scrollTo({ top: list.scrollHeight });
  item.scrollIntoView({ block: "nearest" });
  return turn;
}

function write(turn, { html, text: plain }) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  turn.text = plain;
  turn.body.innerHTML = html;
  if (atEnd) list.scrollTo({ top: list.scrollHeight });
}

function finish(turn, { finish_reason: reason, usage, seconds }) {
  turn.usage = usage;
  note(turn, text("cost", usage.completion_tokens, seconds.toFixed(1), usage.prompt_tokens));
  if (reason === "length" || reason === "time_limit") note(turn, text("cut_off"));
  announce(text("announce_answer"));
}

function note(turn, words) {
  const line = document.createElement("p");
  line.className = "note";
  line.textContent = words;
  turn.item.append(line);
}

function fail(turn, { code, message }) {
  const box = document.createElement("div");
  box.className = "error";
  box.setAttribute("role", "alert");
  const advice = document.createElement("strong");
  advice.textContent = text(`errors.${code}`) ?? text("errors.internal");
  const detail = document.createElement("p");
  detail.textContent = message;
  box.append(advice, detail);
  turn.item.append(box);
}

/** A turn without an answer is nothing that a follow-up can build on: the question goes too, but stays on the page. */
function forgetEmpty() {
  if (turns.length && !turns.at(-1).text) turns = turns.slice(0, -2);
}

function busy(yes) {
  send.hidden = yes;
  stop.hidden = !yes;
  list.setAttribute("aria-busy", yes);
}

export function announce(words) {
  document.getElementById("announce").textContent = words;
}

list.addEventListener("click", (event) => {
  const link = event.target.closest("a.time");
  if (!link) return;
  event.preventDefault();
  seek(Number(link.dataset.seconds));
});
