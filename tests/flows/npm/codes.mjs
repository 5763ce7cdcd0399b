// Prints as lines of JSON whether graphql-ws, with its defaults, reconnects after a socket closes with each code.
// node codes.mjs ADDRESS CODE …
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, ...codes] = process.argv.slice(2);
for (const code of codes) {
  const report = (reconnected) => process.stdout.write(`${JSON.stringify({ code: Number(code), reconnected })}\n`);
  const client = createClient({ url: `${url}/${code}`, webSocketImpl: WebSocket });
  client.subscribe(
    { query: "subscription { stream { cursor } }" },
    { next: () => report(true), error: () => report(false), complete() {} },
  );
}
