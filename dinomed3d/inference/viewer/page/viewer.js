// Shows the scan and the mask of one case after the other; everything comes from the server of the page.
"use strict";
const element = (id) => document.getElementById(id);
const canvas = element("volumes");
const viewer = new niivue.Niivue({
  backColor: [0, 0, 0, 1],
  crosshairColor: [1, 0.85, 0.3, 0.8],
  crosshairWidth: 0.35,
  crosshairWidthUnit: "percent",
  dragAndDropEnabled: false,
  fontColor: [1, 0.85, 0.3, 1],
  isColorbar: false,
  isOrientCube: true,
  isRadiologicalConvention: true, // as in the report: the patient's right is on the left
  loadingText: "",
  logLevel: "error",
  multiplanarForceRender: true,
  multiplanarPadPixels: 8,
  sagittalNoseLeft: true,
  show3Dcrosshair: true,
  showAllOrientationMarkers: true,
  clipPlaneHotKey: "",
  cycleClipPlaneHotKey: "",
  viewModeHotKey: "",
});
viewer.opts.multiplanarShowRender = niivue.SHOW_RENDER.ALWAYS;
viewer.opts.dragMode = niivue.DRAG_MODE.contrast;

/** Letters lie within their slice: at its very edge the last line of an L is cut off. */
const drawLetters = viewer.drawSliceOrientationText.bind(viewer);
viewer.drawSliceOrientationText = ([left, top, width, height], ...more) => {
  const inset = 4 * window.devicePixelRatio;
  drawLetters([left + inset, top + inset, width - 2 * inset, height - 2 * inset], ...more);
};

let cases = [];
let shown = null; // what the server says of the case that is shown
let current = -1;
let look = 0; // the server's look at the folder that listed the cases
let news = { new: 0, changed: [] }; // how many cases were finished since, numbers of those that have changed
let loading = new AbortController();

function say(text, failed = false) {
  const message = element("message");
  message.hidden = text === "";
  message.textContent = text;
  message.classList.toggle("failed", failed);
}

async function get(address, signal) {
  const answer = await fetch(address, { signal });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer;
}

/** The signal of a case or channel that takes the place of whatever is being loaded. */
function instead() {
  loading.abort();
  loading = new AbortController();
  return loading.signal;
}

/** Show a case, at a place or where it is labelled; one that is asked for meanwhile takes its place. */
async function show(number, place = null) {
  const signal = instead();
  shown = null;
  document.body.dataset.state = "loading";
  const { name, number: kept } = cases[number]; // its number on the server stays, whatever is finished meanwhile
  document.title = `${name} – masks over scans`;
  element("name").firstElementChild.textContent = name;
  mark(number);
  clear();
  say("Reading the scan …");
  try {
    const found = await (await get(`case/${kept}.json`, signal)).json();
    await load(kept, found, 0, signal);
    if (signal.aborted) return;
    shown = found;
    list(found);
    say("");
    if (place) moveTo(place);
    else goTo(found.centre_mm);
    document.body.dataset.state = "shown";
  } catch (error) {
    if (signal.aborted) return;
    document.body.dataset.state = "failed";
    say(`This case cannot be shown: ${error.message}`, true);
  }
}

/** Say in the list and in the address which case is shown. */
function mark(number) {
  current = number;
  element("cases").value = number;
  element("previous").disabled = number === 0;
  element("next").disabled = number === cases.length - 1;
  history.replaceState(null, "", `#${cases[number].number + 1}`);
  announce();
}

function empty() {
  while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[viewer.volumes.length - 1]);
}

function clear() {
  empty();
  viewer.drawScene();
  for (const id of ["labels", "channels"]) element(id).replaceChildren();
  element("remarks").hidden = element("mask-file").hidden = true;
  element("position").textContent = "\u00a0";
}

async function load(number, found, channel, signal) {
  const [scan, mask] = await Promise.all(
    [`scan-${channel}`, "mask"].map(async (name) => (await get(`case/${number}/${name}.nii`, signal)).arrayBuffer()),
  );
  if (signal.aborted) return;
  const [low, high] = found.windows[channel];
  const volumes = await Promise.all([
    niivue.NVImage.loadFromUrl({
      url: scan, name: "scan.nii", colormap: "gray", cal_min: low, cal_max: high > low ? high : low + 1,
    }),
    niivue.NVImage.loadFromUrl({ url: mask, name: "mask.nii", opacity: opacity() }),
  ]);
  if (signal.aborted) return;
  empty();
  viewer.opts.isOrientationTextVisible = viewer.opts.isOrientCube = found.has_directions;
  viewer.opts.sliceType = found.is_flat ? viewer.sliceTypeAxial : Number(element("planes").value);
  volumes[1].setColormapLabel(colours(found));
  volumes.forEach((volume) => viewer.addVolume(volume));
  element("black").value = round(low);
  element("white").value = round(high);
}

