/* Runs before the page is drawn, so that the chosen theme never flashes. */
(function () {
  "use strict";
  var root = document.documentElement;
  root.classList.add("scripted");
  try {
    var chosen = localStorage.getItem("theme");
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  } catch (error) {
    /* Storage switched off: the system's theme holds. */
  }
})();
