// Requests to the server. Every request carries the key of this tab, and the token where the address had one.

function tabKey() {
  let key = sessionStorage.getItem("tab");
  if (!key) {
    key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("tab", key);
  }
  return key;
}

const fromAddress = new URLSearchParams(location.hash.slice(1));
if (fromAddress.has("token")) {
  sessionStorage.setItem("token", fromAddress.get("token"));
  fromAddress.delete("token");
  history.replaceState(null, "", location.pathname + (fromAddress.size ? `#${fromAddress}` : ""));
}

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { "X-Tab": tabKey(), Authorization: `Bearer ${token}` } : { "X-Tab": tabKey() };
}

export async function request(path, options = {}) {
  const { json, ...rest } = options;
  const init = { method: json === undefined ? "GET" : "POST", ...rest, headers: { ...headers(), ...rest.headers } };
  if (json !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(json);
  }
  let answer;
  try {
    answer = await fetch(`/api/${path}`, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is 'entitysam serve' still running?", 0);
  }
  if (!answer.ok) {
    const text = await answer.json().then((body) => body.error, () => "");
    throw new ServerError(text || `The server answers with error ${answer.status}.`, answer.status);
  }
  return answer;
}

export const getJson = async (path, options) => (await request(path, options)).json();
export const getBytes = async (path, options) => (await request(path, options)).arrayBuffer();
