// The requests of the page. The token of this start stands behind the # of its address, or is that of the last visit.

import { recall, remember } from "./dom.js";

const given = new URLSearchParams(location.hash.slice(1)).get("token");
const token = () => given ?? recall("truthkit-token") ?? "";

/** What was refused before it stood in the line, with a list of fields. */
export class Refused extends Error {
  constructor(message, problems) {
    super(message);
    this.problems = problems;
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      ...options,
      headers: { Authorization: `Bearer ${token()}`, "Content-Type": "application/json" },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("truthkit app does not answer. Is it still running? Start it again and open the address it prints.");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  if (answer.problems) throw new Refused(answer.error, answer.problems);
  throw new Error(answer.error ?? `the server answered ${response.status} ${response.statusText}`);
}

export async function about() {
  const facts = await (await request("/api/about")).json();
  if (given) remember("truthkit-token", given);
  return facts;
}

/** A drawn scene, for the test model that knows nothing else; the same one for the same seed. */
export const scene = async (seed) => (await request(seed === undefined ? "/api/scene" : `/api/scene?seed=${seed}`)).blob();

/** What is wrong with cards, a list of { card, field, message }. */
export async function check(cards) {
  const response = await request("/api/check", { method: "POST", body: JSON.stringify({ cards }) });
  return (await response.json()).problems;
}

export async function cancel(run) {
  const response = await request("/api/cancel", { method: "POST", body: JSON.stringify({ run }) });
  return (await response.json()).cancelled;
}

/** Send a run and hand every event to `onEvent` as it comes; ends with the run, or throws what went wrong. */
export const run = (document, onEvent, signal) => streamed("/api/run", document, onEvent, signal);

/** How alike an answer's tokens and the image's patches are; `onEvent` is told the place in the line meanwhile. */
export const map = (document, onEvent) => streamed("/api/map", document, onEvent);

async function streamed(path, document, onEvent, signal) {
  const response = await request(path, { method: "POST", body: JSON.stringify(document), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let ended = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      ended ||= event.event === "end";
      onEvent(event);
    }
  }
  if (!ended) throw new Error("the answers broke off: the connection to truthkit app was lost. See its terminal.");
}
