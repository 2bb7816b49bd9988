/* A grid from the keyboard: arrows go from picture to picture in two dimensions (one stop of the Tab key for the whole
   grid), and what the table of keys has for pictures is done to the one with the focus, or to all that are selected
   when it is one of them. What became of a picture shows in its tile at once. */
(function () {
  "use strict";
  var keys = window.imagesearch.keys;
  var current = null; /* the tile that Tab leads to */
  var visited = false; /* whether any had the focus yet */
  var column = null; /* where up and down aim at */

  function tiles() {
    return Array.prototype.filter.call(document.querySelectorAll("#grid > .tile"), function (tile) {
      return !tile.classList.contains("gone");
    });
  }
  function link(tile) {
    return tile.querySelector(":scope > a");
  }
  function focused() {
    var tile = document.activeElement && document.activeElement.closest("#grid > .tile");
    return tile || null;
  }
  function box(tile) {
    return tile && tile.querySelector(".tick input");
  }

  /* --- one stop for Tab: the tile that was looked at last --- */
  function stop(tile, reachable) {
    tile.querySelectorAll("a, input").forEach(function (one) {
      if (reachable) one.removeAttribute("tabindex");
      else one.tabIndex = -1;
    });
    tile.dataset.stop = reachable ? "1" : "0";
  }
  function rove() {
    if (!current || !document.contains(current) || current.classList.contains("gone")) current = tiles()[0] || null;
    document.querySelectorAll("#grid > .tile").forEach(function (tile) {
      var reachable = tile === current;
      if (tile.dataset.stop !== (reachable ? "1" : "0")) stop(tile, reachable);
    });
  }
  document.addEventListener("focusin", function (event) {
    var tile = event.target.closest && event.target.closest("#grid > .tile");
    if (!tile) return;
    visited = true;
    if (tile === current) return;
    if (current && document.contains(current)) stop(current, false);
    current = tile;
    stop(current, true);
  });
  document.addEventListener("htmx:afterSettle", rove);
  rove();

  function go(tile) {
    if (!tile) return false;
    link(tile).focus({ preventScroll: true });
    tile.scrollIntoView({ block: "nearest" });
    return true;
  }
  function middle(tile) {
    var at = tile.getBoundingClientRect();
    return at.left + at.width / 2;
  }
  /* In the nearest row that lies so far down (up: negative), the tile nearest to the column. */
  function rowFrom(tile, way, least) {
    var all = tiles();
    var here = tile.getBoundingClientRect();
    var ordered = way > 0 ? all.slice(all.indexOf(tile) + 1) : all.slice(0, all.indexOf(tile)).reverse();
    var top = null;
    var best = null;
    for (var n = 0; n < ordered.length; n++) {
      var at = ordered[n].getBoundingClientRect();
      var away = way * (at.top - here.top);
      if (away < here.height / 2) continue;
      if (top !== null && Math.abs(at.top - top) > 2) {
        if (away > least) break;
        best = null;
      }
      top = at.top;
      if (!best || Math.abs(middle(ordered[n]) - column) < Math.abs(middle(best) - column)) best = ordered[n];
    }
    return best;
  }
  function more() {
    var end = document.getElementById("more");
    if (end) end.scrollIntoView({ block: "nearest" });
  }
  function firstSeen() {
    var header = document.querySelector(".header");
    var edge = header ? header.getBoundingClientRect().bottom : 0;
    return tiles().find(function (tile) {
      return tile.getBoundingClientRect().top >= edge - 1;
    });
  }
  function move(how) {
    return function () {
      var tile = focused();
      if (!tile) {
        /* Elsewhere the arrows belong to the page: the picture before and after, or scrolling. */
        if (document.querySelector('[data-keys~="image"]')) return false;
        return go(visited && document.contains(current) && keys.seen(current) ? current : firstSeen() || tiles()[0]);
      }
      return how(tile);
    };
  }
  function beside(step) {
    return move(function (tile) {
      column = null;
      var all = tiles();
      var next = all[all.indexOf(tile) + step];
      if (!next && step > 0) more();
      return go(next) || true;
    });
  }
  function upOrDown(way, screen) {
    var moved = move(function (tile) {
      if (column === null) column = middle(tile);
      var room = window.innerHeight * 0.8;
      var next = rowFrom(tile, way, screen ? room : 0);
      if (!next && way > 0) more();
      return go(next) || true;
    });
    return function () {
      return screen && !focused() ? false : moved();
    };
  }
  function edge(last) {
    return function () {
      if (!focused()) return false;
      column = null;
      var all = tiles();
      if (last) more();
      return go(all[last ? all.length - 1 : 0]);
    };
  }
  keys.on("grid", "left", beside(-1));
  keys.on("grid", "right", beside(1));
  keys.on("grid", "up", upOrDown(-1, false));
  keys.on("grid", "down", upOrDown(1, false));
  keys.on("grid", "page-up", upOrDown(-1, true));
  keys.on("grid", "page-down", upOrDown(1, true));
  keys.on("grid", "first", edge(false));
  keys.on("grid", "last", edge(true));
  keys.on("grid", "open", function () {
    var tile = focused();
    if (!tile) return false;
    link(tile).click();
  });

  /* --- selecting --- */
  function select(ranging) {
    return function () {
      var tile = focused();
      return tile ? window.imagesearch.selection.toggle(tile, ranging) : false;
    };
  }
  keys.on("grid", "select", select(false));
  keys.on("grid", "range", select(true));

  /* --- what is done to one picture, or to all selected ones --- */
  function bar() {
    var form = document.getElementById("selection-form");
    return form && document.body.classList.contains("selecting") ? form : null;
  }
  function subject() {
    var tile = focused();
    if (tile && !(box(tile) && box(tile).checked && bar())) return { tile: tile };
    if (bar()) return { form: bar(), tile: tile };
    return tile ? { tile: tile } : null;
  }
  function pressVerb(form, verb) {
    var button = form.querySelector('button[name="verb"][value="' + verb + '"]');
    if (!button) return false;
    button.click();
    return true;
  }
  function openMenuOf(form, id) {
    var field = form.querySelector(id);
    var menu = field && field.closest("details");
    if (!menu) return false;
    form.querySelectorAll("details[open]").forEach(function (one) {
      one.open = false;
    });
    menu.open = true;
    field.focus();
    return true;
  }
  function both(one, all) {
    return function (key) {
      var what = subject();
      if (!what) return false;
      return what.form ? all(what.form, key, what.tile) : one(what.tile, key);
    };
  }
  keys.on("grid", "rate", both(
    function (tile, key) {
      change(tile.dataset.image, "rate", { rating: key });
    },
    function (form, key) {
      if (!form.elements.rating) return false;
      form.elements.rating.value = key;
      return pressVerb(form, "rate");
    }
  ));
  keys.on("grid", "favourite", both(
    function (tile) {
      change(tile.dataset.image, tile.hasAttribute("data-favourite") ? "unfavourite" : "favourite");
    },
    function (form, key, tile) {
      var ticked = tile ? [tile] : tiles().filter(function (one) { return box(one) && box(one).checked; });
      var all = ticked.length && ticked.every(function (one) { return one.hasAttribute("data-favourite"); });
      return pressVerb(form, all ? "unfavourite" : "favourite");
    }
  ));
  keys.on("grid", "hide", both(
    function (tile) {
      change(tile.dataset.image, tile.hasAttribute("data-hidden") ? "unhide" : "hide");
    },
    function (form, key, tile) {
      return pressVerb(form, tile && tile.hasAttribute("data-hidden") ? "unhide" : "hide");
    }
  ));
  function inside(act, id) {
    keys.on("grid", act, both(
      function (tile) {
        if (window.imagesearch.lightbox) return window.imagesearch.lightbox.open(tile, act);
        location.assign(link(tile).href);
      },
      function (form, key, tile) {
        return id ? openMenuOf(form, id) : tile && window.imagesearch.lightbox ? window.imagesearch.lightbox.open(tile, act) : false;
      }
    ));
  }
  inside("tag", "#selection-tag");
  inside("album", "#selection-album, #selection-album-name");
  inside("comment", "#selection-comment");
  inside("info", null);

  /* --- telling the server, and showing what it answers --- */
  function said(text, bad) {
    var toasts = document.getElementById("toasts");
    if (!toasts) return;
    var toast = document.createElement("div");
    toast.className = "toast" + (bad ? " error" : "");
    var words = document.createElement("span");
    words.textContent = text;
    toast.appendChild(words);
    toasts.replaceChildren(toast);
  }
  function show(text) {
    var toasts = document.getElementById("toasts");
    if (!toasts) return;
    var made = document.createElement("template");
    made.innerHTML = text;
    var fresh = made.content.querySelector("#toasts");
    if (!fresh) return;
    fresh.removeAttribute("hx-swap-oob");
    toasts.replaceWith(fresh);
    window.htmx.process(fresh);
  }
  /* One change of one image after the other, so that they arrive in the order in which the keys were pressed. */
  var queue = Promise.resolve();
  function change(id, verb, values) {
    var form = document.querySelector("[name=csrfmiddlewaretoken]");
    var body = new FormData();
    body.append("csrfmiddlewaretoken", form ? form.value : "");
    body.append("shown", "tile");
    body.append("next", location.pathname + location.search);
    Object.keys(values || {}).forEach(function (name) {
      body.append(name, values[name]);
    });
    queue = queue.then(function () {
      return fetch("/image/" + id + "/" + verb + "/", { method: "POST", body: body, headers: { "HX-Request": "true" } })
        .then(function (answer) {
          if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
          var events = JSON.parse(answer.headers.get("HX-Trigger") || "{}");
          return answer.text().then(function (text) {
            show(text);
            Object.keys(events).forEach(function (name) {
              document.body.dispatchEvent(new CustomEvent(name, { bubbles: true, detail: events[name] }));
            });
          });
        })
        .catch(function (error) {
          said(
            error.message === "404"
              ? "This picture is not there any more."
              : "That did not reach the server. Look whether you are still signed in, and try again.",
            true
          );
        });
    });
    return queue;
  }
  function shown(state) {
    document.querySelectorAll('.tile[data-image="' + state.id + '"]').forEach(function (tile) {
      tile.dataset.rating = state.rating;
      tile.toggleAttribute("data-favourite", state.favourite);
      tile.toggleAttribute("data-hidden", state.hidden);
      var marks = tile.querySelector(".marks");
      if (marks) marks.textContent = (state.rating ? state.rating + " ★" : "") + (state.favourite ? " ♥" : "");
      var name = tile.querySelector(".legend .name");
      if (name) name.textContent = state.name;
      if (box(tile) && box(tile).checked !== state.selected && state.announced) window.imagesearch.selection.set(tile, state.selected);
      vanish(tile, (state.hidden || state.removed) && !tile.hasAttribute("data-unlisted"));
    });
  }
  /* A hidden picture leaves the grid; undoing brings it back to its place. */
  function vanish(tile, gone) {
    if (gone === tile.classList.contains("gone")) return;
    var had = tile.contains(document.activeElement);
    var all = tiles();
    var place = all.indexOf(tile);
    tile.classList.toggle("gone", gone);
    if (gone && had) go(all[place + 1] || all[place - 1]);
    rove();
  }
  document.addEventListener("image-changed", function (event) {
    shown(event.detail);
    refresh("[data-image='" + event.detail.id + "']", event.target);
  });
  /* Several at once, or what an undo touched: ask how they stand. */
  function askAgain() {
    var all = Array.prototype.slice.call(document.querySelectorAll(".tile[data-image]"));
    var near = all
      .map(function (tile) {
        return [Math.abs(tile.getBoundingClientRect().top - window.innerHeight / 2), tile.dataset.image];
      })
      .sort(function (a, b) {
        return a[0] - b[0];
      })
      .slice(0, 400);
    refresh("", null);
    if (!near.length) return;
    fetch("/slides/?ids=" + near.map(function (one) { return one[1]; }).join(","), { headers: { Accept: "application/json" } })
      .then(function (answer) {
        return answer.ok ? answer.json() : { slides: [] };
      })
      .then(function (data) {
        data.slides.forEach(shown);
        document.body.dispatchEvent(new CustomEvent("states-known", { detail: data.slides }));
      })
      .catch(function () {
        /* The grid shows it when it is loaded next. */
      });
  }
  document.addEventListener("images-changed", askAgain);
  document.addEventListener("selection-done", askAgain);
  /* The words about the picture on its own page follow what was done elsewhere. */
  function refresh(which, from) {
    var there = document.querySelector("#curation" + which);
    if (!there || there.contains(from)) return;
    window.htmx.ajax("GET", location.pathname + location.search, { target: there, swap: "outerHTML" });
  }

  window.imagesearch.tiles = { change: change, go: go, said: said, all: tiles, link: link };
})();
