// What the page asks its server.

/** A request that failed; `code` is the server's, or `network`. */
export class Failure extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The error in a response's body, if it holds one. */
const failed = (body, status) => new Failure(body?.error?.code ?? "internal", body?.error?.message ?? `HTTP ${status}`);

const failure = async (response) => failed(await response.json().catch(() => null), response.status);

const reach = (...request) =>
  fetch(...request).catch((error) => {
    throw error.name === "AbortError" ? error : new Failure("network", String(error.message));
  });

/** Uploads a file; `progress` is told the share that has left, 0 to 1. */
export function upload(file, progress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/files?name=${encodeURIComponent(file.name)}`);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => progress(event.loaded / event.total));
    request.addEventListener("load", () => {
      if (request.status === 200) resolve(request.response);
      else reject(failed(request.response, request.status));
    });
    request.addEventListener("error", () => reject(new Failure("network", "")));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

export async function look(file, options) {
  const response = await reach(`/files/${file.id}/look?${new URLSearchParams(options)}`);
  if (!response.ok) throw await failure(response);
  return response.json();
}

export const remove = (file) => reach(`/files/${file.id}`, { method: "DELETE" }).catch(() => {});

export const contentOf = (file) => `/files/${file.id}/content`;

export const pictureOf = (file, seconds) => `/files/${file.id}/picture?at=${seconds.toFixed(3)}`;

/** Posts, and gives each line of the response as it comes. */
export async function* lines(path, body, signal) {
  const response = await reach(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Failure("network", String(error.message));
    });
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts.filter(Boolean).map((line) => JSON.parse(line));
  }
}
