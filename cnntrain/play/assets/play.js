"use strict";
// The page asks the server for all that it shows; nothing is kept but the drawing. Texts are set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const SLIDERS = ["right", "down", "turn", "noise"];
const WATCH = 2000; // milliseconds between looks at a training
const pad = $("pad"), ink = pad.getContext("2d", { willReadFrequently: true });
const NOTHING = "Draw something, or take an image.";
let about = null, picture = null, stamp = "", drawn = false, sample = 0;
let pen = { x: 140, y: 140, down: false };

// --- asking -----------------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The program behind this page has ended; start `cnntrain play` again.");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function tell(error) {
  $("trouble").textContent = error ? error.message : "";
  $("trouble").hidden = !error;
}

// One question at a time: while one is out, only the newest of those that wait is kept.
function newest(work) {
  let busy = false, waits = false;
  return async function run() {
    if (busy) { waits = true; return; }
    busy = true;
    try { await work(); } catch (error) { tell(error); }
    busy = false;
    if (waits) { waits = false; run(); }
  };
}

const look = newest(async () => {
  if (picture === null) return;
  const query = new URLSearchParams({ picture, layer: $("layer").value });
  for (const name of SLIDERS) query.set(name, $(name).value);
  if ($("label").value !== "") query.set("label", $("label").value);
  const found = await ask(`look?${query}`);
  tell(null);
  if (picture !== null) show(found);
});

const send = newest(async () => {
  if (!drawn) return;
  const kept = await ask("picture", { method: "POST", body: await drawing() });
  if (!drawn) return; // what is shown now came while this was on its way
  picture = kept.picture;
  look();
});

async function sendFile(file) {
  try {
    const kept = await ask("picture", { method: "POST", body: file });
    picture = kept.picture;
    setDrawn(false);
    $("truth").textContent = `${file.name}: as the network sees its validation images.`;
    await paint(file);
    look();
  } catch (error) { tell(error); }
}

async function takeSample(index) {
  try {
    const kept = await ask(`sample?index=${index}`, { method: "POST" });
    picture = kept.picture;
    setDrawn(false);
    sample = index;
    $("truth").textContent = `An image of the run; its class: ${kept.labels.join(", ") || "none"}.`;
    const shown = document.querySelectorAll("#samples img")[index];
    if (shown) paintImage(shown);
    look();
  } catch (error) { tell(error); }
}

// --- what is shown ----------------------------------------------------------------------------------------------

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function show(found) {
  const given = found.answers.filter((one) => one.given);
  const words = given.map((one) => `${one.class}, ${percent(one.share)}`).join("; ");
  setText($("said"), found.finite ? words || "None of the labels" : "The network answers with no number (NaN).");
  const bars = $("bars");
  while (bars.children.length > found.answers.length) bars.lastChild.remove();
  found.answers.forEach((one, index) => {
    const bar = bars.children[index] || bars.appendChild(makeBar());
    const [name, track, share] = bar.children;
    name.textContent = one.class;
    name.className = one.given ? "name given" : "name";
    track.firstChild.style.width = percent(one.share).replace(" ", "");
    share.textContent = percent(one.share);
  });
  setImage($("seen"), found.seen, "the changed picture at the size of the network's images");
  setImage($("heat"), found.heat, `the parts of the picture that speak for ${found.label}`);
  setImage($("maps"), found.maps && found.maps.picture, found.maps ? `feature maps: ${found.maps.about}` : "");
  $("maps-about").textContent = found.maps ? found.maps.about : "This network has no layer with feature maps.";
}

function showNothing() {
  picture = null;
  setText($("said"), NOTHING);
  $("bars").replaceChildren();
  for (const name of ["seen", "heat", "maps"]) setImage($(name), "", "");
  $("maps-about").textContent = "";
}

function makeBar() {
  const bar = document.createElement("li");
  for (const name of ["name", "track", "share"]) {
    const part = document.createElement(name === "track" ? "div" : "span");
    part.className = name;
    bar.append(part);
  }
  const fill = document.createElement("div");
  fill.className = "fill";
  bar.children[1].append(fill);
  bar.children[1].setAttribute("aria-hidden", "true");
  return bar;
}

