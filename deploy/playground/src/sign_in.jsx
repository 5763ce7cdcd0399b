// The sign-in dialog, for a user name and password or for an API key.

import { useEffect, useRef, useState } from "react";
import { signInWithKey, signInWithPassword } from "./session.js";

/** A modal dialog. Calls `onSession(session)` after signing in, and `onClose()` when the user closes it. */
export function SignIn({ reason, onSession, onClose }) {
  const dialog = useRef(null);
  const [way, setWay] = useState("password");
  const [problem, setProblem] = useState(null);
  const [waiting, setWaiting] = useState(false);

  useEffect(() => {
    if (!dialog.current.open) dialog.current.showModal();
    dialog.current.querySelector(".field input").focus();
  }, [way]);

  async function submit(event) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setWaiting(true);
    setProblem(null);
    try {
      onSession(
        way === "password"
          ? await signInWithPassword(form.get("username"), form.get("password"))
          : await signInWithKey(form.get("key").trim()),
      );
    } catch (error) {
      setProblem(error.message);
      setWaiting(false);
    }
  }

  return (
    <dialog ref={dialog} className="sign-in" onClose={onClose} aria-labelledby="sign-in-title">
      <form onSubmit={submit}>
        <h1 id="sign-in-title">Sign in to XZepr</h1>
        {reason && <p className="reason">{reason}</p>}
        <div className="ways" role="radiogroup" aria-label="Way to sign in">
          <Way value="password" way={way} setWay={setWay}>Password</Way>
          <Way value="key" way={way} setWay={setWay}>API key</Way>
        </div>
        {way === "password" ? (
          <>
            <Field label="User name" name="username" autoComplete="username" />
            <Field label="Password" name="password" type="password" autoComplete="current-password" />
          </>
        ) : (
          <Field label="API key" name="key" type="password" autoComplete="off" placeholder="xzepr_…" />
        )}
        <p className="problem" role="alert">{problem}</p>
        <div className="actions">
          <button type="button" className="quiet" onClick={() => dialog.current.close()}>Not now</button>
          <button type="submit" disabled={waiting}>{waiting ? "Signing in…" : "Sign in"}</button>
        </div>
        <p className="note">The token stays in this page's memory. Reloading the page forgets it.</p>
      </form>
    </dialog>
  );
}

function Way({ value, way, setWay, children }) {
  return (
    <label>
      <input type="radio" name="way" value={value} checked={way === value} onChange={() => setWay(value)} />
      <span>{children}</span>
    </label>
  );
}

function Field({ label, type = "text", ...rest }) {
  return (
    <label className="field">
      <span>{label}</span>
      <input type={type} required spellCheck={false} autoCapitalize="none" {...rest} />
    </label>
  );
}
