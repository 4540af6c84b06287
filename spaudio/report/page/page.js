"use strict";
// The page of a run. It reads the data that stand in it and draws the list of clips.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const PAGE = 20; // cards that are added at a time
const LEFT_OUT = -1; // instead of a class: the clip is to be left out

// ---- Sounds: one at a time, with a playhead over its spectrogram ----

const audio = new Audio();
let playing = null; // the player that is heard

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Fills `place` with the spectrogram, axes and play button of a clip. */
function makePlayer(place, path, caption, mark) {
  const [sound, picture, start, seconds, peak] = data.media[path];
  place.classList.add("player");
  const button = make("button", picture ? "spectrogram" : "spectrogram bare");
  button.setAttribute("aria-label", `Play ${path}`);
  button.setAttribute("aria-pressed", "false");
  const axes = make("div", "axes");
  axes.append(button);
  if (picture) {
    const image = make("img");
    image.src = picture;
    image.alt = "";
    button.append(image);
    addAxes(axes, start, seconds);
  } else {
    button.append(make("span", "", "▶ play from disk"));
  }
  const head = make("i", "head");
  head.hidden = true;
  button.append(head);
  if (mark !== undefined) {
    const line = make("i", "mark");
    line.style.left = `${(100 * mark) / seconds}%`;
    button.append(line);
  }
  const words = make("p", "caption");
  words.append(make("span", "", caption));
  const level = peak === null ? "silent" : `peak ${peak} dB`;
  if (picture) words.append(make("small", "", ` ${seconds.toFixed(2)} s · ${level}`));
  const failed = make("small", "", " · the browser cannot play it");
  failed.hidden = true;
  words.append(failed);
  place.append(axes, words);
  place.player = { button, head, sound, seconds, failed };
  button.addEventListener("click", (event) => {
    const box = button.getBoundingClientRect();
    const x = event.clientX - box.left;
    // The width of the play sign, see page.css.
    const sign = 2.2 * parseFloat(getComputedStyle(document.documentElement).fontSize);
    // A click by the keyboard has no place; one by the pointer, beside the sign, starts where it is.
    toggle(place.player, event.detail && picture && x > sign ? x / box.width : 0);
  });
}

function addAxes(axes, start, seconds) {
  for (const [name, height] of data.hertz) {
    const tick = make("span", "hertz", name);
    tick.style.bottom = `${100 * height}%`;
    axes.append(tick);
  }
  const step = [0.05, 0.1, 0.2, 0.5, 1, 2].find((size) => seconds / size <= 6) || 5;
  for (let i = Math.ceil(start / step - 1e-6); i * step <= start + seconds + 1e-6; i++) {
    const tick = make("span", "second", `${+(i * step).toFixed(2)}`);
    tick.style.left = `${(100 * (i * step - start)) / seconds}%`;
    axes.append(tick);
  }
}

/** Darkens the parts of a spectrogram that did not decide the prediction. */
function makeVeil(cells) {
  const veil = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  veil.setAttribute("viewBox", "0 0 1 1");
  veil.setAttribute("preserveAspectRatio", "none");
  veil.setAttribute("class", "veil");
  for (const [left, right, lower, upper, weight] of cells) {
    const cell = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const place = { x: left, y: 1 - upper, width: right - left, height: upper - lower, "fill-opacity": 0.7 * (1 - weight) };
    for (const [name, value] of Object.entries(place)) cell.setAttribute(name, value);
    veil.append(cell);
  }
  return veil;
}

function explain(card) {
  const veil = $(".veil", card);
  if (!veil) return;
  const shown = veil.classList.toggle("shown");
  $(".explain", card).setAttribute("aria-pressed", shown);
}

function toggle(player, from = 0) {
  const same = playing === player;
  const wasPlaying = same && !audio.paused;
  stop();
  if (wasPlaying && from === 0) return;
  playing = player;
  audio.src = player.sound;
  const begin = () => {
    if (playing === player && isFinite(audio.duration)) audio.currentTime = from * audio.duration;
  };
  if (from > 0) audio.addEventListener("loadedmetadata", begin, { once: true });
  player.button.setAttribute("aria-pressed", "true");
  audio.play().then(follow, (error) => {
    if (error.name !== "AbortError") {
      player.failed.hidden = false;
      say(`${player.button.getAttribute("aria-label")}: the browser cannot play it`);
    }
    if (playing === player) stop(); // not a clip that was begun while this one was loading
  });
}

function stop() {
  audio.pause();
  if (!playing) return;
  playing.button.setAttribute("aria-pressed", "false");
  playing.head.hidden = true;
  playing = null;
}

