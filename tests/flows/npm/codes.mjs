// What graphql-ws does with its defaults when a socket is closed with each of these codes, as lines of JSON.
// node codes.mjs ADDRESS CODE …
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, ...codes] = process.argv.slice(2);
for (const code of codes) {
  const say = (comesBack) => process.stdout.write(`${JSON.stringify({ code: Number(code), comesBack })}\n`);
  const client = createClient({ url: `${url}/${code}`, webSocketImpl: WebSocket });
  client.subscribe(
    { query: "subscription { stream { cursor } }" },
    { next: () => say(true), error: () => say(false), complete() {} },
  );
}
