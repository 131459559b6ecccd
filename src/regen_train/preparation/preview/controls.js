// Looking closer, keys and start; one script with page.js, which stands before it.
function lookCloser(item, place) {
  looking = { item, place };
  const count = item.frames.length;
  const checks = item.flagged[place] ? `, flagged by ${item.flagged[place]}` : "";
  get("closer-title").textContent = `${item.name || item.key}: frame ${item.frames[place]}${checks}`;
  get("closer-previous").disabled = place === 0;
  get("closer-next").disabled = place === count - 1;
  const ratio = item.size[1] / item.size[0];
  get("closer-cells").replaceChildren(...Object.keys(LABELS).filter((row) => row in item.strips).map((row) => {
    const alt = `${LABELS[row]} of frame ${item.frames[place]}`;
    const cell = make("div", { class: "cell", "--ratio": ratio, "--count": count, "--place": place },
      make("img", { src: item.strips[row], alt }));
    return make("figure", {}, cell, make("figcaption", {}, LABELS[row]));
  }));
  get("closer-cells").style.setProperty("--cell", ratio < 1 ? "200px" : "380px");
  if (!get("closer").open) get("closer").showModal();
}

function step(by) {
  if (looking.item.frames[looking.place + by] !== undefined) lookCloser(looking.item, looking.place + by);
}

function move(by) {
  const cards = [...document.querySelectorAll("article")];
  const now = cards.indexOf(document.activeElement.closest("article"));
  const next = now < 0 ? 0 : now + by;
  if (next >= cards.length && !get("next").disabled) turn(1);
  else if (next < 0 && !get("previous").disabled) turn(-1);
  else focusCard(cards[Math.min(cards.length - 1, Math.max(0, next))]);
}

function focusCard(card) {
  if (!card) return;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "start" });
}

function turn(by) {
  change({ page: state.page + by });
  scrollTo(0, 0);
  const cards = document.querySelectorAll("article");
  focusCard(cards[by > 0 ? 0 : cards.length - 1]);
}

function openKey() {
  const card = document.activeElement.closest("article") || document.querySelector("article");
  const item = card && items.find((one) => one.key === card.dataset.key);
  if (item && item.frames.length) lookCloser(item, Number(Object.keys(item.flagged)[0] ?? 0));
}

function toggleRow(row) {
  if (!row) return;
  const hide = state.hide.includes(row) ? state.hide.filter((other) => other !== row) : [...state.hide, row];
  const focused = document.activeElement.closest("article")?.dataset.key;
  change({ hide });
  if (focused) focusCard(document.querySelector(`article[data-key="${CSS.escape(focused)}"]`));
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (get("closer").open) {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    return;
  }
  if (event.target.closest("input[type=search], select, button, summary")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const actions = { j: () => move(1), k: () => move(-1), n: () => turn(1), p: () => turn(-1), Enter: openKey,
    "/": () => get("query").focus() };
  const allowed = { n: !get("next").disabled, p: !get("previous").disabled };
  if (/^[1-6]$/.test(event.key)) toggleRow(rows[Number(event.key) - 1]);
  else if (actions[event.key] && allowed[event.key] !== false) {
    event.preventDefault();
    actions[event.key]();
  }
}

for (const row of rows) {
  const box = make("input", { type: "checkbox", value: row });
  box.addEventListener("change", () => toggleRow(row));
  get("rows").append(make("label", {}, box, ` ${LABELS[row]}`));
}
get("filters").addEventListener("submit", (event) => event.preventDefault());
get("reason").addEventListener("change", (event) => change({ reason: event.target.value, page: 1 }));
get("severity").addEventListener("change", (event) => change({ severity: event.target.value, page: 1 }));
get("query").addEventListener("input", (event) => change({ q: event.target.value, page: 1 }));
get("size").addEventListener("change", (event) => change({ size: event.target.value }));
get("reset").addEventListener("click", () => change({ verdict: "", reason: "", severity: "", q: "", page: 1, hide: [] }));
get("previous").addEventListener("click", () => turn(-1));
get("next").addEventListener("click", () => turn(1));
get("closer-previous").addEventListener("click", () => step(-1));
get("closer-next").addEventListener("click", () => step(1));
get("closer-close").addEventListener("click", () => get("closer").close());
document.addEventListener("keydown", onKey);
addEventListener("hashchange", start);

function start() {
  readState();
  render();
  if (!state.item) return;
  focusCard(document.querySelector(`article[data-key="${CSS.escape(state.item)}"]`));
  const item = matching.find((one) => one.key === state.item);
  const place = item ? item.frames.map(String).indexOf(state.frame) : -1;
  if (place >= 0) lookCloser(item, place);
}
start();
