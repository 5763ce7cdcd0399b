// Follows the stream with a client and its defaults, and writes what it hears as lines of JSON.
// node follow.mjs websocket|websocket-alone|sse|eventsource ADDRESS CREDENTIAL [CREDENTIAL after a reconnection]
import { EventSource } from "eventsource";
import { createClient as overSSE } from "graphql-sse";
import { createClient as overWebSocket } from "graphql-ws";
import WebSocket from "ws";

const [transport, url, ...credentials] = process.argv.slice(2);
const query = `subscription ($after: String) {
  stream(after: $after) { __typename cursor ... on EventRecorded { event { id } } }
}`;
// The clients send the request anew when they come back, as it then is.
const request = { query, variables: { after: null } };
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const credential = () => (credentials.length > 1 ? credentials.shift() : credentials[0]);

const sink = {
  next(answer) {
    say({ next: answer });
    if (answer.data) request.variables.after = answer.data.stream.cursor;
  },
  error(error) {
    say({ error: String(error.reason ?? error.message ?? error) });
  },
  complete() {
    say({ complete: true });
  },
};

function websocket(more = {}) {
  const client = overWebSocket({
    url: url.replace(/^http/, "ws"),
    webSocketImpl: WebSocket,
    connectionParams: () => ({ token: credential() }),
    on: { closed: (event) => say({ closed: event.code }) },
    ...more,
  });
  client.subscribe(request, sink);
}

function sse() {
  const client = overSSE({ url, headers: () => ({ Authorization: `Bearer ${credential()}` }) });
  client.subscribe(request, sink);
}

async function ticket() {
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${credential()}` },
    body: JSON.stringify({ query: "mutation { createStreamTicket { ticket } }" }),
  });
  return (await response.json()).data.createStreamTicket.ticket;
}

// As docs/reference/subscriptions.md has it: after an error close, ask for another ticket, go on from the last id.
async function eventsource() {
  try {
    const parameters = { ticket: await ticket(), query, variables: JSON.stringify(request.variables) };
    const events = new EventSource(`${url}?${new URLSearchParams(parameters)}`);
    events.addEventListener("next", ({ data, lastEventId }) => {
      say({ next: JSON.parse(data) });
      request.variables.after = lastEventId || request.variables.after;
    });
    events.addEventListener("complete", () => {
      events.close();
      sink.complete();
    });
    events.addEventListener("error", () => {
      events.close();
      setTimeout(eventsource, 500);
    });
  } catch {
    setTimeout(eventsource, 500);
  }
}

// With nothing before a hub that restarts: a connection that is refused meanwhile would be the end, in Node.
const alone = () => websocket({ shouldRetry: () => true });

({ websocket, "websocket-alone": alone, sse, eventsource })[transport]();
