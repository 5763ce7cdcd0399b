// Who is signed in. The token lives in one variable of this page: not in storage, not in a cookie, not in the address.

const LOGIN = `mutation Login($input: LoginInput!) {
  login(input: $input) { token expiresAt user { username } }
}`;
const ME = `query Me { me { username } }`;

export const ENDPOINT = new URL("../graphql", document.baseURI);

/** An Error that is a sentence for the visitor: GraphiQL would print its stack too. */
export function sentence(message) {
  const error = new Error(message);
  delete error.stack;
  return error;
}

/** POST one operation; `{ data, errors }`, whatever the status. Throws with a sentence when the hub did not answer. */
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

/** Sign in with a password: a session, or an Error that says why not. */
export async function signInWithPassword(username, password) {
  const result = await post({ query: LOGIN, operationName: "Login", variables: { input: { username, password } } });
  const login = result.data?.login;
  if (!login) throw refusal(result);
  return { token: login.token, name: login.user.username, expiresAt: Date.parse(login.expiresAt) };
}

/** Sign in with an API key, which the hub is asked about first: a session without an end, or an Error. */
export async function signInWithKey(key) {
  const result = await post({ query: ME, operationName: "Me" }, { authorization: `Bearer ${key}` });
  if (!result.data?.me) throw refusal(result);
  return { token: key, name: result.data.me.username, expiresAt: null };
}
