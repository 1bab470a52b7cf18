// The page: overview, tabs, filters, keys, theme, and newer data while a run is watched.

const FIRST = ["reward", "exact_match", "loss", "tool_accuracy", "argument_accuracy", "no_call_accuracy", "valid_format", "answer_quality", "right_calls", "groups_without_signal", "entropy", "kl_reference", "grad_norm"];
const SHOWN_CURVES = 6, LARGEST_MATRIX = 15;
const KEYS = [["1 2", "overview, episodes"], ["/", "search"], ["j k", "next, previous episode"], ["g G", "first, last episode"], ["Enter", "read the episode"], ["Esc", "back to the list"], ["s", "next choice of side by side"], ["m", "colour tokens by provenance, mask, advantage"], ["x", "clear all filters"], ["t", "light or dark"], ["?", "this help"]];
const extraCurves = new Set();

const card = (title, wide, ...children) => el("section", { class: `card ${wide ? "wide" : ""}` }, el("h2", {}, title), children);
const table = (head, rows, options = {}) => el("div", { class: "scroll" }, el("table", options, el("tr", {}, head.map((text) => el("th", {}, text))), rows));

function showTab(name) {
  for (const tab of ["overview", "episodes"]) {
    $(tab).hidden = tab !== name;
    $(`tab-${tab}`).setAttribute("aria-pressed", String(tab === name));
  }
  if (name === "episodes") drawList();
}

function seriesOf(metric) {
  const found = [];
  data.runs.forEach((run, r) => {
    const kinds = Object.entries(run.curves[metric] || {});
    kinds.forEach(([kind, line], k) => {
      const name = [data.runs.length > 1 ? run.name : "", kind].filter(Boolean).join(", ");
      found.push({ name, colour: data.runs.length > 1 ? r : k, points: line, dots: kind !== "train" || line.length === 1 });
    });
  });
  return found;
}

function curvesCard() {
  const known = [...new Set(data.runs.flatMap((run) => Object.keys(run.curves)))];
  if (!known.length) return null;
  const usual = FIRST.filter((name) => known.includes(name)).slice(0, SHOWN_CURVES);
  const shown = [...new Set([...(usual.length ? usual : known.slice(0, SHOWN_CURVES)), ...extraCurves])];
  const more = el("select", { "aria-label": "Another curve", onchange: (event) => { extraCurves.add(event.target.value); drawOverview(); } },
    el("option", { value: "" }, "another curve …"), known.filter((name) => !shown.includes(name)).sort().map((name) => el("option", { value: name }, name)));
  return card("Curves", true, el("div", { class: "charts" }, shown.map((name) => lineChart(name, seriesOf(name)))), el("p", {}, more),
    el("p", { class: "soft" }, "Bars and bands are 95 % intervals over held-out tasks. Faint: single steps; line: their moving average."));
}

function verdictCell(cell) {
  const difference = cell.difference;
  const span = difference.value === null ? "–" : `${(100 * difference.value).toFixed(1)} (${(100 * difference.low).toFixed(1)} to ${(100 * difference.high).toFixed(1)})`;
  const least = cell.detectable_loss ? `, a loss of ${(100 * cell.detectable_loss).toFixed(0)} would show` : "";
  const verdict = cell.verdict + (cell.verdict === "undecided" ? least : "");
  return [el("td", { class: "number" }, points(cell.base)), el("td", { class: "number" }, points(cell.tuned)), el("td", { class: "bar" }, intervalBars([cell.base, cell.tuned])),
    el("td", { class: "number" }, span), el("td", { class: "number" }, `+${cell.gained} −${cell.lost}`), el("td", { class: "number" }, String(cell.n)), el("td", { class: cell.verdict.split(" ")[0] }, verdict)];
}

function comparisonCard(comparison) {
  const [base, tuned] = [comparison.base, comparison.tuned].map((set) => data.sets[set].name);
  const head = ["", "before", "after", "95 % intervals, 0 to 100", "difference (points)", "won, lost", "n", "verdict"];
  const open = (category) => jump({ "filter-set": comparison.tuned, "filter-category": category, beside: comparison.base });
  const rows = (cells, click) => cells.map((cell) => el("tr", { class: click ? "pick" : "", onclick: click && (() => click(cell.name)) }, el("th", {}, words(cell.name)), verdictCell(cell)));
  return card("Before and after", true,
    el("div", { class: "legend" }, el("span", { class: "c0" }, `before: ${base}`), el("span", { class: "c1" }, `after: ${tuned}`)),
    el("h3", {}, `${words(comparison.metric)} by category`), table(head, rows(comparison.categories, open)),
    el("h3", {}, `all ${number(comparison.tasks)} tasks`), table(head, rows(comparison.totals.filter((cell) => cell.n))));
}