function setText(place, text) { // an unchanged text is not read out again
  if (place.textContent !== text) place.textContent = text;
}

function setImage(place, source, text) {
  (place.closest("figure") || place).hidden = !source;
  if (source) place.src = source;
  place.alt = text;
}

async function showNetwork() {
  const filters = await ask("filters");
  $("filters-part").hidden = !filters;
  if (filters) {
    setImage($("filters"), filters.picture, filters.about);
    $("filters-about").textContent = filters.about;
  }
  const answers = await ask("answers");
  $("samples-part").hidden = !answers.length;
  const list = $("samples");
  answers.forEach((one, index) => {
    const item = list.children[index] || list.appendChild(makeSample(index));
    const [image, words] = item.firstChild.children;
    image.src = one.picture;
    image.alt = `image of ${one.labels.join(", ") || "no class"}`;
    const said = one.given.join(", ") || "none";
    words.textContent = `${said}${one.share === null ? "" : ` ${percent(one.share)}`}${one.right ? "" : ` (${one.labels.join(", ") || "none"})`}`;
    words.className = one.right ? "right" : "wrong";
  });
}

function makeSample(index) {
  const item = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.append(document.createElement("img"), document.createElement("span"));
  button.addEventListener("click", () => { takeSample(index); pad.scrollIntoView({ block: "nearest" }); });
  item.append(button);
  return item;
}

// --- the training -----------------------------------------------------------------------------------------------

async function watch() {
  let state;
  try {
    state = await ask("state");
    describe(state);
    if (stamp && state.stamp !== stamp) { await showNetwork(); look(); }
    stamp = state.stamp;
    showCourse(state);
  } catch (error) { tell(error); }
  if (about.follows && !(state && state.done && state.stamp === stamp)) setTimeout(watch, WATCH);
}

function describe(state) {
  const size = `${about.size} x ${about.size} pixels`;
  setText($("about"), `${about.parameters.toLocaleString("en")} parameters, ${about.classes.length.toLocaleString("en")} classes, ${size}. Weights: ${state.weights}. ${state.note}`);
}

function showCourse(state) {
  const last = state.rows[state.rows.length - 1];
  $("course-part").hidden = !state.steps.length && !last;
  if (!last && !state.steps.length) return;
  const epochs = last ? last.epoch : 0;
  const score = last && last.val !== null ? `, ${state.measure} of the validation images ${percent(last.val)}` : "";
  const word = state.done ? "Finished" : about.follows ? "Training" : "So far";
  setText($("course-about"), `${word}: ${epochs} of ${state.epochs} epochs${score}.`);
  const steps = state.steps.length ? state.steps : state.rows;
  const most = Math.max(1, ...[...steps, ...state.rows].map((row) => row.step));
  const trained = "training, as augmented", probed = state.probe ? "training, without augmentation" : trained;
  const charts = [
    chart("Loss", most, [line(steps, "loss", "train", trained), line(state.rows, "val_loss", "val", "validation")], false),
    chart(state.measure, most, [line(state.rows, "train", "train", probed), line(state.rows, "val", "val", "validation")], true),
  ];
  $("charts").replaceChildren(...charts);
}

function line(rows, key, kind, word) {
  return { kind, word, points: rows.filter((row) => row[key] !== null).map((row) => [row.step, row[key]]) };
}

