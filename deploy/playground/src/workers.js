// Monaco checks documents in workers of its own; each is one file beside the page, so `worker-src 'self'` is enough.

/* global WORKERS */ // { editor, graphql, json }: file names, put in by build.mjs

globalThis.MonacoEnvironment = {
  getWorker(_id, label) {
    return new Worker(new URL(WORKERS[label] ?? WORKERS.editor, import.meta.url), { name: label });
  },
};
