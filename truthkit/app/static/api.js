// The three requests of the page. The token of this start stands behind the # of its address.

const token = () => new URLSearchParams(location.hash.slice(1)).get("token") ?? "";

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
  throw new Error(answer.error ?? `the server answered ${response.status} ${response.statusText}`);
}

export const about = async () => (await request("/api/about")).json();

/** A drawn scene, for the test model that knows nothing else. */
export const scene = async () => (await request("/api/scene")).blob();

export async function cancel(run) {
  const response = await request("/api/cancel", { method: "POST", body: JSON.stringify({ run }) });
  return (await response.json()).cancelled;
}

/** Send a run and hand every event to `onEvent` as it comes; ends with the run, or throws what went wrong. */
export async function run(document, onEvent, signal) {
  const response = await request("/api/run", { method: "POST", body: JSON.stringify(document), signal });
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