const opacity = () => (element("shown").checked ? Number(element("opacity").value) : 0);

/** The colours of the labels; those that are switched off are transparent. */
function colours(found) {
  const off = new Set([...document.querySelectorAll("#labels input:not(:checked)")].map((box) => Number(box.value)));
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
  for (const { value, name, rgb } of found.labels) {
    table.I.push(value);
    ["R", "G", "B"].forEach((part, k) => table[part].push(rgb[k]));
    table.A.push(off.has(value) ? 0 : 255);
    table.labels.push(name);
  }
  return table;
}

function paint(found) {
  viewer.volumes[1].setColormapLabel(colours(found));
  viewer.updateGLVolume();
}

function list(found) {
  element("labels").replaceChildren(...found.labels.map((label) => {
    const item = document.createElement("li");
    const text = document.createElement("label");
    const box = document.createElement("input");
    const square = document.createElement("i");
    const name = document.createElement("bdi");
    const volume = document.createElement("span");
    box.type = "checkbox";
    box.checked = true;
    box.value = label.value;
    box.addEventListener("change", () => paint(found));
    square.style.background = `rgb(${label.rgb.join(" ")})`;
    name.textContent = label.name;
    volume.className = "ml";
    volume.textContent = `${round(label.ml)} ml`;
    text.append(box, square, name, volume);
    item.append(text);
    return item;
  }));
  element("channels").replaceChildren(...found.channels.map((name, number) => new Option(name, number)));
  element("channel-choice").hidden = found.channels.length < 2;
  element("planes").disabled = found.is_flat;
  ["x", "y", "z"].forEach((axis, k) => {
    const slider = element(`slice-${axis}`);
    slider.max = viewer.volumes[0].dimsRAS[k + 1] - 1;
    slider.parentElement.hidden = slider.max === "0";
  });
  const thinned = found.steps.some((step) => step > 1)
    ? [`too large for a browser: every ${found.steps.join(", ")}. voxel along x, y, z is shown; small labels may be missing`] : [];
  const remarks = [...found.notes, ...thinned, ...found.flags];
  element("remarks").hidden = remarks.length === 0;
  element("remarks").lastElementChild.replaceChildren(...remarks.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
  element("mask-file").hidden = found.mask === null;
  if (found.mask !== null) element("mask-file").href = found.mask;
}

const round = (value) => Number(value.toPrecision(4));

function goTo(mm) {
  moveTo(viewer.mm2frac(mm, 0, true)); // the true position, also where axes are oblique
}

function moveTo(fraction) {
  viewer.scene.crosshairPos = fraction;
  viewer.drawScene();
  viewer.createOnLocationChange();
}

/** The voxel of the crosshair along the axes that run most to the right, anterior and superior. */
function voxel() {
  const { dimsRAS } = viewer.volumes[0];
  return [...viewer.scene.crosshairPos].map((part, k) => Math.min(dimsRAS[k + 1] - 1, Math.floor(part * dimsRAS[k + 1])));
}

function moveToVoxel(wanted) {
  const { dimsRAS } = viewer.volumes[0];
  moveTo(wanted.map((at, k) => (Math.min(dimsRAS[k + 1] - 1, Math.max(0, at)) + 0.5) / dimsRAS[k + 1]));
}

/** Say where the crosshair is, in mm and in voxels of the file. */
viewer.onLocationChange = ({ mm, values }) => {
  if (!shown) return;
  const at = [...mm].slice(0, 3);
  const stored = shown.to_voxel.map((row) => Math.round(row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3]));
  const value = Math.round(values[1].value);
  const label = shown.labels.find((one) => one.value === value);
  const directions = at.map((part, axis) => `${["LR", "PA", "IS"][axis][Number(part >= 0)]} ${Math.abs(part).toFixed(1)}`);
  const where = shown.has_directions ? [`${directions.join("  ")} mm`] : [];
  where.push(`voxel ${stored.join(", ")}`, `intensity ${round(values[0].value)}`);
  element("position").textContent = `${where.join("   ")}   label: ${label ? label.name : value || "none"}`;
  voxel().forEach((place, k) => { element(`slice-${"xyz"[k]}`).value = place; });
};

function choose(number) {
  if (number >= 0 && number < cases.length && number !== current) show(number);
}

