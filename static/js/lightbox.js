/* The lightbox: PhotoSwipe over the pictures of a grid, with what can be done to each and what is known about it.
   Without this script a picture's link leads to its page. The address follows the picture that is shown. */
(function () {
  "use strict";
  var script = document.currentScript;
  var keys = window.imagesearch.keys;
  var tilesOf = window.imagesearch.tiles;
  var Slides = window.imagesearch.slides.Slides;
  var START = window.imagesearch.slides.START;
  var SHEET = 720; /* narrower windows have the panel below the picture */
  var open = null; /* the lightbox that is open */
  var opening = false;
  var shownAddress = location.href; /* what the page beneath shows */
  var wantsPanel = false;
  try {
    wantsPanel = localStorage.getItem("lightbox-panel") === "1";
  } catch (error) {
    /* Forgotten at the next page. */
  }

  function tileOf(id) {
    return document.querySelector('#grid > .tile[data-image="' + id + '"]:not(.gone)');
  }
  function beneath() {
    return document.querySelectorAll("body > .header, body > main, body > .skip");
  }
  function narrow() {
    return window.innerWidth < SHEET;
  }

  /* --- opening --- */
  function openTile(tile, act) {
    var all = tilesOf.all();
    var from = Math.max(0, all.indexOf(tile));
    var closed = Boolean(tile.closest('[data-set="page"]'));
    show(all.map(window.imagesearch.slides.stateOfTile), from, closed, { act: act });
    return true;
  }
  function show(states, from, closed, how) {
    if (open || opening) return;
    opening = true;
    document.body.classList.add("htmx-request");
    import(script.dataset.photoswipe)
      .then(function (module) {
        open = new Lightbox(module.default, states, from, closed, how);
      })
      .catch(function (error) {
        if (open) throw error;
        location.assign(states[from].href); /* the page of the picture does as well */
      })
      .then(function () {
        opening = false;
        document.body.classList.remove("htmx-request");
      });
  }

  function Lightbox(PhotoSwipe, states, from, closed, how) {
    var self = this;
    this.opener = document.activeElement;
    this.playing = null;
    this.stopped = null;
    this.panelOf = null;
    this.asked = null;
    this.wantedAct = how.act || null;
    this.root = document.getElementById("lightbox-parts").content.firstElementChild.cloneNode(true);
    this.panel = this.root.querySelector(".lightbox-panel");
    this.panel.hidden = !(wantsPanel || ["info", "tag", "album", "comment"].indexOf(how.act) >= 0);
    this.slides = new Slides(
      states,
      from,
      closed,
      function (index) {
        self.refreshed(index);
      },
      function (sentence) {
        tilesOf.said(sentence, true);
      }
    );
    document.body.appendChild(this.root);
    this.fit();
    beneath().forEach(function (one) {
      one.inert = true;
    });
    var still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    var pswp = (this.pswp = new PhotoSwipe({
      dataSource: [],
      index: START,
      appendToEl: this.root.querySelector(".lightbox-stage"),
      loop: false,
      wheelToZoom: true,
      preload: [1, 2],
      bgOpacity: 1,
      trapFocus: false,
      returnFocus: false,
      escKey: false,
      arrowKeys: false,
      arrowPrev: false,
      arrowNext: false,
      close: false,
      zoom: false,
      counter: false,
      imageClickAction: "zoom",
      bgClickAction: "close",
      clickToCloseNonZoomable: false,
      showAnimationDuration: still ? 0 : 220,
      hideAnimationDuration: still ? 0 : 200,
      zoomAnimationDuration: still ? 0 : 220,
      secondaryZoomLevel: function (levels) {
        return levels.initial < 0.8 ? 1 : levels.initial * 2; /* every pixel of the file, else twice as near */
      },
      maxZoomLevel: function (levels) {
        return Math.max(4, levels.initial * 4);
      },
      getViewportSizeFn: function () {
        return self.size();
      },
      paddingFn: function () {
        return { top: 52, bottom: narrow() && !self.panel.hidden ? 0 : 60, left: 0, right: 0 };
      },
    }));
    pswp.addFilter("numItems", function () {
      return START * 2;
    });
    pswp.addFilter("itemData", function (data, index) {
      return self.slides.at(index) || { html: "", type: "html" };
    });
    pswp.addFilter("placeholderSrc", function (source, content) {
      return content.data.msrc || source;
    });
    pswp.addFilter("thumbEl", function (element, data) {
      var tile = data.id && tileOf(data.id);
      return tile ? tile.querySelector("img") : element;
    });
    pswp.addFilter("contentErrorElement", function (element, content) {
      return self.trouble(element, content);
    });
    pswp.on("openingAnimationEnd", function () {
      self.root.classList.add("ready");
    });
    pswp.on("keydown", function (event) {
      event.preventDefault(); /* keys come from the one table */
    });
    pswp.on("change", function () {
      self.turned();
    });
    pswp.on("loadComplete", function (event) {
      self.loaded(event.content);
    });
    pswp.on("zoomPanUpdate", function () {
      self.root.classList.toggle("zoomed", self.zoomed());
    });
    pswp.on("close", function () {
      self.closing();
    });
    pswp.on("destroy", function () {
      self.closed();
    });
    /* The set has no ends that PhotoSwipe knows: they are here. */
    var moved = pswp.mainScroll.moveIndexBy.bind(pswp.mainScroll);
    pswp.mainScroll.moveIndexBy = function (step, animate, speed) {
      var wanted = pswp.potentialIndex + step;
      var to = Math.min(Math.max(wanted, self.slides.first), self.slides.last);
      if (wanted !== to && step) self.atTheEnd(step);
      return moved(to - pswp.potentialIndex, animate, speed);
    };
    this.scrolling = history.scrollRestoration;
    history.scrollRestoration = "manual";
    this.home = shownAddress;
    this.pushed = !how.returning;
    if (this.pushed) history.pushState({ lightbox: states[from].id }, "", states[from].href);
    this.title = document.title;
    this.root.addEventListener("click", function (event) {
      var button = event.target.closest("button[data-act]");
      if (!button || self.panel.contains(button)) return;
      self.stop();
      self.act(button.dataset.act, button.dataset.key);
    });
    this.root.addEventListener("pointerdown", function (event) {
      if (!event.target.closest(".lightbox-bar")) self.stop();
    });
    this.root.querySelector("select").addEventListener("change", function () {
      if (self.playing) self.later();
    });
    this.bound = {
      resize: function () {
        self.fit();
      },
    };
    window.addEventListener("resize", this.bound.resize);
    pswp.init();
    pswp.element.removeAttribute("role");
    pswp.element.removeAttribute("tabindex");
    this.root.focus({ preventScroll: true });
    if (closed) this.askStates();
    else this.slides.ask("around", START);
    if (!this.panel.hidden) this.fill();
  }

  /* --- sizes: the panel stands beside the picture, in narrow windows below it --- */
  Lightbox.prototype.size = function () {
    var room = { x: document.documentElement.clientWidth, y: window.innerHeight };
    if (!this.panel.hidden) {
      if (narrow()) room.y = Math.round(room.y * 0.45);
      else room.x -= Math.min(384, Math.round(room.x * 0.4));
    }
    return room;
  };
  Lightbox.prototype.fit = function () {
    this.root.classList.toggle("with-panel", !this.panel.hidden);
    if (this.pswp && this.pswp.isOpen) this.pswp.updateSize(true);
  };
  Lightbox.prototype.zoomed = function () {
    var slide = this.pswp.currSlide;
    return Boolean(slide && slide.currZoomLevel > slide.zoomLevels.initial * 1.01);
  };

  /* --- what is shown --- */
  Lightbox.prototype.item = function () {
    return this.slides.at(this.pswp.currIndex);
  };
  Lightbox.prototype.turned = function () {
    var item = this.item();
    if (!item || this.ended) return;
    this.slides.near(this.pswp.currIndex);
    this.paint();
    if (history.state && history.state.lightbox !== undefined && location.href !== new URL(item.href, location.href).href) {
      history.replaceState({ lightbox: item.id }, "", item.href);
    }
    if (this.said !== item.id) {
      this.said = item.id;
      var count = this.slides.count(this.pswp.currIndex);
      this.root.querySelector("[role=status]").textContent = item.name + (count ? ", " + count : "");
    }
    if (!this.panel.hidden) this.fill();
    if (this.playing) this.later();
  };
  Lightbox.prototype.paint = function () {
    var item = this.item();
    if (!item) return;
    var root = this.root;
    document.title = item.name + " · Image search";
    root.querySelector(".count").textContent = this.slides.count(this.pswp.currIndex);
    root.querySelector(".name").textContent = item.name;
    var state = root.querySelector(".state");
    state.hidden = !(item.hidden || item.removed || item.problem);
    state.textContent = item.removed ? "Removed" : item.hidden ? "Hidden" : item.problem || "";
    function pressed(act, on) {
      root.querySelector('button[data-act="' + act + '"]').setAttribute("aria-pressed", String(Boolean(on)));
    }
    pressed("favourite", item.favourite);
    pressed("select", item.selected);
    pressed("hide", item.hidden);
    root.querySelector('button[data-act="movie"]').hidden = !item.live;
    pressed("info", !this.panel.hidden);
    pressed("play", this.playing);
    root.querySelectorAll('button[data-act="rate"]').forEach(function (star) {
      star.setAttribute("aria-pressed", String(Number(star.dataset.key) === item.rating));
      star.classList.toggle("lit", Number(star.dataset.key) <= item.rating);
      star.disabled = item.editable === false;
    });
    root.querySelector('button[data-act="hide"]').disabled = item.editable === false;
    root.querySelector('button[data-act="tag"]').disabled = item.editable === false;
    root.querySelector(".lightbox-turn.back").hidden = this.pswp.currIndex <= this.slides.first && !this.slides.before;
    root.querySelector(".lightbox-turn.on").hidden = this.pswp.currIndex >= this.slides.last && !this.slides.after;
  };
  /* The server told of pictures: draw anew what is on the screen and was another one. */
  Lightbox.prototype.refreshed = function (index) {
    if (this.ended || !this.pswp.isOpen) return;
    if (index !== null) {
      if (Math.abs(index - this.pswp.currIndex) <= 2) this.pswp.refreshSlideContent(index);
      return;
    }
    var slide = this.pswp.currSlide;
    var item = this.item();
    if (slide && item && slide.content.element && slide.content.element.srcset && slide.content.element.srcset !== item.srcset) {
      slide.content.element.srcset = item.srcset;
    }
    this.turned();
  };
  Lightbox.prototype.loaded = function (content) {
    var picture = content.element;
    var item = content.data;
    if (item.known || !picture || !picture.naturalWidth || item.measured) return;
    item.measured = true; /* its size was not known: now the browser knows the shape */
    item.width = picture.naturalWidth;
    item.height = picture.naturalHeight;
    this.pswp.refreshSlideContent(content.index);
  };
  Lightbox.prototype.trouble = function (element, content) {
    var item = content.data;
    element.textContent = "";
    var thumbnail = document.createElement("img");
    thumbnail.src = item.msrc || "";
    thumbnail.alt = "";
    var words = document.createElement("p");
    words.textContent = item.problem || "This picture cannot be shown just now.";
    element.append(thumbnail, words);
    fetch(item.src, { headers: { Accept: "text/plain" } })
      .then(function (answer) {
        return answer.status === 404 && /^text\/plain/.test(answer.headers.get("Content-Type") || "") ? answer.text() : "";
      })
      .then(function (text) {
        if (text) words.textContent = text;
      })
      .catch(function () {
        words.textContent = "The server does not answer just now. Go on, and come back to this picture later.";
      });
    return element;
  };
  Lightbox.prototype.atTheEnd = function (step) {
    var more = step > 0 ? this.slides.after : this.slides.before;
    if (more) return;
    this.stop();
    this.root.querySelector("[role=status]").textContent = step > 0 ? "This is the last picture." : "This is the first picture.";
  };

  /* --- the panel --- */
  Lightbox.prototype.toggle = function (on) {
    this.panel.hidden = !on;
    wantsPanel = on;
    try {
      localStorage.setItem("lightbox-panel", on ? "1" : "0");
    } catch (error) {
      /* Forgotten at the next page. */
    }
    if (!on && this.panel.contains(document.activeElement)) this.root.focus({ preventScroll: true });
    this.fit();
    this.paint();
    if (on) this.fill();
  };
  Lightbox.prototype.fill = function (anew) {
    var self = this;
    var item = this.item();
    if (!item || (this.panelOf === item.id && !anew)) return this.reach();
    if (anew && keys.typing(document.activeElement) && document.activeElement.value && this.panel.contains(document.activeElement)) return;
    if (this.asked) this.asked.abort();
    var asked = (this.asked = new AbortController());
    this.panelOf = item.id;
    if (!anew) this.panel.classList.add("stale");
    /* While somebody leafs quickly, only where they stay is asked for. */
    clearTimeout(this.pause);
    this.pause = setTimeout(function () {
      fetch("/image/" + item.id + "/panel/" + new URL(item.href, location.href).search, { headers: { "HX-Request": "true" }, signal: asked.signal })
        .then(function (answer) {
          if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
          return answer.text();
        })
        .then(function (text) {
          self.panel.innerHTML = text;
          self.panel.classList.remove("stale");
          if (!anew) self.panel.scrollTop = 0;
          window.htmx.process(self.panel);
          self.reach();
        })
        .catch(function (error) {
          if (error.name === "AbortError") return;
          self.panelOf = null;
          self.panel.classList.remove("stale");
          self.panel.textContent = "What is known about this picture cannot be had just now.";
        });
    }, anew ? 0 : 120);
  };
  /* Go to the field that a key asked for, once it is there. */
  Lightbox.prototype.reach = function () {
    if (!this.wantedAct || !this.panel.querySelector(".curation")) return;
    var act = this.wantedAct;
    this.wantedAct = null;
    if (act === "info") return this.panel.focus({ preventScroll: true });
    if (act === "movie") {
      var movie = this.panel.querySelector(".movie video");
      if (movie) {
        movie.focus({ preventScroll: true });
        movie.play().catch(function () {
          /* A sentence stands below it then. */
        });
      }
      return;
    }
    var field = this.panel.querySelector('[data-act="' + act + '"]');
    if (field) keys.press(field);
    else tilesOf.said("You may look at this picture, but not change it.", true);
  };
  Lightbox.prototype.into = function (act) {
    this.wantedAct = act;
    if (this.panel.hidden) this.toggle(true);
    else this.fill();
  };

  /* --- the slideshow --- */
  Lightbox.prototype.later = function () {
    var self = this;
    clearTimeout(this.playing);
    var seconds = Number(this.root.querySelector("select").value);
    this.playing = setTimeout(function step() {
      var content = self.pswp.currSlide && self.pswp.currSlide.content;
      if (content && content.isLoading()) {
        self.playing = setTimeout(step, 300); /* nobody has seen it yet */
        return;
      }
      if (self.pswp.currIndex >= self.slides.last && !self.slides.after) {
        self.stop();
        return;
      }
      self.pswp.next();
      self.later();
    }, seconds * 1000);
  };
  Lightbox.prototype.stop = function () {
    if (!this.playing) return false;
    clearTimeout(this.playing);
    this.playing = null;
    this.root.classList.remove("playing");
    this.paint();
    return true;
  };

  /* --- what can be done --- */
  /* While it opens, a key waits until it is open. */
  Lightbox.prototype.act = function (act, key) {
    var self = this;
    if (this.pswp.opener.isOpen || act === "close") return acts[act].call(this, key);
    this.pswp.on("openingAnimationEnd", function () {
      acts[act].call(self, key);
    });
  };
  var acts = {
    previous: function () {
      this.pswp.prev();
    },
    next: function () {
      this.pswp.next();
    },
    zoom: function () {
      this.pswp.toggleZoom();
    },
    nearer: function () {
      zoomBy(this.pswp, 1.5);
    },
    farther: function () {
      zoomBy(this.pswp, 1 / 1.5);
    },
    "pan-up": function () {
      return pan(this.pswp, 120);
    },
    "pan-down": function () {
      return pan(this.pswp, -120);
    },
    play: function () {
      if (this.justStopped) return;
      this.root.classList.add("playing");
      this.later();
      this.paint();
    },
    select: function () {
      var item = this.item();
      var tile = tileOf(item.id);
      if (tile && tile.querySelector(".tick input")) {
        item.selected = !item.selected;
        window.imagesearch.selection.set(tile, item.selected);
        this.paint();
        if (!this.panel.hidden) this.fill(true);
      } else tilesOf.change(item.id, item.selected ? "unselect" : "select");
    },
    rate: function (key) {
      var item = this.item();
      /* The star that is lit last takes the rating off again, as 0 does. */
      var same = this.byMouse && String(item.rating) === key;
      tilesOf.change(item.id, "rate", { rating: same ? "0" : key });
    },
    favourite: function () {
      var item = this.item();
      tilesOf.change(item.id, item.favourite ? "unfavourite" : "favourite");
    },
    hide: function () {
      var item = this.item();
      var self = this;
      var hiding = !item.hidden;
      tilesOf.change(item.id, hiding ? "hide" : "unhide").then(function () {
        if (hiding && item.hidden && self.item() === item) self.pswp.next();
      });
    },
    tag: function () {
      this.into("tag");
    },
    album: function () {
      this.into("album");
    },
    comment: function () {
      this.into("comment");
    },
    info: function () {
      this.toggle(this.panel.hidden);
    },
    movie: function () {
      this.into("movie");
    },
    page: function () {
      location.assign(this.item().href);
    },
    close: function () {
      if (!this.justStopped) this.close();
    },
  };
  function zoomBy(pswp, factor) {
    var slide = pswp.currSlide;
    if (!slide || !slide.isZoomable()) return;
    var to = Math.min(Math.max(slide.currZoomLevel * factor, slide.zoomLevels.initial), slide.zoomLevels.max);
    pswp.zoomTo(to, { x: pswp.viewportSize.x / 2, y: pswp.viewportSize.y / 2 }, pswp.options.zoomAnimationDuration);
  }
  function pan(pswp, by) {
    var slide = pswp.currSlide;
    if (!slide || !slide.isPannable()) return false;
    slide.panTo(slide.pan.x, slide.pan.y + by);
    return true;
  }
  Object.keys(acts).forEach(function (act) {
    keys.on("lightbox", act, function (key) {
      if (!open || open.ended) return false;
      return open.act(act, key);
    });
  });
  /* Any key stops the slideshow; the one that stops it does not start it again, and does not close. */
  document.addEventListener("key-pressed", function () {
    if (!open) return;
    open.byMouse = false;
    open.justStopped = open.stop();
  });
  document.addEventListener(
    "pointerdown",
    function () {
      if (!open) return;
      open.byMouse = true;
      open.justStopped = Boolean(open.playing);
    },
    true
  );

  /* --- closing --- */
  Lightbox.prototype.close = function () {
    var pswp = this.pswp;
    if (pswp.opener.isOpening) pswp.on("openingAnimationEnd", function () { pswp.close(); });
    else pswp.close();
  };
  Lightbox.prototype.closing = function () {
    if (this.ended) return;
    var item = this.item();
    this.stop();
    this.ended = true;
    this.lastShown = item;
    clearTimeout(this.pause);
    if (this.asked) this.asked.abort();
    this.root.classList.add("closing");
    document.title = this.title;
    beneath().forEach(function (one) {
      one.inert = false;
    });
    var tile = item && tileOf(item.id);
    if (tile) tile.scrollIntoView({ block: "nearest" });
    if (!this.popped) {
      /* From the page of a picture one comes to the page of the one that was shown last. */
      var page = document.querySelector("[data-lightbox]");
      if (page && item && Number(page.dataset.lightbox) !== item.id && !tile) location.replace(item.href);
      else {
        this.backing = true;
        history.back();
      }
    }
  };
  Lightbox.prototype.closed = function () {
    window.removeEventListener("resize", this.bound.resize);
    this.root.remove();
    history.scrollRestoration = this.scrolling;
    if (open === this && !this.backing) open = null;
    this.gone = true;
    var tile = this.lastShown && tileOf(this.lastShown.id);
    if (tile) tilesOf.go(tile);
    else if (this.opener && document.contains(this.opener)) this.opener.focus({ preventScroll: true });
  };

  /* --- the address: back closes, forward opens again --- */
  function pathOf(address) {
    return new URL(address, location.href).href.replace(/#.*$/, "");
  }
  window.addEventListener(
    "popstate",
    function (event) {
      if (open && open.backing) {
        event.stopImmediatePropagation();
        open.backing = false;
        if (open.gone) open = null;
        else {
          var ending = open;
          ending.pswp.on("destroy", function () {
            if (open === ending) open = null;
          });
        }
        return;
      }
      if (open && !open.ended) {
        event.stopImmediatePropagation();
        open.popped = true;
        open.close();
        return;
      }
      if (event.state && event.state.lightbox !== undefined) {
        event.stopImmediatePropagation();
        var tile = tileOf(event.state.lightbox);
        var all = tilesOf.all();
        if (tile) show(all.map(window.imagesearch.slides.stateOfTile), all.indexOf(tile), Boolean(tile.closest('[data-set="page"]')), { returning: true });
        else location.reload();
        return;
      }
      /* Loaded anew in the lightbox, gone back from there: the address is of a page that is not here any more. */
      if (!(event.state && event.state.htmx) && pathOf(location.href) !== pathOf(shownAddress)) location.reload();
    },
    true
  );
  ["htmx:pushedIntoHistory", "htmx:replacedInHistory", "htmx:historyRestore"].forEach(function (name) {
    document.addEventListener(name, function () {
      shownAddress = location.href;
    });
  });

  /* --- clicks on pictures --- */
  document.addEventListener("click", function (event) {
    if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    var link = event.target.closest("#grid > .tile > a:first-child, a[data-lightbox]");
    if (!link) return;
    event.preventDefault();
    if (!link.matches("[data-lightbox]")) return openTile(link.closest(".tile"));
    var picture = link.querySelector("img");
    var size = (link.dataset.size || "0x0").split("x").map(Number);
    show(
      [
        {
          id: Number(link.dataset.lightbox), name: picture.alt, w: size[0], h: size[1], thumb: link.dataset.thumbnail,
          src: link.getAttribute("href"), whole: link.hasAttribute("data-whole"), rating: 0, favourite: false,
          selected: false, hidden: false, removed: false, editable: true, live: link.hasAttribute("data-live"),
          href: location.pathname + location.search,
        },
      ],
      0,
      false,
      {}
    );
  });

  /* --- what became of a picture --- */
  document.addEventListener("image-changed", function (event) {
    if (!open || open.ended) return;
    open.slides.tell(event.detail);
    open.paint();
    if (!open.panel.hidden && !open.panel.contains(event.target) && open.panelOf === event.detail.id) open.fill(true);
  });
  Lightbox.prototype.askStates = function () {
    var self = this;
    var ids = this.slides.ids(this.pswp.currIndex, 40);
    fetch("/slides/?ids=" + ids.join(","), { headers: { Accept: "application/json" } })
      .then(function (answer) {
        return answer.ok ? answer.json() : { slides: [] };
      })
      .then(function (data) {
        data.slides.forEach(function (state) {
          self.slides.tell(state);
        });
        if (!self.ended) self.paint();
      })
      .catch(function () {
        /* It shows with the next turn. */
      });
  };
  document.addEventListener("images-changed", function () {
    if (!open || open.ended) return;
    open.askStates();
    if (!open.panel.hidden) open.fill(true);
  });

  window.imagesearch.lightbox = {
    open: openTile,
    current: function () {
      return open;
    },
  };
})();