function follow() {
  if (!playing || audio.paused) return;
  playing.head.hidden = false;
  playing.head.style.left = `${Math.min(100, (100 * audio.currentTime) / (playing.seconds || audio.duration))}%`;
  requestAnimationFrame(follow);
}

audio.addEventListener("ended", stop);

// ---- Corrections of labels ----

const labels = new Map(); // path: class that the user gives it, or LEFT_OUT
const past = []; // [path, what it had before], to undo

try {
  const known = new Set(data.clips.map((clip) => clip.p));
  for (const [path, name] of JSON.parse(localStorage.getItem(data.key) || "[]")) {
    const label = name === null ? LEFT_OUT : data.classes.indexOf(name);
    if (known.has(path) && (name === null || label >= 0)) labels.set(path, label);
  }
} catch (error) {
  // A page from the disk may have no storage; the corrections then live as long as the page.
}

function give(clip, label) {
  past.push([clip, labels.get(clip.p)]);
  set(clip, label);
}

function set(clip, label) {
  if (label === undefined) labels.delete(clip.p);
  else labels.set(clip.p, label);
  try {
    const named = [...labels].map(([path, given]) => [path, given === LEFT_OUT ? null : data.classes[given]]);
    localStorage.setItem(data.key, JSON.stringify(named));
  } catch (error) {
    // see above
  }
  for (const card of $$("#list article")) if (card.clip === clip) showVerdict(card);
  showCount();
}

function undo() {
  const last = past.pop();
  if (!last) return say("Nothing to undo");
  set(...last);
  say(`${last[0].p}: undone`);
}

