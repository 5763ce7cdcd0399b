// The playground: GraphiQL below a bar that shows the signed-in user.

import "./workers.js";
// GraphiQL loads the editor later; importing it here puts its styles into the page's single style sheet.
import "monaco-graphql/esm/monaco-editor.js";
import "@graphiql/react/style.css";
import "@graphiql/plugin-doc-explorer/style.css";
import "@graphiql/plugin-history/style.css";
import "graphiql/graphiql.css";
import "./page.css";

import { GraphiQL } from "graphiql";
import { useCallback, useEffect, useMemo, useState } from "react";
import { createRoot } from "react-dom/client";
import { EXAMPLES } from "./examples.js";
import { fetcherFor } from "./fetcher.js";
import { SignIn } from "./sign_in.jsx";
import { pageStorage } from "./storage.js";

const storage = pageStorage();
const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds; a longer timer would fire immediately
const ENDED = "Your session has ended.";
// JSON types that the variables editor accepts for custom scalars; by default it accepts neither objects nor lists.
const SCALARS = { JSON: { type: ["object", "array", "string", "number", "boolean", "null"] } };

function Playground() {
  const [session, setSession] = useState(null);
  const [asking, setAsking] = useState({ reason: null });

  const over = useCallback(() => {
    setSession(null);
    setAsking({ reason: ENDED });
  }, []);

  useEffect(() => {
    const remaining = (session?.expiresAt ?? Infinity) - Date.now();
    if (remaining > LONGEST_TIMER) return undefined; // the hub reports the expiry itself
    const timer = setTimeout(over, remaining);
    return () => clearTimeout(timer);
  }, [session, over]);

  const { fetcher, close } = useMemo(() => fetcherFor(session, over), [session, over]);
  useEffect(() => close, [close]); // signing out ends the running subscriptions

  return (
    <>
      <Bar session={session} onSignIn={() => setAsking({ reason: null })} onSignOut={() => setSession(null)} />
      <main>
        <GraphiQL
          fetcher={fetcher}
          // Reading the schema requires a session: null means "do not fetch it", undefined means "fetch it now".
          schema={session ? undefined : null}
          storage={storage}
          customScalarSchemas={SCALARS}
          defaultTabs={EXAMPLES}
          initialVariables={EXAMPLES[0].variables}
          defaultEditorToolsVisibility="variables"
          showPersistHeadersSettings={false}
          inputValueDeprecation
          schemaDescription
        >
          <GraphiQL.Logo>
            <span className="graphiql-logo-link">GraphiQL</span>
          </GraphiQL.Logo>
        </GraphiQL>
      </main>
      {asking && (
        <SignIn
          reason={asking.reason}
          onClose={() => setAsking(null)}
          onSession={(found) => {
            setSession(found);
            setAsking(null);
          }}
        />
      )}
    </>
  );
}

function Bar({ session, onSignIn, onSignOut }) {
  return (
    <header className="bar">
      <strong>XZepr</strong>
      <span className="where">GraphQL playground</span>
      <span className="who" role="status">
        {session ? <>Signed in as <b>{session.name}</b>{until(session)}</> : "Not signed in"}
      </span>
      {session ? (
        <button type="button" className="quiet" onClick={onSignOut}>Sign out</button>
      ) : (
        <button type="button" onClick={onSignIn}>Sign in</button>
      )}
    </header>
  );
}

function until({ expiresAt }) {
  if (!expiresAt) return " by API key";
  return ` until ${new Date(expiresAt).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
}

createRoot(document.getElementById("playground")).render(<Playground />);
