/* What keys do, from the one table of search/keys.py. Other scripts take a key by
   imagesearch.keys.on(place, act, function (key, event) { ... }), which answers false where it has nothing to do;
   a key that no script takes presses the element with data-act in its place. */
(function () {
  "use strict";
  var source = document.getElementById("keys");
  var table = source ? JSON.parse(source.dataset.table) : { places: [] };
  var taken = {};
  var MOVING = /^(Arrow|Page)/;

  function on(place, act, doing) {
    taken[place + " " + act] = doing;
  }
  function seen(element) {
    return element.checkVisibility ? element.checkVisibility({ visibilityProperty: true }) : element.getClientRects().length > 0;
  }
  function typing(target) {
    return target.closest("input:not([type=radio]):not([type=checkbox]):not([type=button]):not([type=submit]), textarea, select, video, [contenteditable]") !== null;
  }
  /* A letter counts by Shift, not by the lock. */
  function named(event) {
    if (!/^\p{L}$/u.test(event.key)) return event.key;
    return event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
  }

  /* The places on this page, the one with the focus first, innermost first; a modal one alone. */
  function places() {
    var focus = document.activeElement;
    var found = [];
    table.places.forEach(function (place, order) {
      Array.prototype.forEach.call(document.querySelectorAll('[data-keys~="' + place.name + '"]'), function (root) {
        if (seen(root)) found.push({ place: place, root: root, order: order, inside: root !== document.body && root.contains(focus) });
      });
    });
    var modal = found.filter(function (one) {
      return one.place.modal;
    });
    if (modal.length) return modal.slice(0, 1);
    return found.sort(function (a, b) {
      if (a.inside !== b.inside) return a.inside ? -1 : 1;
      if (a.inside && a.root !== b.root) return a.root.contains(b.root) ? 1 : -1;
      return a.order - b.order;
    });
  }
  function rowOf(place, key) {
    return place.rows.find(function (row) {
      return row.keys.indexOf(key) >= 0;
    });
  }
  function elementFor(root, act, key) {
    var all = Array.prototype.filter.call(root.querySelectorAll('[data-act="' + act + '"]'), seen);
    var exact = all.find(function (one) {
      return one.dataset.key === key;
    });
    return (
      exact ||
      all.find(function (one) {
        return one.dataset.key === undefined;
      })
    );
  }

  /* Press it: click what can be clicked, go into what can be filled in, show what can be read. */
  function press(element) {
    if (element.matches("details")) {
      element.open = true;
      var first = element.querySelector("select, input:not([type=hidden]), textarea, button");
      if (first) first.focus();
    } else if (element.matches("a, button, summary, label, input[type=radio], input[type=checkbox], input[type=submit]")) {
      element.click();
    } else {
      element.scrollIntoView({ block: "nearest" });
      element.focus({ preventScroll: true });
      if (element.select) element.select();
    }
  }
  function does(spot, key, event) {
    var row = rowOf(spot.place, key);
    if (!row) return false;
    var doing = taken[spot.place.name + " " + row.act];
    if (doing && doing(key, event, spot.root) !== false) return true;
    var element = spot.root && elementFor(spot.root, row.act, key);
    if (!element || element.disabled) return false;
    press(element);
    return true;
  }

  function openMenu() {
    return document.querySelector("details.menu[open]");
  }
  function closeMenu() {
    var menu = openMenu();
    if (!menu) return false;
    menu.open = false;
    menu.querySelector("summary").focus();
    return true;
  }
  /* Out of a field: to the place around it that can hold the focus, else nowhere. */
  function leave(field) {
    var home = field.closest("[data-keys][tabindex]");
    field.blur();
    if (home) home.focus({ preventScroll: true });
  }
  function selecting() {
    return document.body.classList.contains("selecting") ? document.querySelector("[data-select-none]") : null;
  }

  document.addEventListener("keydown", function (event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    document.dispatchEvent(new CustomEvent("key-pressed", { detail: event.key }));
    var target = event.target instanceof Element ? event.target : document.body;
    var key = named(event);
    var sheet = document.querySelector("dialog[open]");
    if (sheet) {
      if (key === "?" && sheet.id === "keys-help" && !typing(target)) {
        event.preventDefault();
        sheet.close();
      }
      return;
    }
    if (key === "Escape" && closeMenu()) return event.preventDefault();
    if (typing(target)) {
      if (key !== "Escape") return;
      if (target.id === "box" && target.value) return; /* the browser empties it */
      event.preventDefault();
      var none = target.id === "box" && selecting();
      if (none) none.click();
      else leave(target);
      return;
    }
    if (event.shiftKey && key.length > 1) return;
    if (target.type === "radio" && key.indexOf("Arrow") === 0) return;
    var link = target.closest("a[href], button, summary");
    if (link && (key === " " || (key === "Enter" && !link.matches(".tile > a")))) return;
    if (openMenu() && key !== "?" && key !== "/") return;
    var all = places().concat([{ place: anywhere(), root: document.body }]);
    for (var n = 0; n < all.length; n++) {
      if (event.repeat && rowOf(all[n].place, key) && !MOVING.test(key)) return event.preventDefault();
      if (does(all[n], key, event)) return event.preventDefault();
    }
  });
  function anywhere() {
    return (
      table.places.find(function (place) {
        return place.name === "anywhere";
      }) || { name: "anywhere", rows: [] }
    );
  }

  /* --- everywhere --- */
  on("anywhere", "box", function () {
    var box = document.getElementById("box");
    if (!box || box.closest("[inert]")) return false;
    box.focus();
    box.select();
  });
  on("anywhere", "out", function () {
    var none = selecting();
    if (none) none.click();
    else if (document.activeElement && document.activeElement !== document.body) document.activeElement.blur();
    else return false;
  });
  on("anywhere", "help", help);

  /* --- the help sheet --- */
  function help() {
    var sheet = document.getElementById("keys-help");
    if (!sheet || !sheet.showModal) return false;
    var inside = sheet.querySelector("[data-keys-from]");
    if (!inside.childElementCount) {
      fetch(inside.dataset.keysFrom, { headers: { "HX-Request": "true" } })
        .then(function (answer) {
          if (!answer.ok) throw new Error(String(answer.status));
          return answer.text();
        })
        .then(function (text) {
          inside.innerHTML = text;
        })
        .catch(function () {
          inside.textContent = "The server does not answer just now. Try again in a moment.";
        });
    }
    sheet.showModal();
    return true;
  }
  document.addEventListener("click", function (event) {
    var opener = event.target.closest("[data-keys-help]");
    if (opener && !event.ctrlKey && !event.metaKey && help()) {
      event.preventDefault();
      var menu = opener.closest("details.menu");
      if (menu) menu.open = false;
    }
    if (event.target.id === "keys-help") event.target.close(); /* beside the sheet */
  });

  window.imagesearch = window.imagesearch || {};
  window.imagesearch.keys = { on: on, press: press, seen: seen, typing: typing };
})();
