// Monaco checks documents in web workers. Each worker is one file served with the page, so `worker-src 'self'` is enough.

/* global WORKERS */ // { editor, graphql, json }: file names, inserted by build.mjs

globalThis.MonacoEnvironment = {
  getWorker(_id, label) {
    return new Worker(new URL(WORKERS[label] ?? WORKERS.editor, import.meta.url), { name: label });
  },
};
