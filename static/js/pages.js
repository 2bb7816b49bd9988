/* What pages do more comfortably with a script; everything works without it.
   Listeners sit on the document, so that swapped fragments need no wiring. */
(function () {
  "use strict";
  var root = document.documentElement;

  /* --- theme --- */
  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function nameTheme() {
    document.querySelectorAll("[data-theme-toggle]").forEach(function (button) {
      button.textContent = isDark() ? "Light pages" : "Dark pages";
    });
  }
  document.addEventListener("click", function (event) {
    if (!event.target.closest("[data-theme-toggle]")) return;
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch (error) {
      /* Kept for this page only. */
    }
    nameTheme();
  });
  nameTheme();

  /* --- the movie of a live photo that cannot be played --- */
  document.addEventListener(
    "error",
    function (event) {
      var figure = event.target.closest && event.target.closest("figure.movie");
      if (!figure) return;
      figure.querySelector("video").hidden = true;
      figure.querySelector("[role=status]").hidden = false;
    },
    true
  );

  /* --- a picture as the query: chosen, dropped or pasted --- */
  function pictureForm() {
    return document.querySelector("main form[data-picture]") || document.querySelector("form[data-picture]");
  }
  function searchWith(files) {
    var form = pictureForm();
    var file = Array.prototype.find.call(files || [], function (one) {
      return one.type.indexOf("image/") === 0 || /\.(jpe?g|png|gif|webp|heic|heif|avif|tiff?|bmp|jp2)$/i.test(one.name);
    });
    if (!form || !file) return false;
    var carrier = new DataTransfer();
    carrier.items.add(file);
    form.elements.picture.files = carrier.files;
    send(form);
    return true;
  }
  function send(form) {
    document.body.classList.add("htmx-request");
    form.submit();
  }
  document.addEventListener("change", function (event) {
    var form = event.target.form;
    if (form && form.hasAttribute("data-picture") && event.target === form.elements.picture && event.target.files.length) send(form);
  });
  document.addEventListener("paste", function (event) {
    if (event.clipboardData && searchWith(event.clipboardData.files)) event.preventDefault();
  });
  function carriesFiles(event) {
    return pictureForm() && event.dataTransfer && Array.prototype.indexOf.call(event.dataTransfer.types, "Files") >= 0;
  }
  document.addEventListener("dragover", function (event) {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", function (event) {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", function (event) {
    document.body.classList.remove("dropping");
    if (!carriesFiles(event)) return;
    event.preventDefault();
    searchWith(event.dataTransfer.files);
  });

  /* --- menus close on a click elsewhere (on Escape: keyboard.js) --- */
  document.addEventListener("click", function (event) {
    document.querySelectorAll("details.menu[open]").forEach(function (menu) {
      if (!menu.contains(event.target)) menu.open = false;
    });
    var close = event.target.closest("[data-close-toast]");
    if (close) close.closest(".toast").remove();
  });

  /* --- a menu of the selection that is opened with a mouse is ready to be written in (with a key: keyboard.js) --- */
  document.addEventListener("click", function (event) {
    var summary = event.target.closest("#selection details.menu > summary");
    if (!summary || !event.detail || !matchMedia("(pointer: fine)").matches) return;
    setTimeout(function () {
      var field = summary.parentNode.open && summary.parentNode.querySelector("select, input:not([type=hidden])");
      if (field) field.focus({ preventScroll: true });
    });
  });

  /* --- a page in the background does not poll, nor does a part in which somebody is at work --- */
  document.addEventListener("htmx:beforeRequest", function (event) {
    var part = event.detail.elt;
    if (!part.hasAttribute("data-poll")) return;
    var busy = part.dataset.poll === "gently" && (part.contains(document.activeElement) || part.querySelector("details[open]"));
    if (busy || document.visibilityState === "hidden") event.preventDefault();
  });

  /* --- a thumbnail that was not made yet is asked for again, less and less often --- */
  var waits = [3, 6, 12, 24, 48, 96];
  function lookAgain(round) {
    if (round >= waits.length) return;
    setTimeout(function () {
      document.querySelectorAll("img[data-waiting]").forEach(function (picture) {
        var probe = new Image();
        var address = picture.dataset.waiting + (picture.dataset.waiting.indexOf("?") < 0 ? "?" : "&") + "again=" + round;
        probe.onload = function () {
          if (probe.naturalWidth > 1) {
            picture.src = address;
            picture.removeAttribute("data-waiting");
          }
        };
        probe.src = address + "&strict=1";
      });
      lookAgain(round + 1);
    }, waits[round] * 1000);
  }
  lookAgain(0);
})();
