/* Exact copies by key: the current group is framed; 1 to 9 choose, Enter or k keep, s skips, u undoes, Esc goes back. */
(function () {
  "use strict";
  var skipped = [];

  function open_groups() {
    return Array.prototype.slice.call(document.querySelectorAll(".copy-group:not(.done)"));
  }
  function current() {
    return document.querySelector(".copy-group.current:not(.done)");
  }
  function enter(group, quietly) {
    document.querySelectorAll(".copy-group.current").forEach(function (one) {
      one.classList.remove("current");
    });
    if (!group) {
      var end = document.querySelector("#copies-end a[rel=next]") || document.querySelector("#copies-end a");
      if (end && !quietly) end.focus();
      return;
    }
    group.classList.add("current");
    if (quietly) return;
    var chosen = group.querySelector("input[name=keeper]:checked") || group.querySelector("button");
    chosen.focus({ preventScroll: true });
    group.scrollIntoView({ block: "nearest" });
  }
  /* the next group below this place that was neither done nor skipped */
  function after(place) {
    return open_groups().find(function (one) {
      return skipped.indexOf(one.id) < 0 && (!place || place.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING);
    });
  }
  function skip(group) {
    if (!group) return;
    skipped.push(group.id);
    enter(after(group));
  }
  function accept(group) {
    if (group && !group.querySelector(".htmx-request")) group.querySelector("form").requestSubmit();
  }

  document.addEventListener("focusin", function (event) {
    var group = event.target.closest(".copy-group:not(.done)");
    if (group && group !== current()) enter(group, true);
  });
  document.addEventListener("click", function (event) {
    if (event.target.closest("[data-skip]")) skip(event.target.closest(".copy-group"));
  });
  document.addEventListener("htmx:afterSettle", function (event) {
    var done = event.target.closest && event.target.closest(".copy-group.done");
    if (done) enter(after(done) || after(null));
  });

  /* --- what the keys of the table do here --- */
  var keys = window.imagesearch.keys;
  keys.on("copies", "choose", function (key) {
    var group = current();
    var row = group && group.querySelectorAll(".copy")[Number(key) - 1];
    var choice = row && row.querySelector("input[name=keeper]");
    if (!choice) return;
    choice.checked = true;
    choice.focus({ preventScroll: true });
  });
  keys.on("copies", "keep", function () {
    accept(current());
  });
  keys.on("copies", "different", function () {
    var group = current();
    var button = group && !group.querySelector(".htmx-request") && group.querySelector("[data-different]");
    if (button) button.click();
  });
  keys.on("copies", "skip", function () {
    skip(current());
  });
  keys.on("copies", "undo", function () {
    var undo = Array.prototype.slice.call(document.querySelectorAll(".copy-group.done[data-action]")).sort(function (a, b) {
      return Number(b.dataset.action) - Number(a.dataset.action);
    })[0];
    var button = (undo && undo.querySelector("[data-undo]")) || document.querySelector(".toast form button");
    if (button) button.click();
  });
  keys.on("copies", "back", function () {
    var up = document.querySelector("main a[rel=up]");
    if (up) up.click();
    else if (document.activeElement) document.activeElement.blur();
  });

  /* the page stays at its top, unless the address names a group */
  var asked = location.hash && document.getElementById(location.hash.slice(1));
  var first = asked && asked.matches(".copy-group:not(.done)") ? asked : after(null);
  enter(first, true);
  var chosen = first && first.querySelector("input[name=keeper]:checked");
  if (chosen) chosen.focus({ preventScroll: first !== asked });
})();