function judgedSets() {
  return data.sets.map((set, i) => i).filter((i) => data.episodes.some((episode) => episode.set === i && episode.chosen));
}

function confusionCard() {
  const sets = judgedSets();
  if (!sets.length) return null;
  const last = sets.filter((i) => data.sets[i].kind === "evaluation").pop() ?? sets[sets.length - 1];
  const place = el("div", { class: "scroll" });
  const select = el("select", { id: "confusion-set", "aria-label": "Set", onchange: () => place.replaceChildren(matrixOf(+select.value)) }, sets.map((i) => el("option", { value: i, selected: i === last }, data.sets[i].name)));
  place.append(matrixOf(last));
  return card("Expected and chosen tools", false, select, place, el("p", { class: "soft" }, "Rows: the expected tool. Columns: the tool called in its place. A click shows the episodes."));
}

function matrixOf(set) {
  const counts = new Map(), totals = new Map();
  for (const episode of data.episodes) {
    if (episode.set !== set) continue;
    for (const pair of episode.chosen || []) {
      const key = JSON.stringify(pair);
      counts.set(key, (counts.get(key) || 0) + 1);
      for (const name of pair) totals.set(name, (totals.get(name) || 0) + 1);
    }
  }
  const names = [...totals].sort((a, b) => (a[0] === "") - (b[0] === "") || b[1] - a[1]).map(([name]) => name).slice(0, LARGEST_MATRIX);
  const title = (name) => name || "no call";
  const left = totals.size - names.length;
  const rows = names.map((wanted) => {
    const line = names.map((got) => counts.get(JSON.stringify([wanted, got])) || 0), sum = line.reduce((a, b) => a + b, 0) || 1;
    return el("tr", {}, el("th", {}, title(wanted)), line.map((count, i) => {
      const cell = el("td", { class: wanted === names[i] ? "same" : "", onclick: count ? () => jump({ "filter-set": set }, [wanted, names[i]]) : null }, count || "");
      cell.style.setProperty("--share", `${Math.round((60 * count) / sum)}%`);
      return cell;
    }));
  });
  const caption = left > 0 ? el("caption", {}, `${left} further tools are not shown`) : null;
  return el("table", { class: "matrix" }, caption, el("tr", {}, el("th", {}, "expected ↓ chosen →"), names.map((name) => el("th", {}, title(name)))), rows);
}

function errorsCard() {
  const sets = judgedSets().filter((i) => data.sets[i].kind !== "training").slice(-4);
  const counts = sets.map((set) => {
    const found = new Map();
    for (const episode of data.episodes) if (episode.set === set && episode.right === false) found.set(episode.error || "", (found.get(episode.error || "") || 0) + 1);
    return found;
  });
  const kinds = [...new Set(counts.flatMap((found) => [...found.keys()]))];
  if (!kinds.length) return null;
  const sum = (kind) => counts.reduce((all, found) => all + (found.get(kind) || 0), 0);
  const rows = kinds.sort((a, b) => sum(b) - sum(a)).map((kind) => el("tr", {}, el("th", {}, kind || "wrong, kind not recorded"),
    counts.map((found, i) => el("td", { class: "number" }, found.get(kind) ? el("button", { onclick: () => jump({ "filter-set": sets[i], "filter-error": kind, "filter-verdict": "wrong" }) }, String(found.get(kind))) : "0"))));
  return card("Kinds of errors", false, table(["", ...sets.map((set) => data.sets[set].name)], rows));
}

function drawOverview() {
  const facts = data.runs.map((run) => card(run.name, false, table(["", ""], [...run.facts, ...run.cost].map(([name, value]) => el("tr", {}, el("th", {}, name), el("td", {}, value)))),
    el("details", {}, el("summary", {}, "experiment"), el("pre", {}, JSON.stringify(run.experiment, null, 1)))));
  const notes = data.notes.length ? card("Notes", true, el("ul", {}, data.notes.map((note) => el("li", { class: "note" }, note)))) : null;
  $("overview").replaceChildren(...[notes, curvesCard(), ...data.comparisons.map(comparisonCard), confusionCard(), errorsCard(), ...facts].filter(Boolean));
}

function options(id, first, entries, chosen) {
  $(id).replaceChildren(el("option", { value: "" }, first), ...entries.map(([value, text]) => el("option", { value, selected: String(value) === chosen }, text)));
}

