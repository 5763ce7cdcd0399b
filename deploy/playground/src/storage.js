// What GraphiQL may keep between visits: the look of the page. Documents, variables, headers and history may hold
// secrets, so they live as long as the page does.

const KEPT = /^graphiql:(theme|docExplorerFlex|editorFlex|secondaryEditorFlex)$/;
// Variables get nearly as much height as the document, so that what an example asks to replace is in sight.
const AT_FIRST = new Map([["graphiql:secondaryEditorFlex", "1.2"]]);

/** A Web Storage with which GraphiQL forgets everything but its theme and the sizes of its panes. */
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
