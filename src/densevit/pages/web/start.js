// Says why the page cannot work, where it cannot; modules do not even load there.
(function () {
  var problem = document.getElementById("problem");
  if (location.protocol === "file:") {
    problem.textContent =
      "Browsers do not let a page load its parts from file addresses. In this folder, run python -m http.server 8000, " +
      "and open http://localhost:8000/.";
  } else if (!window.WebAssembly || !window.CompressionStream || !window.createImageBitmap) {
    problem.textContent = "This browser is too old for this page; one of 2023 or later is needed.";
  } else {
    return;
  }
  problem.hidden = false;
  document.getElementById("chooser").hidden = true;
})();
