/* Selecting on a grid: ticks are kept on the server as they are made; shift for a range, dragging over pictures.
   Without this script the ticks travel with the form. */
(function () {
  "use strict";
  var pending = {}; /* what the server has not confirmed yet: id -> whether it is selected */
  var timer = 0;
  var last = null; /* the tile that a range starts from, and what was done to it */
  var sweep = null;
  var under_way = null; /* the request that keeps ticks, until it is answered: what is done next waits for it */

  function bar() {
    return document.getElementById("selection");
  }
  function form() {
    return document.getElementById("selection-form");
  }
  function tiles() {
    return Array.prototype.slice.call(document.querySelectorAll(".tile:has(.tick)"));
  }
  function box(tile) {
    return tile && tile.querySelector(".tick input");
  }
  function shown() {
    var any = document.querySelector(".tile .tick input:checked") !== null || (bar() && !bar().classList.contains("none"));
    document.body.classList.toggle("selecting", Boolean(any));
  }

  function set(tile, on) {
    var input = box(tile);
    if (!input || input.checked === on) return;
    input.checked = on;
    note(input);
  }
  function note(input) {
    pending[input.value] = input.checked;
    if (input.checked && bar()) bar().classList.remove("none");
    shown();
    clearTimeout(timer);
    timer = setTimeout(send, 150);
  }
  function range(from, to, on) {
    var all = tiles();
    var a = all.indexOf(from);
    var b = all.indexOf(to);
    if (a < 0 || b < 0) return set(to, on);
    all.slice(Math.min(a, b), Math.max(a, b) + 1).forEach(function (tile) {
      set(tile, on);
    });
  }

  /* --- keeping it on the server --- */
  function lists(changes) {
    var add = [];
    var drop = [];
    Object.keys(changes).forEach(function (id) {
      (changes[id] ? add : drop).push(id);
    });
    return { add: add.join(","), drop: drop.join(",") };
  }
  function send() {
    timer = 0;
    var there = form();
    var sent = Object.assign({}, pending);
    if (!there || !Object.keys(sent).length) return;
    var body = new FormData();
    var values = lists(sent);
    body.append("csrfmiddlewaretoken", there.elements.csrfmiddlewaretoken.value);
    body.append("add", values.add);
    body.append("drop", values.drop);
    under_way = fetch(there.dataset.keep || "/selection/", { method: "POST", body: body, headers: { "HX-Request": "true" } })
      .then(function (answer) {
        if (!answer.ok) throw new Error(String(answer.status));
        return answer.text();
      })
      .then(function (text) {
        Object.keys(sent).forEach(function (id) {
          if (pending[id] === sent[id]) delete pending[id];
        });
        var count = document.getElementById("selection-count");
        if (!count) return;
        count.innerHTML = text;
        var number = parseInt(count.textContent.replace(/\D/g, ""), 10) || 0;
        if (!number && !Object.keys(pending).length && bar()) bar().classList.add("none");
        shown();
      })
      .catch(function () {
        timer = timer || setTimeout(send, 3000); /* the server does not answer just now: the ticks wait */
      })
      .then(function () {
        under_way = null;
      });
  }
  document.addEventListener("htmx:confirm", function (event) {
    var element = event.detail.elt;
    if (!under_way || !element.closest("#selection-form, .select-all") || event.detail.verb !== "post") return;
    event.preventDefault();
    under_way.then(function () {
      event.detail.issueRequest(true);
    });
  });
  document.addEventListener("htmx:configRequest", function (event) {
    var element = event.detail.elt;
    if (!element.closest("#selection-form, .select-all") || event.detail.verb !== "post") return;
    var parameters = event.detail.parameters;
    delete parameters.ids;
    delete parameters.shown;
    var values = lists(pending);
    if (values.add) parameters.add = values.add;
    if (values.drop) parameters.drop = values.drop;
    pending = {};
    clearTimeout(timer);
  });
  function all(on) {
    pending = {};
    tiles().forEach(function (tile) {
      box(tile).checked = on;
    });
    last = null;
    shown();
  }
  document.addEventListener("selection-all", function () {
    all(true);
  });
  document.addEventListener("selection-none", function () {
    all(false);
  });
  document.addEventListener("htmx:afterSettle", shown);

  /* --- mouse and finger --- */
  document.addEventListener("click", function (event) {
    var input = event.target.closest(".tick input");
    if (!input) return;
    var tile = input.closest(".tile");
    if (sweep && sweep.moved) return;
    if (event.shiftKey && last && last !== tile && document.contains(last)) range(last, tile, input.checked);
    note(input);
    last = tile;
  });
  document.addEventListener("pointerdown", function (event) {
    var tick = event.target.closest(".tick");
    if (!tick || event.button) return;
    var tile = tick.closest(".tile");
    sweep = { start: tile, on: !box(tile).checked, moved: false, before: null };
  });
  document.addEventListener("pointermove", function (event) {
    if (!sweep || !event.buttons) return;
    var hit = document.elementFromPoint(event.clientX, event.clientY);
    var tile = hit && hit.closest(".tile");
    if (!tile || !box(tile) || (tile === sweep.start && !sweep.moved)) return;
    if (!sweep.moved) {
      sweep.moved = true;
      sweep.before = new Map(
        tiles().map(function (one) {
          return [one, box(one).checked];
        })
      );
      document.body.classList.add("sweeping");
    }
    var order = Array.from(sweep.before.keys());
    var a = order.indexOf(sweep.start);
    var b = order.indexOf(tile);
    order.forEach(function (one, place) {
      set(one, place >= Math.min(a, b) && place <= Math.max(a, b) ? sweep.on : sweep.before.get(one));
    });
  });
  document.addEventListener("pointerup", function () {
    if (!sweep) return;
    if (sweep.moved) {
      last = sweep.start;
      document.body.classList.remove("sweeping");
    }
    setTimeout(function () {
      sweep = null; /* after the click that belongs to it */
    }, 0);
  });
  document.addEventListener("dragstart", function (event) {
    if (sweep) event.preventDefault();
  });

  /* --- keys: taken by tiles.js and the lightbox --- */
  function toggle(tile, ranging) {
    if (!box(tile)) return false;
    var on = !box(tile).checked;
    if (ranging && last && document.contains(last)) range(last, tile, on);
    else set(tile, on);
    last = tile;
    return true;
  }
  window.imagesearch = window.imagesearch || {};
  window.imagesearch.selection = { toggle: toggle, set: set };
  shown();
})();
