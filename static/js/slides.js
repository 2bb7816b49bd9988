/* The pictures of a set one after the other: a window of it, asked for from the server as one goes, so that a set of
   any length costs little. Places are counted from START, as what lies before may not be known yet. */
(function () {
  "use strict";
  var START = 1000000;
  var KEPT = 600;
  var AHEAD = 15; /* more is asked for when fewer than so many are left on a side */
  var SIDES = [1280, 2048, 4096];

  /* What PhotoSwipe needs to know of one picture. */
  function slideOf(state) {
    var long = Math.max(state.w, state.h) || 1500;
    var larger = long < 900 ? 2 : 1; /* small pictures may be shown at twice their size */
    var width = (state.w || 1500) * larger;
    var height = (state.h || 1000) * larger;
    var joint = state.src.indexOf("?") < 0 ? "?" : "&";
    var at = state.src + joint + "strict=1";
    var set = SIDES.filter(function (side) {
      return !state.w || side < long;
    }).map(function (side) {
      return at + "&side=" + side + " " + Math.round((state.w ? state.w * side : 1500 * side) / long) + "w";
    });
    var biggest = state.whole || !set.length ? (state.whole ? at : at + "&side=4096") : null;
    if (biggest) set.push(biggest + " " + (state.w || 1500) + "w");
    return Object.assign({}, state, {
      width: width,
      height: height,
      w: undefined, /* PhotoSwipe would take these for the size to show */
      h: undefined,
      known: Boolean(state.w),
      msrc: state.thumb,
      alt: state.name,
      src: at + "&side=2048",
      srcset: set.join(", "),
      type: "image",
    });
  }
  function stateOfTile(tile) {
    var size = (tile.dataset.size || "0x0").split("x").map(Number);
    var picture = tile.querySelector("img");
    var link = tile.querySelector(":scope > a");
    var thumb = picture.getAttribute("src");
    return {
      id: Number(tile.dataset.image),
      name: picture.alt,
      w: size[0],
      h: size[1],
      thumb: thumb,
      src: thumb.replace("/thumbnail/", "/picture/"),
      whole: tile.hasAttribute("data-whole"),
      rating: Number(tile.dataset.rating || 0),
      favourite: tile.hasAttribute("data-favourite"),
      hidden: tile.hasAttribute("data-hidden"),
      live: tile.hasAttribute("data-live"),
      selected: Boolean(tile.querySelector(".tick input:checked")),
      removed: false,
      editable: true,
      href: link.getAttribute("href"),
    };
  }

  /* states: what is known now; at: which of them is shown first; closed: there are no others.
     changed(index): the picture at that place is another one now; trouble(sentence): the server did not answer. */
  function Slides(states, at, closed, changed, trouble) {
    this.items = new Map();
    this.first = START - at;
    this.last = this.first + states.length - 1;
    this.before = this.after = !closed;
    this.closed = closed;
    this.number = null; /* of the item at START, from 1 */
    this.total = closed ? states.length : null;
    this.changed = changed;
    this.trouble = trouble;
    this.loading = {};
    states.forEach(function (state, n) {
      this.items.set(this.first + n, slideOf(state));
    }, this);
    if (closed) this.number = at + 1;
  }
  Slides.prototype.at = function (index) {
    return this.items.get(index);
  };
  Slides.prototype.indexOf = function (id) {
    var found = null;
    this.items.forEach(function (item, index) {
      if (item.id === id) found = index;
    });
    return found;
  };
  Slides.prototype.count = function (index) {
    if (this.number === null) return "";
    var number = this.number + index - START;
    if (number < 1) return "";
    return number.toLocaleString("en") + (this.total && this.total >= number ? " of " + this.total.toLocaleString("en") : "");
  };
  /* The server's word on a picture: its state; what is on the screen already keeps its sizes. */
  Slides.prototype.tell = function (state) {
    this.items.forEach(function (item) {
      if (item.id !== state.id) return;
      ["name", "rating", "favourite", "hidden", "removed", "selected", "editable", "problem", "live"].forEach(function (name) {
        if (state[name] !== undefined) item[name] = state[name];
      });
    });
  };
  Slides.prototype.ask = function (way, index) {
    var item = this.items.get(index);
    if (!item || this.closed || this.loading[way]) return Promise.resolve();
    var address = new URL(item.href, location.href);
    var params = address.searchParams;
    params.set("from", item.id);
    params.set("way", way);
    var self = this;
    this.loading[way] = fetch("/slides/?" + params.toString(), { headers: { Accept: "application/json" } })
      .then(function (answer) {
        if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
        return answer.json();
      })
      .then(function (data) {
        self.take(data, way, index);
      })
      .catch(function () {
        self.trouble("The pictures around this one cannot be had just now. Try again in a moment.");
      })
      .then(function () {
        delete self.loading[way];
      });
    return this.loading[way];
  };
  Slides.prototype.take = function (data, way, index) {
    var self = this;
    var fresh = data.slides.map(slideOf);
    if (way === "around") {
      var here = fresh.findIndex(function (one) {
        return one.id === self.items.get(index).id;
      });
      if (here < 0) return;
      var old = this.items;
      var shown = old.get(index);
      this.items = new Map();
      this.first = index - here;
      this.last = this.first + fresh.length - 1;
      fresh.forEach(function (one, n) {
        self.items.set(self.first + n, one);
      });
      this.before = data.before;
      this.after = data.after;
      this.items.set(index, Object.assign(shown, fresh[here]));
      if (data.number) this.number = data.number + START - this.first;
      if (data.total) this.total = data.total;
      [-2, -1, 1, 2].forEach(function (step) {
        var one = self.items.get(index + step);
        var other = old.get(index + step);
        if ((one && one.id) !== (other && other.id)) self.changed(index + step);
      });
      self.changed(null);
      return;
    }
    /* Something may have come or gone meanwhile: what is known already is not taken twice. */
    var known = new Set();
    this.items.forEach(function (item) {
      known.add(item.id);
    });
    fresh = fresh.filter(function (one) {
      return !known.has(one.id);
    });
    if (way === "after") {
      fresh.forEach(function (one) {
        self.items.set(++self.last, one);
        self.changed(self.last);
      });
      this.after = data.after && data.slides.length > 0;
    } else {
      fresh.reverse().forEach(function (one) {
        self.items.set(--self.first, one);
        self.changed(self.first);
      });
      this.before = data.before && data.slides.length > 0;
    }
    if (data.number && way === "before" && fresh.length) this.number = data.number + START - this.first;
    self.changed(null);
  };
  /* Called with each turn: asks for more in time, and forgets what lies far behind. */
  Slides.prototype.near = function (index) {
    if (this.after && this.last - index < AHEAD) this.ask("after", this.last);
    if (this.before && index - this.first < AHEAD) this.ask("before", this.first);
    while (this.items.size > KEPT && index - this.first > KEPT / 2) {
      this.items.delete(this.first++);
      this.before = true;
    }
    while (this.items.size > KEPT && this.last - index > KEPT / 2) {
      this.items.delete(this.last--);
      this.after = true;
    }
  };
  Slides.prototype.ids = function (index, around) {
    var ids = [];
    for (var n = index - around; n <= index + around; n++) {
      if (this.items.has(n)) ids.push(this.items.get(n).id);
    }
    return ids;
  };

  window.imagesearch.slides = { START: START, Slides: Slides, stateOfTile: stateOfTile };
})();
