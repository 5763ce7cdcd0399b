// Sends GraphiQL's operations to the hub: queries and mutations by POST, each subscription over its own WebSocket.

import { getOperationAST, parse } from "graphql";
import { createClient } from "graphql-ws";
import { ENDPOINT, post, sentence } from "./session.js";

const SHOWN = 100;
const SESSION_OVER = new Set(["UNAUTHENTICATED", "INVALID_TOKEN", "TOKEN_EXPIRED"]);
const SIGN_IN_REFUSED = 4403; // close code for invalid credentials in connection_init

/**
 * Returns `fetcher`, which GraphiQL calls to run operations as `session`, and `close()`, which ends its subscriptions.
 * `onOver()` is called when the hub no longer accepts the session's token.
 */
export function fetcherFor(session, onOver) {
  const authorization = session ? { authorization: `Bearer ${session.token}` } : {};
  const clients = new Set();
  const over = () => session && onOver();

  async function fetcher(given, options = {}) {
    const { operation, kind } = settled(given);
    const headers = { ...authorization, ...options.headers };
    if (kind === "subscription") return subscribe(operation, headers, clients, over);
    const result = await post(operation, headers);
    if (isOver(result.errors)) over();
    return result;
  }
  return { fetcher, close: () => clients.forEach((client) => client.dispose()) };
}

function isOver(errors) {
  return Array.isArray(errors) && errors.some((error) => SESSION_OVER.has(error.extensions?.code));
}

/**
 * Returns the operation with its actual name, and its kind. Just after the user switches tabs, GraphiQL still passes the
 * name from the other tab; in a document with a single operation, that operation is used.
 */
function settled(operation) {
  let found;
  try {
    const document = parse(operation.query);
    found = getOperationAST(document, operation.operationName) ?? getOperationAST(document);
  } catch {
    return { operation }; // the hub reports the error
  }
  if (!found) return { operation };
  return { operation: { ...operation, operationName: found.name?.value }, kind: found.operation };
}

async function* subscribe(operation, connectionParams, clients, over) {
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
    if (error?.code === SIGN_IN_REFUSED || isOver(error)) over();
    throw readable(error);
  } finally {
    clients.delete(client);
    void client.dispose();
  }
}

/** Returns GraphQL errors unchanged, and a sentence for a WebSocket close event, which would print as an empty object. */
function readable(error) {
  if (Array.isArray(error) || error instanceof Error) return error;
  const { code, reason } = error;
  if (!code || code === 1006) return sentence("The connection to the hub was lost.");
  return sentence(`The hub closed the connection (${code}${reason ? `: ${reason}` : ""}).`);
}

/** Puts the newest message first; of consecutive checkpoints, only the newest is kept. */
function keep(newestFirst, result) {
  if (isCheckpoint(result) && newestFirst.length > 0 && isCheckpoint(newestFirst[0])) newestFirst.shift();
  newestFirst.unshift(result);
  newestFirst.splice(SHOWN);
}

function isCheckpoint(result) {
  return result.data?.stream?.__typename === "Checkpoint";
}