function make(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function chart(title, most, lines, isShare) {
  const width = 400, height = 200, left = 44, bottom = 24, top = 8;
  lines = lines.filter((one) => one.points.length);
  const all = lines.flatMap((one) => one.points);
  const low = isShare ? 0 : Math.min(0, ...all.map((point) => point[1]));
  const high = isShare ? 1 : Math.max(1e-9, ...all.map((point) => point[1]));
  const x = (step) => left + (width - left - 8) * step / most;
  const y = (value) => top + (height - top - bottom) * (1 - (value - low) / (high - low));
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const ends = lines.map((one) => `${one.word} ${number(one.points.at(-1)[1], isShare)}`);
  svg.setAttribute("aria-label", `${title}: ${ends.join("; ")}`);
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const value = low + part * (high - low);
    svg.append(make("line", { class: "grid", x1: left, x2: width - 8, y1: y(value), y2: y(value) }));
    svg.append(make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, isShare)));
  }
  svg.append(make("text", { x: left, y: height - 6 }, "step 0"));
  svg.append(make("text", { x: width - 8, y: height - 6, "text-anchor": "end" }, most.toLocaleString("en")));
  for (const one of lines) {
    const points = one.points.map((point) => `${x(point[0]).toFixed(1)},${y(point[1]).toFixed(1)}`).join(" ");
    if (one.points.length === 1) svg.append(make("circle", { class: one.kind, cx: x(one.points[0][0]), cy: y(one.points[0][1]), r: 4 }));
    svg.append(make("polyline", { class: `line ${one.kind}`, points }));
  }
  const box = document.createElement("div"), head = document.createElement("h3"), key = document.createElement("p");
  head.textContent = title;
  key.className = "key";
  for (const one of lines) {
    const part = document.createElement("span");
    part.className = one.kind;
    part.textContent = `— ${one.word} `;
    key.append(part);
  }
  box.append(head, svg, key);
  return box;
}

const number = (value, isShare) => isShare ? `${Math.round(100 * value)} %` : value >= 10 ? value.toFixed(0) : value.toFixed(2);

// --- drawing ----------------------------------------------------------------------------------------------------

const ground = () => `rgb(${about.ground},${about.ground},${about.ground})`;

function setDrawn(value) { // of a photo, nothing is centred
  drawn = value;
  $("fit").disabled = !value;
}

function clear() {
  ink.fillStyle = ground();
  ink.fillRect(0, 0, pad.width, pad.height);
}

function stroke(from, to) {
  if (!drawn) { clear(); $("truth").textContent = ""; resetSliders(); }
  setDrawn(true);
  ink.strokeStyle = about.channels === 1 ? (about.ground ? "#000" : "#fff") : $("color").value;
  ink.lineWidth = $("width").value;
  ink.lineCap = ink.lineJoin = "round";
  ink.beginPath();
  ink.moveTo(...from);
  ink.lineTo(...to);
  ink.stroke();
  send();
}

// The drawing as it is sent: where the box is ticked, moved and scaled so that it fills the frame as digits of the run do.
function drawing() {
  const box = $("fit").checked && about.channels === 1 ? bounds() : null;
  if (!box) return new Promise((done) => pad.toBlob(done));
  const copy = document.createElement("canvas"), side = pad.width;
  copy.width = copy.height = side;
  const paper = copy.getContext("2d");
  paper.fillStyle = ground();
  paper.fillRect(0, 0, side, side);
  paper.imageSmoothingQuality = "high";
  const scale = about.fill * side / Math.max(box.width, box.height);
  const width = box.width * scale, height = box.height * scale;
  paper.drawImage(pad, box.x, box.y, box.width, box.height, (side - width) / 2, (side - height) / 2, width, height);
  return new Promise((done) => copy.toBlob(done));
}

function bounds() {
  const { data, width, height } = ink.getImageData(0, 0, pad.width, pad.height);
  let left = width, right = -1, top = height, bottom = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (Math.abs(data[4 * (y * width + x)] - about.ground) > 64) {
        left = Math.min(left, x); right = Math.max(right, x);
        top = Math.min(top, y); bottom = Math.max(bottom, y);
      }
    }
  }
  return right < 0 ? null : { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}

async function paint(file) {
  const image = new Image(), address = URL.createObjectURL(file);
  image.src = address;
  try {
    await image.decode();
    paintImage(image);
  } catch { clear(); } // a kind of picture that the server knows and this browser does not
  URL.revokeObjectURL(address);
}

