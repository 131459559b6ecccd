"use strict";
// The whole state is in the address's fragment, so that a view can be linked to: #verdict=reject&reason=...
// &severity=review&q=...&page=2&size=l&hide=pose,depth&item=KEY&frame=14. Everything is put on the page as text, never as HTML.
const PER_PAGE = 20;
const SYMBOLS = { accept: "✓", released: "✓", review: "?", reject: "✕", failed: "!" };
const SEVERITIES = ["reject", "review", "note"];
const LABELS = { source: "Source", mask: "Mask", pose: "Pose", depth: "Depth", structhuman: "StructHuman",
  structall: "StructAll" };
const items = JSON.parse(document.getElementById("data").textContent);
const rows = Object.keys(LABELS).filter((row) => items.some((item) => row in item.strips));
const verdicts = Object.keys(SYMBOLS).filter((verdict) => items.some((item) => item.verdict === verdict));
const get = (id) => document.getElementById(id);
let state = {};
let matching = [];
let looking = null; // the item and the place in its strips that the dialog shows

for (const item of items) {
  const said = item.reasons.flatMap((reason) => [reason.check, reason.message]);
  item.text = [item.name, item.key, item.caption, ...item.notes, ...said].join("\n").toLowerCase();
}

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function readState() {
  const found = new URLSearchParams(location.hash.slice(1));
  const hidden = (found.get("hide") || "").split(",").filter((row) => rows.includes(row));
  state = {
    verdict: verdicts.includes(found.get("verdict")) ? found.get("verdict") : "",
    reason: found.get("reason") || "",
    severity: SEVERITIES.includes(found.get("severity")) ? found.get("severity") : "",
    q: found.get("q") || "",
    page: Math.max(1, Number.parseInt(found.get("page"), 10) || 1),
    size: ["s", "l"].includes(found.get("size")) ? found.get("size") : "m",
    hide: hidden,
    item: found.get("item") || "",
    frame: found.get("frame") || "",
  };
}

function change(changes) {
  state = { ...state, item: "", frame: "", ...changes };
  const usual = { verdict: "", reason: "", severity: "", q: "", page: 1, size: "m", hide: "", item: "", frame: "" };
  const kept = Object.entries(state).filter(([name, value]) => String(value) !== String(usual[name]));
  const fragment = new URLSearchParams(kept.map(([name, value]) => [name, String(value)])).toString();
  history.replaceState(null, "", `#${fragment}`);
  render();
}

// One reason must be of the check and of the severity asked for.
const hasReason = (item, check, severity) => item.reasons.some((reason) =>
  (!check || reason.check === check) && (!severity || reason.severity === severity));

function matches(item, { verdict, reason, severity, q }) {
  return (!verdict || item.verdict === verdict) && ((!reason && !severity) || hasReason(item, reason, severity))
    && q.toLowerCase().split(/\s+/).every((word) => item.text.includes(word));
}

function render() {
  matching = items.filter((item) => matches(item, state));
  const place = matching.findIndex((item) => item.key === state.item);
  if (place >= 0) state.page = Math.floor(place / PER_PAGE) + 1;
  const pages = Math.max(1, Math.ceil(matching.length / PER_PAGE));
  state.page = Math.min(state.page, pages);
  const first = (state.page - 1) * PER_PAGE;
  const shown = matching.slice(first, first + PER_PAGE);
  document.documentElement.dataset.size = state.size;
  renderFilters();
  get("shown").textContent = matching.length
    ? `${first + 1}-${first + shown.length} of ${matching.length}, page ${state.page} of ${pages}` : "none";
  get("previous").disabled = state.page <= 1;
  get("next").disabled = state.page >= pages;
  get("items").replaceChildren(...(shown.length ? shown.map(renderItem)
    : [make("p", { class: "empty" }, items.length ? "Nothing matches these filters." : "This run has no clips.")]));
  document.documentElement.style.setProperty("--top", `${document.querySelector("header").offsetHeight}px`);
}

function renderFilters() {
  const choices = [["", "all", items.filter((item) => matches(item, { ...state, verdict: "" })).length]];
  for (const verdict of verdicts) {
    choices.push([verdict, `${SYMBOLS[verdict]} ${verdict}`,
      items.filter((item) => matches(item, { ...state, verdict })).length]);
  }
  get("verdicts").replaceChildren(get("verdicts").firstElementChild, ...choices.map(([verdict, label, count]) => {
    const button = make("button", { type: "button", "data-verdict": verdict,
      "aria-pressed": String(state.verdict === verdict) }, `${label} ${count}`);
    button.addEventListener("click", () => change({ verdict, page: 1 }));
    return button;
  }));
  renderChoices("reason", [...countReasons("reason", "check", "severity")].sort());
  const weights = countReasons("severity", "severity", "reason");
  renderChoices("severity", SEVERITIES.filter((one) => weights.has(one)).map((one) => [one, weights.get(one)]));
  if (get("query").value !== state.q) get("query").value = state.q;
  get("size").value = state.size;
  for (const box of get("rows").querySelectorAll("input")) box.checked = !state.hide.includes(box.value);
}