/** The corrections as a file that recipes/folder takes back by labels=FILE. */
function corrections() {
  const cell = (text) => {
    const safe = /^[=+\-@\t\r']/.test(text) ? `'${text}` : text; // no formula in a spreadsheet
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  // Those that the run was made with are kept, unless they are corrected again.
  const rows = new Map(data.earlier.map((row) => [row[0], row]));
  const classes = data.raw || data.classes;
  for (const clip of data.clips.filter((one) => labels.has(one.p))) {
    const path = clip.r || clip.p;
    const label = labels.get(clip.p);
    const was = rows.has(path) ? rows.get(path)[2] : classes[clip.l[0]];
    rows.set(path, [path, label === LEFT_OUT ? "" : classes[label], was]);
  }
  return [["clip", "label", "was"], ...rows.values()].map((row) => row.map(cell).join(",") + "\n").join("");
}

function save() {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([corrections()], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say("corrections.csv saved");
}

function showCount() {
  const button = $("#save");
  if (!button) return;
  const changed = data.clips.filter((clip) => labels.has(clip.p) && labels.get(clip.p) !== clip.l[0]).length;
  button.disabled = labels.size === 0;
  const counts = `: ${changed} changed, ${labels.size - changed} confirmed`;
  button.textContent = `Save corrections${labels.size ? counts : ""}`;
}

// ---- The list of clips ----

const state = { view: "errors", cell: null, text: "", shown: PAGE };
let listed = [];

function chosen() {
  const base = state.view === "suspects" ? data.suspects.map((i) => data.clips[i]) : data.clips;
  const text = state.text.toLowerCase();
  return base.filter((clip) => {
    const predicted = clip.t[0][0];
    if (state.view === "errors" && clip.l.includes(predicted)) return false;
    if (state.cell) {
      const [label, guess, either] = state.cell;
      if (either && !clip.l.includes(label) && predicted !== guess) return false;
      if (!either && (!clip.l.includes(label) || predicted !== guess)) return false;
    }
    const words = `${clip.p} ${clip.g || ""} ${clip.l.map((i) => data.classes[i]).join(" ")} ${data.classes[predicted]}`;
    return words.toLowerCase().includes(text);
  });
}

function list() {
  stop();
  state.shown = PAGE;
  listed = chosen();
  current = null; // its card goes
  $("#list").replaceChildren();
  addCards();
  for (const tab of $$("[data-view]")) tab.setAttribute("aria-pressed", tab.dataset.view === state.view);
  for (const cell of $$(".cell")) {
    const here = state.cell && !state.cell[2] && +cell.dataset.label === state.cell[0] && +cell.dataset.predicted === state.cell[1];
    cell.setAttribute("aria-pressed", Boolean(here));
  }
  const chip = $("#unfilter");
  chip.hidden = !state.cell;
  if (state.cell) {
    const [label, guess, either] = state.cell;
    // Isolated, names of scripts from right to left keep their places.
    const [one, other] = [label, guess].map((i) => `\u2068${data.classes[i]}\u2069`);
    chip.textContent = either ? `with ${one} ✕` : `${one} → ${other} ✕`;
  }
  $("#hint").textContent = hint();
  say(counted());
}

function counted() {
  return `${listed.length} ${listed.length === 1 ? "clip" : "clips"}`;
}

function hint() {
  const count = counted();
  const [wrong, right] = data.left_out;
  const parts = [wrong && `${wrong} least confident errors`, right && `${right} correct clips with the highest probabilities`];
  const rest = wrong + right ? ` Left out of this page, from all lists: ${parts.filter(Boolean).join(", ")}.` : "";
  if (state.cell) return `${count}.${rest}`;
  if (state.view === "suspects")
    return `${count} with the least probable labels, lowest probability first. Most may be errors of the model: listen, then decide. ${data.use}`;
  if (state.view === "errors") return `${count}, most confident errors first.${wrong ? rest : ""}`;
  return `${count}: errors first, then the others, least confident first.${rest}`;
}

function addCards() {
  const from = $("#list").childElementCount;
  const items = listed.slice(from, state.shown).map(makeCard);
  $("#list").append(...items);
  $("#more").hidden = listed.length <= state.shown;
}

function makeCard(clip) {
  const item = $("#card").content.cloneNode(true);
  const card = $("article", item);
  card.clip = clip;
  const name = clip.l.map((i) => data.classes[i]).join(", ");
  const [predicted, chance] = clip.t[0];
  const right = clip.l.includes(predicted);
  card.classList.add(right ? "right" : "wrong");
  card.setAttribute("aria-label", `${clip.p}: label ${name}, predicted ${data.classes[predicted]}`);
  const sounds = $(".sounds", card);
  const own = make("div", "own");
  makePlayer(own, clip.p, "this clip");
  sounds.append(own);
  const cells = data.decided[clip.p];
  if (cells && data.media[clip.p][1]) {
    own.player.button.append(makeVeil(cells));
    const button = make("button", "explain", "explain");
    button.title = `Darkens the parts that did not contribute to ${data.classes[predicted]} (key e)`;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => explain(card));
    $(".caption", own).append(button);
  }
  const near = clip.n || [];
  near.forEach((path, i) => {
    if (!path || (i && right)) return;
    const place = make("div", "near");
    const of = data.classes[i ? predicted : clip.l[0]]; // of several labels, the least probable
    makePlayer(place, path, `most similar training clip of “${of}”`);
    sounds.append(place);
  });
  $(".label", card).textContent = name;
  $(".predicted", card).textContent = `${data.classes[predicted]} ${percent(chance)}`;
  const parts = [clip.p, clip.g && `group ${clip.g}`, clip.f && `fold ${clip.f}`, `${clip.s} s`, `label’s probability ${percent(clip.o)}`];
  $(".file", card).textContent = parts.filter(Boolean).join(" · ");
  for (const [index, probability] of clip.t) {
    const row = make("li", clip.l.includes(index) ? "own" : "");
    const bar = make("i");
    bar.style.width = `${100 * probability}%`;
    const called = make("span", "", data.classes[index]);
    called.title = data.classes[index]; // which may be cut
    row.append(called, bar, make("b", "", percent(probability)));
    $(".top", card).append(row);
  }
  const form = $(".judge", card);
  if (data.several) form.remove();
  else {
    const select = $("select", form);
    select.append(...data.classes.map((text, i) => new Option(text, i)), new Option("none: leave it out", LEFT_OUT));
    select.setAttribute("aria-label", "Correct label");
    select.addEventListener("change", () => give(clip, +select.value));
    for (const button of $$("[data-judge]", form)) button.addEventListener("click", () => judge(card, button.dataset.judge));
    showVerdict(card);
  }
  card.addEventListener("focusin", () => (current = card));
  return item;
}

function percent(chance) {
  return chance > 0.9995 || chance < 0.0005 ? `${(100 * chance).toFixed(2)} %` : `${(100 * chance).toFixed(1)} %`;
}

/** y: the label is right. n: it is wrong; the most probable other class is proposed. */
function judge(card, answer) {
  const clip = card.clip;
  if (answer === "y") return give(clip, clip.l[0]);
  const other = clip.t.find(([index]) => index !== clip.l[0]);
  give(clip, other ? other[0] : LEFT_OUT);
}

function showVerdict(card) {
  const label = labels.get(card.clip.p);
  const given = label !== undefined;
  const changed = given && label !== card.clip.l[0];
  $("[data-judge=y]", card).setAttribute("aria-pressed", given && !changed);
  $("[data-judge=n]", card).setAttribute("aria-pressed", changed);
  $(".judge label", card).hidden = !changed;
  if (changed) $(".judge select", card).value = label;
}

// ---- Keys ----

let current = null; // the card that has, or last had, the focus

function move(step) {
  const cards = $$("#list article");
  if (!cards.length) return;
  const at = cards.indexOf(current);
  let next = at < 0 ? 0 : at + step;
  if (next >= cards.length && !$("#more").hidden) {
    showMore();
    return move(step);
  }
  next = Math.max(0, Math.min(cards.length - 1, next));
  const card = $$("#list article")[next];
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

function playNumber(number) {
  const player = $$(".player", current || document)[number];
  if (current && player) toggle(player.player);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const on = event.target;
  if (on.matches("input, select, textarea, summary")) return;
  const inList = on.closest("#list");
  const key = event.key;
  if (key === " " && on.matches("button, a")) return; // which does what it says
  const actions = {
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: inList && (() => move(1)),
    ArrowUp: inList && (() => move(-1)),
    " ": current && inList && (() => playNumber(0)),
    1: current && (() => playNumber(1)),
    2: current && (() => playNumber(2)),
    e: current && (() => explain(current)),
    y: current && !data.several && (() => judge(current, "y")),
    n: current && !data.several && (() => judge(current, "n")),
    u: !data.several && undo,
  };
  if (!Object.hasOwn(actions, key) || !actions[key]) return;
  event.preventDefault();
  actions[key]();
});

// ---- Thresholds of classes ----

function showThreshold(row) {
  const i = +row.dataset.class;
  const threshold = +$("input", row).value;
  const [above, hits] = data.above[i];
  $("output", row).textContent = (threshold / 100).toFixed(2);
  $(".precision", row).textContent = quotient(hits[threshold], above[threshold]);
  $(".recall", row).textContent = quotient(hits[threshold], +row.dataset.clips);
}

function showAll() {
  const rows = $$(".classes tr[data-class]:not([data-nothing])");
  const sum = [0, 0, 0];
  const thresholds = new Set(rows.map((row) => +$("input", row).value));
  for (const row of rows) {
    const [above, hits] = data.above[+row.dataset.class];
    const threshold = +$("input", row).value;
    [above[threshold], hits[threshold], +row.dataset.clips].forEach((n, i) => (sum[i] += n));
  }
  const every = $(".classes .every");
  const [first = 0] = thresholds;
  $("output", every).textContent = thresholds.size > 1 ? "mixed" : (first / 100).toFixed(2);
  $(".precision", every).textContent = quotient(sum[1], sum[0]);
  $(".recall", every).textContent = quotient(sum[1], sum[2]);
}

function quotient(part, whole) {
  return whole ? (part / whole).toFixed(3) : "–";
}

// ---- Start ----

function say(text) {
  $("#status").textContent = text;
}

function showMore() {
  state.shown += PAGE;
  addCards();
}

function filter(cell) {
  const same = state.cell && cell && state.cell.join() === cell.join();
  state.cell = same ? null : cell;
  if (state.cell) state.view = "all"; // a cell lists all of its clips
  list();
  if (state.cell) $("#clips").scrollIntoView({ block: "start" });
}

for (const tab of $$("[data-view]"))
  tab.addEventListener("click", () => {
    Object.assign(state, { view: tab.dataset.view, cell: null });
    list();
  });
for (const cell of $$(".cell")) cell.addEventListener("click", () => filter([+cell.dataset.label, +cell.dataset.predicted, false]));
for (const button of $$("button.class"))
  button.addEventListener("click", () => {
    const index = +button.dataset.class;
    filter([index, index, true]);
  });
$("#unfilter").addEventListener("click", () => filter(null));
$("#more").addEventListener("click", showMore);
if ($("#save")) $("#save").addEventListener("click", save);
let waiting = 0;
$("#search").addEventListener("input", (event) => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    state.text = event.target.value;
    list();
  }, 150);
});
new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && !$("#more").hidden && showMore(), {
  rootMargin: "600px",
}).observe($("#more"));

for (const row of $$(".classes tr[data-class]")) {
  $("input", row).addEventListener("input", () => (showThreshold(row), showAll()));
  showThreshold(row);
}
$("#threshold").addEventListener("input", (event) => {
  for (const row of $$(".classes tr[data-class]")) {
    $("input", row).value = event.target.value;
    showThreshold(row);
  }
  showAll();
});
showAll();
for (const place of $$("main section .player[data-path]")) {
  const { path, caption, mark } = place.dataset;
  makePlayer(place, path, caption, mark === undefined ? undefined : +mark);
}
if (!data.clips.some((clip) => !clip.l.includes(clip.t[0][0]))) state.view = "all"; // no errors
state.text = $("#search").value; // which the browser may have restored
list();
showCount();
