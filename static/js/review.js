/* In a review queue the keys belong to the picture: a button that was clicked does not keep the focus, so that Space
   goes on skipping and does not press it again. Who came to a button by Tab stays on it. */
(function () {
  "use strict";
  document.addEventListener("mousedown", function (event) {
    if (event.target.closest(".review-bar button, .review-bar a, .review .turn, .review-undo button")) event.preventDefault();
  });
})();
