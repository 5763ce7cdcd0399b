// How GraphiQL reaches the hub: queries and mutations by POST, subscriptions over one WebSocket each, at one address.

import { getOperationAST, parse } from "graphql";
import { createClient } from "graphql-ws";
import { ENDPOINT, post, sentence } from "./session.js";

const SHOWN = 100;
const SESSION_OVER = new Set(["UNAUTHENTICATED", "INVALID_TOKEN", "TOKEN_EXPIRED"]);
const SIGN_IN_REFUSED = 4403; // how the hub closes a socket whose connection_init it does not accept

/**
 * What acts as `session`: `fetcher` for GraphiQL, and `close()`, which ends its subscriptions.
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
 * The operation with the name it has, and its kind. Just after a tab was changed, GraphiQL still gives the name that
 * was run in the other tab; a document with one operation leaves no doubt.
 */
function settled(operation) {
  let found;
  try {
    const document = parse(operation.query);
    found = getOperationAST(document, operation.operationName) ?? getOperationAST(document);
  } catch {
    return { operation }; // the hub says what is wrong with it
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

/** GraphQL errors as they are; a WebSocket's event, which says nothing when printed, as a sentence. */
function readable(error) {
  if (Array.isArray(error) || error instanceof Error) return error;
  const { code, reason } = error;
  if (!code || code === 1006) return sentence("The connection to the hub was lost.");
  return sentence(`The hub closed the connection (${code}${reason ? `: ${reason}` : ""}).`);
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