// How many items each choice of a filter would leave, given what all other filters say.
function countReasons(filter, field, other) {
  const counts = new Map(state[filter] ? [[state[filter], 0]] : []);
  const otherField = field === "check" ? "severity" : "check";
  for (const item of items.filter((one) => matches(one, { ...state, [filter]: "" }))) {
    const fitting = item.reasons.filter((reason) => !state[other] || reason[otherField] === state[other]);
    for (const value of new Set(fitting.map((reason) => reason[field]))) counts.set(value, (counts.get(value) || 0) + 1);
  }
  return counts;
}

function renderChoices(filter, counts) {
  const options = counts.map(([value, count]) => make("option", { value }, `${value} (${count})`));
  get(filter).replaceChildren(make("option", { value: "" }, "any"), ...options);
  get(filter).value = state[filter];
}

function renderItem(item) {
  const id = `item-${item.key}`;
  const title = make("div", { class: "title" },
    make("span", { class: "badge verdict" }, `${SYMBOLS[item.verdict]} ${item.verdict}`),
    make("h2", { id }, item.name || item.key), ...(item.name ? [make("code", {}, item.key)] : []),
    make("span", { class: "notes" }, [item.span && `frames ${item.span}`, ...item.notes].filter(Boolean).join(" · ")));
  const card = make("article", { class: item.verdict, tabindex: "-1", "aria-labelledby": id, "data-key": item.key },
    title);
  card.append(...renderReasons(item.reasons));
  if (item.caption) card.append(make("details", { class: "caption" }, make("summary", {}, `Caption: ${item.caption}`)));
  if (item.frames.length) card.append(renderStrips(item));
  return card;
}

function renderReasons(reasons) { // what decides nothing is folded away
  const listOf = (some) => make("ul", { class: "reasons" }, ...some.map(renderReason));
  const notes = reasons.filter((reason) => reason.severity === "note");
  const grave = reasons.filter((reason) => reason.severity !== "note");
  const names = [...new Set(notes.map((reason) => reason.check))].join(", ");
  const folded = make("details", { class: "caption" }, make("summary", {}, `Notes: ${names}`), listOf(notes));
  return [...(grave.length ? [listOf(grave)] : []), ...(notes.length ? [folded] : [])];
}

function renderReason(reason) {
  const tone = reason.severity === "note" ? "note-only" : reason.severity;
  const parts = [make("span", { class: `badge ${tone}` }, reason.severity), " ", make("b", {}, reason.check)];
  if (reason.message) parts.push(`: ${reason.message}`);
  const facts = [reason.frames && `frames ${reason.frames}`, reason.measured].filter(Boolean).join(" · ");
  if (facts) parts.push(make("span", { class: "measured" }, ` (${facts})`));
  return make("li", {}, ...parts);
}

function renderStrips(item) {
  const shown = Object.keys(LABELS).filter((row) => row in item.strips && !state.hide.includes(row));
  const half = shown.length > 3 ? Math.ceil(shown.length / 2) : shown.length; // side by side where they fit
  const groups = [shown.slice(0, half), shown.slice(half)].filter((group) => group.length);
  const tall = item.size[0] > item.size[1] ? " tall" : "";
  return make("div", { class: `strips${tall}`, "--count": item.frames.length,
    "--ratio": (item.frames.length * item.size[1]) / item.size[0] }, ...groups.map((group) => renderGroup(item, group)));
}

function renderGroup(item, group) {
  const numbers = item.frames.map((frame, place) => {
    const checks = item.flagged[place];
    const button = make("button", { type: "button", class: checks ? "flagged" : "", title: checks || "",
      "aria-label": `look closer at frame ${frame}${checks ? `, flagged by ${checks}` : ""}` },
    `${checks ? "⚑ " : ""}${frame}`);
    button.addEventListener("click", () => lookCloser(item, place));
    return button;
  });
  const cells = [make("span", { class: "layer" }, "frame"), make("div", { class: "numbers" }, ...numbers)];
  for (const row of group) {
    const picture = make("img", { src: item.strips[row], loading: "lazy",
      alt: `${LABELS[row]} of frames ${item.frames.join(", ")}` });
    const marks = item.frames.map((_, place) => {
      const mark = make("div", { class: item.flagged[place] ? "mark flagged" : "mark" });
      mark.style.left = `${(100 * place) / item.frames.length}%`;
      return mark;
    });
    const strip = make("div", { class: "strip" }, picture, ...marks);
    strip.addEventListener("click", (event) => {
      const share = (event.clientX - strip.getBoundingClientRect().left) / strip.clientWidth;
      lookCloser(item, Math.min(item.frames.length - 1, Math.max(0, Math.floor(share * item.frames.length))));
    });
    cells.push(make("span", { class: "layer" }, LABELS[row]), strip);
  }
  return make("div", { class: "group" }, ...cells);
}
