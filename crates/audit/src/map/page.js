// What has the focus, or the pointer, is told below the chart. All of it stands in the tables, too.
const told = document.getElementById("told");
for (const seen of document.querySelectorAll("svg .seen")) {
  const tell = () => { told.textContent = seen.getAttribute("aria-label"); };
  seen.addEventListener("focus", tell);
  seen.addEventListener("pointerenter", tell);
}