function paintImage(image) {
  clear();
  const scale = Math.min(pad.width / image.naturalWidth, pad.height / image.naturalHeight);
  const width = image.naturalWidth * scale, height = image.naturalHeight * scale;
  ink.imageSmoothingEnabled = scale < 1;
  ink.drawImage(image, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
}

function place(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
}

function showPen() {
  const mark = $("pen");
  mark.hidden = false;
  mark.className = pen.down ? "down" : "";
  mark.style.left = `${100 * pen.x / pad.width}%`;
  mark.style.top = `${100 * pen.y / pad.height}%`;
  setText($("pen-state"), pen.down ? "Pen down" : "Pen up");
}

function resetSliders() {
  for (const name of SLIDERS) { $(name).value = 0; showValue(name); }
}

function showValue(name) {
  const value = Number($(name).value);
  const unit = { right: " px", down: " px", turn: "°", noise: "" }[name];
  $(`${name}-value`).textContent = `${value}${unit}`;
}

// --- events -----------------------------------------------------------------------------------------------------

function listen() {
  let last = null;
  pad.addEventListener("pointerdown", (event) => {
    $("pen").hidden = true;
    pad.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(last, last);
  });
  pad.addEventListener("pointermove", (event) => {
    if (!last) return;
    for (const one of event.getCoalescedEvents ? event.getCoalescedEvents() : [event]) {
      const now = place(one);
      stroke(last, now);
      last = now;
    }
  });
  for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, () => { last = null; });
  pad.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };
    if (event.key === " ") { pen.down = !pen.down; if (pen.down) stroke([pen.x, pen.y], [pen.x, pen.y]); }
    else if (steps[event.key]) {
      const [right, down] = steps[event.key], from = [pen.x, pen.y];
      pen.x = Math.min(pad.width, Math.max(0, pen.x + right));
      pen.y = Math.min(pad.height, Math.max(0, pen.y + down));
      if (pen.down) stroke(from, [pen.x, pen.y]);
    } else return;
    showPen();
    event.preventDefault();
  });
  pad.addEventListener("keyup", showPen); // that of Tab too, which has led here
  pad.addEventListener("blur", () => { $("pen").hidden = true; });
  $("clear").addEventListener("click", () => {
    clear();
    setDrawn(true);
    pen = { x: 140, y: 140, down: false };
    setText($("pen-state"), "Pen up");
    $("truth").textContent = "";
    resetSliders();
    showNothing();
  });
  $("fit").addEventListener("change", () => { if (picture !== null) send(); });
  $("open").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => { if ($("file").files[0]) sendFile($("file").files[0]); $("file").value = ""; });
  $("next").addEventListener("click", () => takeSample((sample + 1) % about.images));
  for (const name of SLIDERS) $(name).addEventListener("input", () => { showValue(name); look(); });
  $("reset").addEventListener("click", () => { resetSliders(); look(); });
  for (const name of ["layer", "label"]) $(name).addEventListener("change", look);
  document.addEventListener("dragover", (event) => { event.preventDefault(); pad.classList.add("over"); });
  document.addEventListener("dragleave", () => pad.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    pad.classList.remove("over");
    if (event.dataTransfer.files[0]) sendFile(event.dataTransfer.files[0]);
  });
}

async function begin() {
  about = await ask("about");
  document.title = about.title;
  $("title").textContent = about.title;
  describe(about);
  $("color-label").hidden = about.channels === 1;
  $("fit-label").hidden = about.channels !== 1;
  $("next").hidden = !about.images;
  $("color").value = about.ground ? "#000000" : "#ffffff";
  const reach = Math.max(1, Math.round(about.size / 4));
  for (const name of ["right", "down"]) { $(name).min = -reach; $(name).max = reach; }
  resetSliders();
  $("label").append(new Option("the answer", ""), ...about.classes.map((name, index) => new Option(name, index)));
  $("layer").append(...about.layers.map((one) => new Option(one.about, one.name, false, one.name === about.shown)));
  clear();
  showNothing();
  setDrawn(true);
  listen();
  await showNetwork();
  if (about.images) await takeSample(0);
  watch();
}

begin().catch(tell);
