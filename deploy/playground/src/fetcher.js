// How GraphiQL reaches the hub: queries and mutations by POST, subscriptions over one WebSocket each, at one address.

import { getOperationAST, parse } from "graphql";
import { createClient } from "graphql-ws";
import { ENDPOINT, post } from "./session.js";

const SHOWN = 100;
const SESSION_OVER = new Set(["UNAUTHENTICATED", "INVALID_TOKEN", "TOKEN_EXPIRED"]);
const CLOSED = { 4401: "Sign in again: the hub no longer accepts this token.", 4403: "The hub refused this sign-in." };

/**
 * What acts as `session`: `fetcher` for GraphiQL, and `close()`, which ends its subscriptions.
 * `onOver()` is called when the hub no longer accepts the session's token.
 */
export function fetcherFor(session, onOver) {
  const authorization = session ? { authorization: `Bearer ${session.token}` } : {};
  const clients = new Set();

  async function fetcher(operation, options = {}) {
    const headers = { ...authorization, ...options.headers };
    if (isSubscription(operation)) return subscribe(operation, headers, clients, onOver);
    const result = await post(operation, headers);
    if (session && result.errors?.some((error) => SESSION_OVER.has(error.extensions?.code))) onOver();
    return result;
  }
  return { fetcher, close: () => clients.forEach((client) => client.dispose()) };
}

function isSubscription({ query, operationName }) {
  try {
    return getOperationAST(parse(query), operationName)?.operation === "subscription";
  } catch {
    return false; // the hub says what is wrong with it
  }
}

async function* subscribe(operation, connectionParams, clients, onOver) {
  const url = new URL(ENDPOINT);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const client = createClient({ url: url.href, connectionParams, retryAttempts: 0 });
  clients.add(client);
  let received = 0;
  const newestFirst = [];
  try {
    for await (const result of client.iterate(operation)) {
      received += 1;
      keep(newestFirst, result);
      yield { received, newestFirst: [...newestFirst] };
    }
  } catch (error) {
    if (error?.code === 4401) onOver();
    throw readable(error);
  } finally {
    clients.delete(client);
    void client.dispose();
  }
}

/** GraphQL errors as they are; a WebSocket's event, which says nothing when printed, as a sentence. */
function readable(error) {
  if (Array.isArray(error) || error instanceof Error) return error;
  const { code, reason } = error;
  if (!code || code === 1006) return new Error("The connection to the hub was lost.");
  return new Error(CLOSED[code] ?? `The hub closed the connection (${code}${reason ? `: ${reason}` : ""}).`);
}

/** The newest message goes on top; of several checkpoints in a row only the newest is worth its line. */
function keep(newestFirst, result) {
  if (isCheckpoint(result) && newestFirst.length > 0 && isCheckpoint(newestFirst[0])) newestFirst.shift();
  newestFirst.unshift(result);
  newestFirst.splice(SHOWN);
}

function isCheckpoint(result) {
  return result.data?.stream?.__typename === "Checkpoint";
}