function connect() {
  element("previous").addEventListener("click", () => choose(current - 1));
  element("next").addEventListener("click", () => choose(current + 1));
  element("cases").addEventListener("change", (event) => choose(Number(event.target.value)));
  element("planes").addEventListener("change", (event) => viewer.setSliceType(Number(event.target.value)));
  element("channels").addEventListener("change", async (event) => {
    const at = viewer.scene.crosshairPos;
    const signal = instead();
    try {
      await load(cases[current].number, shown, Number(event.target.value), signal);
      if (signal.aborted) return;
      say("");
      moveTo(at);
    } catch (error) {
      if (!signal.aborted) say(`This channel cannot be shown: ${error.message}`, true);
    }
  });
  for (const id of ["opacity", "shown"]) {
    element(id).addEventListener("input", () => {
      if (viewer.volumes.length > 1) viewer.setOpacity(1, opacity());
    });
  }
  for (const id of ["black", "white"]) {
    element(id).addEventListener("change", () => {
      const [low, high] = ["black", "white"].map((name) => Number(element(name).value));
      if (!shown || !(low < high)) return;
      Object.assign(viewer.volumes[0], { cal_min: low, cal_max: high });
      viewer.updateGLVolume();
    });
  }
  viewer.onIntensityChange = (volume) => {
    element("black").value = round(volume.cal_min);
    element("white").value = round(volume.cal_max);
  };
  ["x", "y", "z"].forEach((axis, k) => {
    element(`slice-${axis}`).addEventListener("input", (event) => {
      if (shown) moveToVoxel(voxel().with(k, Number(event.target.value)));
    });
  });
  document.addEventListener("keydown", keyed, { capture: true });
  window.addEventListener("hashchange", () => choose(addressed()));
  document.addEventListener("visibilitychange", askForNews);
  element("news").lastElementChild.addEventListener("click", showNews);
}

/** Key -> voxels to the right, anterior and superior; the patient's right is on the left. */
const MOVES = {
  ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1],
};

function keyed(event) {
  if (event.target === canvas) event.stopPropagation(); // the viewer's own keys would move it once more
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("select, input[type=number]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in MOVES && event.target.matches("input[type=range]")) return;
  if (key === "n") choose(current + 1);
  else if (key === "p") choose(current - 1);
  else if (key === "m") element("shown").click();
  else if (key in MOVES && shown) {
    moveToVoxel(voxel().map((at, k) => at + MOVES[key][k]));
  } else return;
  event.preventDefault();
}

/** The place in the list of the case that the address names; -1 where it names none. */
const addressed = () => cases.findIndex(({ number }) => number === Number(location.hash.slice(1)) - 1);

const getJson = async (address) => (await get(address)).json();

function listCases(run) {
  ({ cases, look } = run);
  element("cases").replaceChildren(...cases.map(({ name, flagged }, number) => new Option(flagged ? `${name} ⚑` : name, number)));
  element("report").hidden = !run.report;
  news = { new: 0, changed: [] };
}

let betweenQuestions = 15000; // ms from an answer to the next question for news
let nextQuestion;

/** Ask whether cases were finished or changed since they were listed, now and again while the page is seen. */
async function askForNews() {
  clearTimeout(nextQuestion);
  const [began, listed] = [performance.now(), look];
  if (!document.hidden) {
    try {
      const found = await getJson(`news.json?look=${listed}`);
      if (listed === look) news = found;
      element("report").hidden = !found.has_report;
      announce();
    } catch {
      // the command has ended: what is shown stays
    }
  }
  const took = performance.now() - began; // long where the folder is on a slow drive
  clearTimeout(nextQuestion);
  nextQuestion = setTimeout(askForNews, Math.max(betweenQuestions, 20 * took));
}

/** Say what is new; it is shown when the user asks for it. */
function announce() {
  const { new: added, changed } = news;
  const isOld = changed.includes(cases[current].number);
  const parts = [];
  if (added) parts.push(`${added} new ${added === 1 ? "case" : "cases"}`);
  if (changed.length > Number(isOld)) parts.push(`${changed.length} changed`);
  if (isOld) parts.push(changed.length > 1 ? "this one too" : "this one has changed");
  const [text, button] = element("news").children;
  button.hidden = parts.length === 0;
  if (text.textContent !== parts.join(", ")) text.textContent = parts.join(", "); // read aloud once
}

/** List the cases again; the one that is shown stays as it is, unless it has changed. */
async function showNews() {
  let run, found;
  try {
    run = await getJson("cases.json");
    found = await getJson(`news.json?look=${look}`); // and what has changed since it was asked last
  } catch (error) {
    say(`The cases cannot be listed: ${error.message}`, true);
    return;
  }
  const { number } = cases[current]; // only now: its user may have gone on meanwhile
  const isOld = found.changed.includes(number);
  const place = shown && [...viewer.scene.crosshairPos];
  listCases(run);
  const kept = cases.findIndex((one) => one.number === number);
  if (kept < 0) await show(0);
  else if (isOld) await show(kept, place);
  else mark(kept);
}

async function start() {
  await viewer.attachToCanvas(canvas);
  listCases(await getJson("cases.json"));
  connect();
  await show(Math.max(0, addressed()));
  await askForNews();
}

start().catch((error) => {
  document.body.dataset.state = "failed";
  say(`The viewer cannot start: ${error.message}`, true);
});
