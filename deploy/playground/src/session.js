// Signing in. The token is kept only in a variable of this page: not in storage, a cookie or the URL.

const LOGIN = `mutation Login($input: LoginInput!) {
  login(input: $input) { token expiresAt user { username } }
}`;
const ME = `query Me { me { username } }`;

export const ENDPOINT = new URL("../graphql", document.baseURI);

/** Returns an Error without a stack, because GraphiQL would show the stack to the user. */
export function sentence(message) {
  const error = new Error(message);
  delete error.stack;
  return error;
}

/** Posts one operation and returns `{ data, errors }`, whatever the status. Throws an Error if the hub does not respond. */
export async function post(operation, headers) {
  let response;
  try {
    response = await fetch(ENDPOINT, {
      method: "POST",
      credentials: "omit",
      headers: {
        "content-type": "application/json",
        accept: "application/graphql-response+json, application/json;q=0.9",
        ...headers,
      },
      body: JSON.stringify(operation),
    });
  } catch {
    throw sentence("The hub does not answer. Is it running?");
  }
  try {
    return await response.json();
  } catch {
    throw sentence(`The hub answered ${response.status} without a GraphQL response.`);
  }
}

function refusal(result) {
  const error = result.errors?.[0];
  return sentence(error?.message ?? "The hub gave no reason.");
}

/** Signs in with a password and returns a session. Throws an Error with the reason if that fails. */
export async function signInWithPassword(username, password) {
  const result = await post({ query: LOGIN, operationName: "Login", variables: { input: { username, password } } });
  const login = result.data?.login;
  if (!login) throw refusal(result);
  return { token: login.token, name: login.user.username, expiresAt: Date.parse(login.expiresAt) };
}

/** Checks an API key with the hub and returns a session that does not expire. Throws an Error with the reason if that fails. */
export async function signInWithKey(key) {
  const result = await post({ query: ME, operationName: "Me" }, { authorization: `Bearer ${key}` });
  if (!result.data?.me) throw refusal(result);
  return { token: key, name: result.data.me.username, expiresAt: null };
}
