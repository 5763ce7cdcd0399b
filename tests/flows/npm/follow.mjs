// Follows the stream with a client and its default settings; prints what it receives as lines of JSON.
// node follow.mjs websocket|websocket-alone|sse|eventsource ADDRESS CREDENTIAL [CREDENTIAL after a reconnection]
import { EventSource } from "eventsource";
import { createClient as overSSE } from "graphql-sse";
import { createClient as overWebSocket } from "graphql-ws";
import WebSocket from "ws";

const [transport, url, ...credentials] = process.argv.slice(2);
const query = `subscription ($after: String) {
  stream(after: $after) { __typename cursor ... on EventRecorded { event { id } } }
}`;
// When the clients reconnect, they send the request again with its current variables.
const request = { query, variables: { after: null } };
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const credential = () => (credentials.length > 1 ? credentials.shift() : credentials[0]);

const sink = {
  next(response) {
    print({ next: response });
    if (response.data) request.variables.after = response.data.stream.cursor;
  },
  error(error) {
    print({ error: String(error.reason ?? error.message ?? error) });
  },
  complete() {
    print({ complete: true });
  },
};

function websocket(options = {}) {
  const client = overWebSocket({
    url: url.replace(/^http/, "ws"),
    webSocketImpl: WebSocket,
    connectionParams: () => ({ token: credential() }),
    on: { closed: (event) => print({ closed: event.code }) },
    ...options,
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

// As docs/reference/subscriptions.md describes: on an error close, request another ticket, resume after the last id.
async function eventsource() {
  try {
    const parameters = { ticket: await ticket(), query, variables: JSON.stringify(request.variables) };
    const events = new EventSource(`${url}?${new URLSearchParams(parameters)}`);
    events.addEventListener("next", ({ data, lastEventId }) => {
      print({ next: JSON.parse(data) });
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

// Without a balancer in front of a restarting hub: in Node, a refused connection would otherwise be fatal.
const withRetries = () => websocket({ shouldRetry: () => true });

({ websocket, "websocket-alone": withRetries, sse, eventsource })[transport]();
