// The player, and under it what the model sees of the video: frames with their times over the change signal.

import { contentOf, pictureOf } from "./server.js";
import { text } from "./texts.js";

const SHOWN_FRAMES = 32;
const SVG = "http://www.w3.org/2000/svg";

const stage = document.getElementById("stage");
const player = document.getElementById("player");
const still = document.getElementById("still");
const unplayable = document.getElementById("unplayable");
const strip = document.getElementById("strip");
const frames = document.getElementById("frames");
const signal = document.getElementById("signal");
const caption = document.getElementById("caption");

let shown = null;

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const minutes = Math.floor(whole / 60) % 60;
  const rest = String(whole % 60).padStart(2, "0");
  return whole < 3600 ? `${minutes}:${rest}` : `${Math.floor(whole / 3600)}:${String(minutes).padStart(2, "0")}:${rest}`;
}

/** Of a short video, where several frames share a second, with tenths. */
const precise = (seconds) =>
  shown.look.seconds < 120 ? `${clock(seconds)}.${Math.floor((seconds % 1) * 10)}` : clock(seconds);

/** Moves the player; a video that the browser cannot play shows its picture there. */
export function seek(seconds) {
  if (!shown) return;
  if (shown.kind === "video" && player.hidden) showStill(pictureOf(shown, seconds), clock(seconds));
  else player.currentTime = seconds;
  movePlayhead(seconds);
}

/** Puts a file on the stage; null clears it. */
export function show(file) {
  shown = file;
  stage.hidden = !file;
  strip.hidden = true;
  unplayable.hidden = true;
  still.hidden = true;
  player.hidden = file?.kind !== "video";
  if (file?.kind === "video") player.src = contentOf(file);
  else player.removeAttribute("src");
  if (file?.kind === "image") showStill(contentOf(file), file.name);
  if (file?.look) showLook(file.look);
}

/** Draws what is looked at of the video on the stage. */
export function showLook(look) {
  strip.hidden = false;
  drawSignal(look);
  drawFrames(look.timestamps);
  describe();
}

/** The caption, in the language of the page. */
export function describe() {
  if (!shown?.look) return;
  const { timestamps, cuts, wanted_tokens: wanted, prompt_tokens: prompt } = shown.look;
  caption.textContent = text("caption", timestamps.length, cuts.length) + (wanted > prompt ? text("too_long") : "");
  for (const frame of frames.children) frame.setAttribute("aria-label", text("seek", frame.dataset.clock));
}

function showStill(source, name) {
  still.src = source;
  still.alt = name;
  still.hidden = false;
}

function drawFrames(timestamps) {
  const every = Math.max(1, Math.ceil(timestamps.length / SHOWN_FRAMES));
  frames.replaceChildren(
    ...timestamps
      .filter((_, index) => index % every === 0)
      .map((seconds) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "frame";
        button.dataset.seconds = seconds;
        button.dataset.clock = precise(seconds);
        const picture = document.createElement("img");
        picture.src = pictureOf(shown, seconds);
        picture.alt = "";
        picture.loading = "lazy";
        picture.addEventListener("error", () => picture.remove());
        const time = document.createElement("span");
        time.textContent = precise(seconds);
        button.append(picture, time);
        button.addEventListener("click", () => seek(seconds));
        return button;
      }),
  );
}

function drawSignal({ changes, cuts, timestamps, seconds }) {
  const width = 512 / changes.length;
  const points = changes.map((change, index) => `L${index * width} ${36 - 30 * change}L${(index + 1) * width} ${36 - 30 * change}`);
  document.getElementById("changes").setAttribute("d", `M0 36${points.join("")}L512 36Z`);
  const ticks = (times, top, bottom) =>
    times.map((time) => {
      const line = document.createElementNS(SVG, "line");
      const x = (512 * time) / seconds;
      for (const [name, value] of Object.entries({ x1: x, x2: x, y1: top, y2: bottom })) line.setAttribute(name, value);
      return line;
    });
  document.getElementById("cuts").replaceChildren(...ticks(cuts, 0, 36));
  document.getElementById("sampled").replaceChildren(...ticks(timestamps, 36, 40));
  movePlayhead(0);
}

function movePlayhead(seconds) {
  if (!shown?.look) return;
  const x = (512 * seconds) / shown.look.seconds;
  const playhead = document.getElementById("playhead");
  playhead.setAttribute("x1", x);
  playhead.setAttribute("x2", x);
  const past = [...frames.children].filter((frame) => Number(frame.dataset.seconds) <= seconds + 0.01);
  for (const frame of frames.children) frame.classList.toggle("current", frame === past.at(-1));
}

player.addEventListener("timeupdate", () => movePlayhead(player.currentTime));
player.addEventListener("error", () => {
  if (shown?.kind !== "video" || !player.getAttribute("src")) return;
  player.hidden = true;
  unplayable.hidden = false;
  showStill(pictureOf(shown, 0), shown.name);
});
signal.addEventListener("click", (event) => {
  if (!shown?.look) return;
  const box = signal.getBoundingClientRect();
  seek(((event.clientX - box.left) / box.width) * shown.look.seconds);
});