function drawFilters() {
  const old = (id) => $(id).value, distinct = (key) => [...new Set(data.episodes.map((episode) => episode[key]).filter(Boolean))].sort();
  const sets = data.sets.map((set, i) => [i, set.name]);
  options("filter-set", "all sets", sets, old("filter-set"));
  options("filter-category", "all categories", distinct("category").map((name) => [name, name]), old("filter-category"));
  options("filter-verdict", "right and wrong", [["right", "right"], ["wrong", "wrong"], ["gained", "right here, wrong beside"], ["lost", "wrong here, right beside"]], old("filter-verdict"));
  options("filter-error", "all errors", distinct("error").map((name) => [name, name]), old("filter-error"));
  options("beside", "not side by side", sets.map(([i, name]) => [i, `beside: ${name}`]), old("beside"));
  $("total").textContent = number(data.episodes.length);
}

function jump(filters, pair = null) {
  clearFilters();
  for (const [id, value] of Object.entries(filters)) $(id).value = String(value);
  view.pair = pair;
  showTab("episodes");
  applyFilters();
}

function clearFilters() {
  for (const id of ["filter-set", "filter-category", "filter-verdict", "filter-error", "beside", "search"]) $(id).value = "";
  view.pair = null;
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("toolhone-theme", theme); } catch { /* a page from a file may have no storage */ }
}
const toggleTheme = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");

function nextBeside() {
  const select = $("beside"), episode = view.found[view.chosen];
  for (let turn = 0; episode && turn < select.options.length; turn++) {
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    if (select.value === "" || (+select.value !== episode.set && twin(episode, select.value))) break;
  }
  drawDetail();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    $("split").classList.remove("reading");
    return;
  }
  if (typing) return;
  const acts = {
    1: () => showTab("overview"), 2: () => showTab("episodes"), t: toggleTheme, "?": () => $("help").showModal(),
    "/": () => { showTab("episodes"); $("search").focus(); },
    j: () => choose(view.chosen + 1), k: () => choose(view.chosen - 1), g: () => choose(0), G: () => choose(view.found.length - 1),
    Enter: () => { if (event.target.tagName !== "BUTTON") choose(view.chosen, true); },
    s: nextBeside, m: () => setMode(MODES[(MODES.indexOf(view.mode) + 1) % MODES.length]), x: () => { clearFilters(); applyFilters(); },
  };
  const act = acts[event.key];
  if (!act) return;
  if (event.key !== "Enter") event.preventDefault();
  act();
}

function show(newer) {
  const before = view.found?.[view.chosen], scroll = $("list").scrollTop;
  data = newer;
  indexEpisodes();
  $("title").textContent = data.title;
  $("live").hidden = !data.live;
  drawFilters();
  drawOverview();
  applyFilters();
  const place = before ? view.found.findIndex((one) => one.set === before.set && one.id === before.id && one.seed === before.seed && one.step === before.step) : -1;
  if (place > 0) { $("list").scrollTop = scroll; choose(place); }
}

// While a run is watched the server answers 304 until its files have changed.
async function poll(tag) {
  let next = tag;
  try {
    const answer = await fetch("data.json", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
    if (answer.status === 200) { show(await answer.json()); next = answer.headers.get("ETag"); }
    $("live").textContent = "live";
  } catch { $("live").textContent = "the server has ended"; }
  setTimeout(poll, 2000, next);
}

function start() {
  let theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  try { theme = localStorage.getItem("toolhone-theme") || theme; } catch { /* no storage */ }
  document.documentElement.dataset.theme = theme;
  show(JSON.parse($("data").textContent));
  for (const id of ["filter-set", "filter-category", "filter-verdict", "filter-error"]) $(id).addEventListener("change", applyFilters);
  $("beside").addEventListener("change", () => ($("filter-verdict").value === "gained" || $("filter-verdict").value === "lost" ? applyFilters() : drawDetail()));
  $("search").addEventListener("input", applyFilters);
  $("filters").addEventListener("submit", (event) => { event.preventDefault(); $("search").blur(); });
  $("clear").addEventListener("click", () => { clearFilters(); applyFilters(); });
  $("list").addEventListener("scroll", drawList, { passive: true });
  addEventListener("resize", drawList);
  for (const tab of ["overview", "episodes"]) $(`tab-${tab}`).addEventListener("click", () => showTab(tab));
  $("theme").addEventListener("click", toggleTheme);
  $("keys").addEventListener("click", () => $("help").showModal());
  $("help").append(el("h2", {}, "Keys"), el("table", {}, KEYS.map(([keys, text]) => el("tr", {}, el("td", {}, keys.split(" ").map((key) => el("kbd", {}, key))), el("td", {}, text)))), el("form", { method: "dialog" }, el("button", {}, "Close")));
  document.addEventListener("keydown", onKey);
  if (data.live) poll(null);
}
start();
