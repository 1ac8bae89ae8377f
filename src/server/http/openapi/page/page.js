function show() {
  const target = document.getElementById(location.hash.slice(1));
  const folded = target?.closest("details:not([open])");
  if (folded) {
    folded.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", show);
show();

// Browsers offer the clipboard over https and on this computer only.
for (const block of navigator.clipboard ? document.querySelectorAll(".copyable") : []) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button small quiet";
  button.ariaLive = "polite";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("pre").textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  block.append(button);
}
