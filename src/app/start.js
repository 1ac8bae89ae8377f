// Starts the wasm of a page: begins to fetch it before the rest of the document is read, hydrates the document once it
// is complete, and shows a notice if that fails. `shell.rs` puts this into <head>, without the comments.
((js, wasm) => {
  const root = document.documentElement;
  const parsed = new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve));

  // Shows the notice with the text for this reason; without a reason, hides it. `client/page_error.rs` calls this, too.
  window.hallpassPageError = (reason) => {
    const shown = root.dataset.pageError;
    // The first error is the cause of those that follow. Only a part that is fetched again may still arrive.
    if (shown && shown !== "part") return;
    if (reason === "panic") {
      if (!("hydrated" in root.dataset)) reason = "hydration";
      // The wasm must not run again. Without its listeners, links and forms work as they do without scripts.
      for (const type of ["click", "submit"]) {
        window.addEventListener(type, (event) => event.stopImmediatePropagation(), true);
      }
    }
    if (reason) root.dataset.pageError = reason;
    else delete root.dataset.pageError;
    parsed.then(() => {
      const notice = document.getElementById("page-error");
      for (const text of notice.querySelectorAll("[data-reason]")) text.hidden = text.dataset.reason !== reason;
      notice.hidden = !reason;
    });
  };

  // Listens first, so that this button works after a panic, too.
  window.addEventListener("click", ({ target }) => target.matches && target.matches("[data-reload]") && location.reload(), true);

  // Resolves after the first paint, which hydration would delay. A hidden page is not painted.
  const painted = () =>
    new Promise((resolve) => {
      if (document.hidden) resolve();
      else requestAnimationFrame(() => setTimeout(resolve));
    });

  const start = async () => {
    const [page, response] = await Promise.all([import(js), fetch(wasm)]);
    await page.default({ module_or_path: response });
    await parsed;
    await painted();
    page.hydrate();
  };

  if (typeof WebAssembly !== "object") {
    window.hallpassPageError("wasm");
    return;
  }
  start().catch((error) => {
    console.error(error);
    const is = (...types) => types.some((type) => error instanceof type);
    // A policy or an old engine refuses to compile the wasm.
    const isRefused = is(WebAssembly.CompileError, WebAssembly.LinkError, EvalError);
    window.hallpassPageError(is(WebAssembly.RuntimeError) ? "panic" : isRefused ? "wasm" : "load");
  });
})
