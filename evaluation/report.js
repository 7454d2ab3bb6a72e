// The page's life: slices are shown, outlines drawn, cases sorted. No library, nothing loaded.
"use strict";
const STEPS = [[2, 0], [1, 1], [0, 2], [-1, 1], [-2, 0], [-1, -1], [0, -2], [1, -1]];
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const colours = JSON.parse(document.getElementById("colours").textContent);
const scores = JSON.parse(document.getElementById("scores").textContent);

// An outline as evaluation/slices.py writes it, as the path of an SVG in half pixels.
function pathOf(outlines) {
  return outlines.split(" ").map((outline) => {
    const [x, y, letters] = outline.split(",");
    let path = `M${x} ${y}l`;
    for (const letter of letters) {
      const code = LETTERS.indexOf(letter);
      path += `${STEPS[code >> 3].join(" ")} ${STEPS[code & 7].join(" ")} `;
    }
    return path + "z";
  }).join("");
}

function showSlice(pane, stack, number) {
  const [height, width] = stack.shape, svg = pane.querySelector("svg");
  if (pane.strip) {
    const canvas = pane.querySelector("canvas");
    canvas.getContext("2d").drawImage(pane.strip, 0, number * height, width, height, 0, 0, width, height);
  }
  svg.replaceChildren();
  for (const line of ["prediction", "reference"]) {  // dashes let see what is below
    for (const [place, outlines] of stack[line][number]) {
      const path = document.createElementNS(svg.namespaceURI, "path");
      path.setAttribute("d", pathOf(outlines));
      path.setAttribute("fill", "none");
      path.setAttribute("stroke", colours[place % colours.length]);
      path.setAttribute("stroke-width", "1.7");
      path.setAttribute("vector-effect", "non-scaling-stroke");
      if (line === "reference") path.setAttribute("stroke-dasharray", "4 3");
      path.dataset.line = line;
      path.dataset.class = place;
      svg.append(path);
    }
  }
  pane.querySelector("label span").textContent = `slice ${stack.numbers[number]} of ${stack.of}`;
  hideUnticked(pane.closest(".slices"));
}

function hideUnticked(slices) {
  const off = [...slices.querySelectorAll("input[type=checkbox]:not(:checked)")].map((box) => box.dataset);
  for (const path of slices.querySelectorAll("path")) {
    const isOff = off.some((data) => data.line === path.dataset.line || data.class === path.dataset.class);
    path.style.display = isOff ? "none" : "";
  }
}

// A click in one view moves the others to that place.
function follow(slices, stacks, pane, event) {
  const box = pane.querySelector(".view").getBoundingClientRect();
  const { axes } = stacks[pane.dataset.axis];
  const at = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
  axes.forEach((other, place) => {
    const target = slices.querySelector(`.pane[data-axis="${other}"]`);
    if (!target) return;
    const away = stacks[other].places.map((it) => Math.abs(it - at[place]));
    const slider = target.querySelector("input");
    slider.value = away.indexOf(Math.min(...away));
    slider.dispatchEvent(new Event("input"));
  });
}

// Images are unpacked when a case is opened and dropped when it is closed: a phone could not hold all of them.
function openCase(details) {
  const slices = details.querySelector(".slices");
  if (!slices) return;
  const stacks = JSON.parse(slices.querySelector("script").textContent);
  slices.querySelectorAll(".pane").forEach((pane, axis) => {
    const stack = stacks[axis], [height, width] = stack.shape, slider = pane.querySelector("input");
    pane.querySelector("svg").setAttribute("viewBox", `0 0 ${2 * width} ${2 * height}`);
    pane.querySelector("svg").setAttribute("preserveAspectRatio", "none");
    slider.oninput = () => showSlice(pane, stack, Number(slider.value));
    pane.querySelector(".view").onclick = (event) => follow(slices, stacks, pane, event);
    if (stack.strip) {
      Object.assign(pane.querySelector("canvas"), { width, height });
      const strip = new Image();
      strip.onload = () => { pane.strip = strip; slider.oninput(); };
      strip.src = stack.strip;
    }
    slider.oninput();
  });
  slices.onchange = (event) => {
    if ("all" in event.target.dataset) {
      for (const box of slices.querySelectorAll("input[data-class]")) box.checked = event.target.checked;
    }
    hideUnticked(slices);
  };
  const [brightness, contrast] = ["brightness", "contrast"].map((name) => slices.querySelector(`input[data-${name}]`));
  for (const slider of brightness ? [brightness, contrast] : []) {
    slider.oninput = () => {
      const filter = `brightness(${3 ** brightness.value}) contrast(${5 ** contrast.value})`;
      for (const canvas of slices.querySelectorAll("canvas")) canvas.style.filter = filter;
    };
  }
}

function closeCase(details) {
  for (const pane of details.querySelectorAll(".slices .pane")) {
    pane.strip = null;
    Object.assign(pane.querySelector("canvas"), { width: 1, height: 1 });
    pane.querySelector("svg").replaceChildren();
  }
}

function goToCase() {
  const details = location.hash.startsWith("#case-") && document.getElementById(location.hash.slice(1));
  if (!details) return;
  details.open = true;
  details.scrollIntoView();
  details.querySelector("summary").focus({ preventScroll: true });
}

// The order of each metric and class was told when the page was made; here the cases are put into it.
function sortCases() {
  const metric = document.getElementById("by-metric").value, choice = document.getElementById("by-class");
  const name = choice.value, of = name === "0" ? "" : ` of ${choice.selectedOptions[0].textContent}`;
  const { title, places } = scores.metrics[metric], list = document.getElementById("cases");
  const values = scores.values[metric][name];
  scores.orders[metric][name].forEach((place) => {
    const details = document.getElementById(`case-${scores.cases[place]}`), value = values[place];
    details.querySelector(".value").textContent = `${title}${of} ${value === null ? "–" : value.toFixed(places)}`;
    list.append(details);
  });
}

for (const details of document.querySelectorAll(".case")) {
  details.addEventListener("toggle", () => (details.open ? openCase(details) : closeCase(details)));
}
for (const id of ["by-metric", "by-class"]) document.getElementById(id).addEventListener("change", sortCases);
for (const spread of document.querySelectorAll(".spread")) {
  const told = spread.nextElementSibling, tell = (event) => {
    const link = event.target.closest("a, circle");
    if (link) told.textContent = link.querySelector("title").textContent;
  };
  spread.addEventListener("pointerover", tell);
  spread.addEventListener("focusin", tell);
  spread.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (link && link.getAttribute("href") === location.hash) goToCase();
  });
}
addEventListener("hashchange", goToCase);
sortCases();
if (location.hash) goToCase();
else document.querySelector(".case")?.setAttribute("open", "");
