// Lets GraphiQL store only the look of the page. Documents, variables, headers and history may contain secrets, so they
// are kept in memory until the page is closed.

const KEPT = /^graphiql:(theme|docExplorerFlex|editorFlex|secondaryEditorFlex)$/;
// The variables pane is nearly as high as the document, so that the values to replace in an example are visible.
const AT_FIRST = new Map([["graphiql:secondaryEditorFlex", "1.2"]]);

/** A Web Storage that persists only GraphiQL's theme and pane sizes. */
export function pageStorage(kept = globalThis.localStorage) {
  const memory = new Map();
  const of = (key) => (KEPT.test(key) ? kept : null);
  return {
    getItem: (key) => (of(key) ? kept.getItem(key) : memory.get(key)) ?? AT_FIRST.get(key) ?? null,
    setItem: (key, value) => (of(key) ? kept.setItem(key, value) : void memory.set(key, value)),
    removeItem: (key) => (of(key) ? kept.removeItem(key) : void memory.delete(key)),
    clear() {
      memory.clear();
      Object.keys(kept).filter((key) => KEPT.test(key)).forEach((key) => kept.removeItem(key));
    },
    get length() {
      return memory.size;
    },
  };
}
