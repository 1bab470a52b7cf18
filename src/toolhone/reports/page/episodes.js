// The viewer of episodes: filters, a list that draws only the rows in sight, and one episode or two side by side.

const ROW = 52, SPARE = 6;
const MODES = ["provenance", "mask", "advantage"];
const view = { found: [], chosen: 0, pair: null, mode: "provenance" };
let data, byTask, haystacks;

function isRight(episode) {
  const scores = episode.scores || {};
  for (const name of ["solved", "exact_match", "answer_quality"]) if (name in scores) return scores[name] === 1;
  return "reward" in episode ? episode.reward >= 1 : null;
}

function indexEpisodes() {
  byTask = new Map();
  haystacks = [];
  data.episodes.forEach((episode, place) => {
    episode.place = place;
    episode.right = isRight(episode);
    byTask.set(`${episode.set}|${episode.id}|${episode.seed}`, episode);
    if (!byTask.has(`${episode.set}|${episode.id}`)) byTask.set(`${episode.set}|${episode.id}`, episode);
  });
}

function haystack(episode) {
  const { place, id, category, query, text, turns, calls, reasons, pieces } = episode;
  haystacks[place] ??= JSON.stringify([id, category, query, text, turns, calls, reasons, pieces?.map((piece) => piece.text)]).toLowerCase();
  return haystacks[place];
}

const twin = (episode, set) => byTask.get(`${set}|${episode.id}|${episode.seed}`) || byTask.get(`${set}|${episode.id}`);

function matchesVerdict(episode, verdict, beside) {
  if (!verdict) return true;
  if (verdict === "right") return episode.right === true;
  if (verdict === "wrong") return episode.right === false;
  const other = beside === "" ? null : twin(episode, beside);
  if (!other) return false;
  return verdict === "gained" ? episode.right && !other.right : !episode.right && other.right;
}

function applyFilters() {
  const [set, category, verdict, error, beside] = ["filter-set", "filter-category", "filter-verdict", "filter-error", "beside"].map((id) => $(id).value);
  const needle = $("search").value.trim().toLowerCase().replace(/\\/g, "\\\\").replace(/"/g, '\\"');
  view.found = data.episodes.filter((episode) =>
    (set === "" || episode.set === +set) && (category === "" || (episode.category || "") === category) &&
    matchesVerdict(episode, verdict, beside) && (error === "" || (episode.error || "") === error) &&
    (!view.pair || (episode.chosen || []).some(([a, b]) => a === view.pair[0] && b === view.pair[1])) &&
    (!needle || haystack(episode).includes(needle)));
  const pair = view.pair ? `, expected ${view.pair[0] || "no call"}, chosen ${view.pair[1] || "no call"}` : "";
  $("count").textContent = `${number(view.found.length)} of ${number(data.episodes.length)}${pair}`;
  view.chosen = 0;
  $("list").scrollTop = 0;
  drawList();
  drawDetail();
}

function drawList() {
  const list = $("list"), top = list.scrollTop, height = list.clientHeight || 600;
  const first = Math.max(0, Math.floor(top / ROW) - SPARE), last = Math.min(view.found.length, Math.ceil((top + height) / ROW) + SPARE);
  $("rows").style.height = `${view.found.length * ROW}px`;
  $("rows").replaceChildren(...view.found.slice(first, last).map((episode, i) => rowOf(episode, first + i)));
}

function rowOf(episode, place) {
  const verdict = episode.right === null ? "" : episode.right ? " is-right" : " is-wrong";
  const set = data.sets[episode.set];
  const step = episode.step === undefined || episode.step === null ? "" : `step ${episode.step}`;
  const line = el("div", { class: `row${verdict}`, role: "option", "aria-selected": String(place === view.chosen), onclick: () => choose(place, true) },
    el("div", {}, episode.query || episode.text || episode.pieces?.[0]?.text || String(episode.id)),
    el("div", { class: "meta" }, el("span", {}, `${episode.category || set.kind} ${episode.error || ""}`), el("span", {}, step || String(episode.id))));
  line.style.top = `${place * ROW}px`;
  return line;
}

function choose(place, open) {
  if (!view.found.length) return;
  view.chosen = Math.max(0, Math.min(view.found.length - 1, place));
  const list = $("list"), at = view.chosen * ROW;
  if (at < list.scrollTop) list.scrollTop = at;
  if (at + ROW > list.scrollTop + list.clientHeight) list.scrollTop = at + ROW - list.clientHeight;
  if (open) $("split").classList.add("reading");
  drawList();
  drawDetail();
}

function drawDetail() {
  const episode = view.found[view.chosen], detail = $("detail");
  detail.scrollTop = 0;
  if (!episode) return detail.replaceChildren(el("p", { class: "soft" }, "No episode fits these filters."));
  const beside = $("beside").value, other = beside === "" || +beside === episode.set ? null : twin(episode, beside);
  const back = el("button", { id: "back", onclick: () => $("split").classList.remove("reading") }, "← list");
  const messages = data.messages[episode.id] || (episode.query ? [{ role: "user", content: episode.query }] : []);
  const columns = other ? [other, episode] : [episode];
  const missing = beside !== "" && +beside !== episode.set && !other ? `${data.sets[+beside].name} has no episode of this task` : null;
  return detail.replaceChildren(back, el("h2", {}, String(episode.id ?? "")),
    ...messages.map(messageOf), missing ? el("p", { class: "note" }, missing) : "",
    el("div", { class: "columns" }, columns.map(columnOf)));
}

function messageOf(message) {
  const calls = (message.tool_calls || []).map((call) => el("pre", {}, `${call.name}(${JSON.stringify(call.arguments)})`));
  return el("div", { class: `message ${["user", "assistant", "tool"].includes(message.role) ? message.role : ""}` },
    el("div", { class: "role" }, message.role), message.content ? el("div", { class: "text" }, message.content) : null, calls);
}

function columnOf(episode) {
  const verdict = episode.right === null ? null : el("span", { class: `chip ${episode.right ? "right" : "wrong"}` }, episode.right ? "right" : "wrong");
  const facts = [episode.outcome, episode.error, episode.category, episode.step === undefined || episode.step === null ? null : `step ${episode.step}`];
  const parts = [["reward", episode.reward], ...Object.entries(episode.parts || {}), ...Object.entries(episode.rewards || {})].filter(([, value]) => value !== undefined);
  const scores = Object.entries(episode.scores || {});
  return el("article", { class: "column" }, el("h3", {}, data.sets[episode.set].name),
    el("div", {}, verdict, facts.filter(Boolean).map((fact) => el("span", { class: "chip" }, fact))),
    (episode.turns || (episode.text ? [{ text: episode.text }] : [])).map(turnOf),
    callTables(episode),
    episode.reasons?.length ? [el("h3", {}, "What is wrong"), el("ul", {}, episode.reasons.map((reason) => el("li", {}, reason)))] : null,
    parts.length ? [el("h3", {}, "Reward"), partBars(parts)] : null,
    scores.length ? [el("h3", {}, "Scores"), scores.map(([name, value]) => el("span", { class: `chip ${value === 1 ? "right" : ""}` }, `${words(name)} ${number(value, 2)}`))] : null,
    episode.pieces ? tokensOf(episode) : null);
}

function turnOf(turn) {
  return el("div", {}, messageOf({ role: "assistant", content: turn.text }),
    (turn.results || []).map((result) => messageOf({ role: "tool", content: `${result.outcome === "ok" ? "" : `[${result.outcome}] `}${result.content}` })));
}

function callTables(episode) {
  const answer = episode.expected?.answer;
  const found = [];
  for (const [wanted, got, wrong] of episode.pairs || []) {
    const [expected, call] = [wanted === null ? null : episode.wanted[wanted], got === null ? null : episode.calls[got]];
    const differs = !expected || !call || expected.name !== call.name;
    const lines = expected?.any_arguments ? Object.keys(call?.arguments || {}) : Object.keys({ ...expected?.arguments, ...call?.arguments });
    const show = (side, name) => (side && name in (side.arguments || {}) ? JSON.stringify(side.arguments[name]) : "");
    const accepted = (name) => [show(expected, name), ...(expected?.accept?.[name] || []).map((value) => JSON.stringify(value))].filter(Boolean).join(" or ");
    const row = (bad, ...cells) => el("tr", { class: bad ? "bad" : "" }, el("td", { class: `mark ${bad ? "wrong" : "right"}` }, bad ? "✗" : "✓"), cells.map((cell) => el("td", {}, cell)));
    const title = (side) => (side ? side.name || "any tool" : "no call");
    found.push(el("table", { class: "calls" }, el("tr", {}, ["", "", "expected", "called"].map((text) => el("th", {}, text))),
      row(expected?.name ? differs : !call, "tool", title(expected), title(call)),
      lines.map((name) => row(differs || wrong.includes(name), name, expected?.any_arguments ? "(any)" : accepted(name), show(call, name)))));
  }
  if (!found.length && episode.expected?.no_call) found.push(el("p", {}, "Expected: no call."));
  if (!found.length && episode.calls?.length) found.push(el("pre", {}, episode.calls.map((call) => `${call.name}(${JSON.stringify(call.arguments)})`).join("\n")));
  if (answer !== undefined && answer !== null) found.push(el("p", {}, "Expected answer: ", el("code", {}, answer)));
  return found.length ? [el("h3", {}, "Calls beside expected calls"), found] : null;
}

function partBars(parts) {
  const most = Math.max(1, ...parts.map(([, value]) => Math.abs(value)));
  return parts.map(([name, value]) => {
    const bar = el("i", { class: value < 0 ? "negative" : "" });
    bar.style.width = `${(50 * Math.abs(value)) / most}%`;
    bar.style.left = value < 0 ? `${50 - (50 * Math.abs(value)) / most}%` : "50%";
    return el("div", { class: "part" }, el("span", {}, name.replace(/^reward\//, "")), el("div", { class: "track" }, bar), el("span", { class: "number" }, number(value)));
  });
}

function tokensOf(episode) {
  const most = Math.max(1e-9, ...episode.pieces.map((piece) => Math.abs(piece.advantage || 0)));
  const box = el("div", { class: `tokens text ${view.mode}` });
  let row = 0;
  for (const piece of episode.pieces) {
    if ((piece.row || 0) !== row) box.append(el("hr"));
    row = piece.row || 0;
    const characters = Array.from(piece.text), ends = piece.ends?.length ? piece.ends : [characters.length];
    ends.forEach((end, i) => {
      const text = characters.slice(i ? ends[i - 1] : 0, end).join("").replace(/\n/g, "↵\n");
      const advantage = piece.advantage === undefined ? "" : `, advantage ${number(piece.advantage)}`;
      const id = piece.ends?.length ? `token ${piece.ids[i]}` : `${piece.tokens} tokens`;
      const trained = piece.trained === undefined ? "" : piece.trained ? ", trained" : ", not trained";
      const span = el("span", { class: `${piece.origin} ${piece.trained ? "trained" : ""} ${piece.advantage < 0 ? "negative" : ""}`, title: `${id}, ${piece.origin}${trained}${advantage}` }, text || "·");
      if (piece.advantage) span.style.setProperty("--strength", `${(75 * Math.abs(piece.advantage)) / most}%`);
      box.append(span);
    });
  }
  const choice = MODES.map((mode) => el("button", { type: "button", "aria-pressed": String(mode === view.mode), "data-mode": mode, onclick: () => setMode(mode) }, mode));
  const keys = { provenance: [["prompt", "--prompt"], ["given", "--given"], ["sampled, or the assistant's", "--sampled"], ["tool", "--tool"]], mask: [["trained", "--on"], ["not trained", "--off"]], advantage: [["above 0", "--good"], ["below 0", "--bad"]] };
  const legend = el("div", { class: "legend" }, keys[view.mode].map(([text, colour]) => {
    const key = el("span", {}, text);
    key.style.setProperty("--key", `var(${colour})`);
    return key;
  }));
  return [el("h3", {}, "Tokens"), el("div", {}, choice), legend, box];
}

function setMode(mode) {
  view.mode = mode;
  drawDetail();
}
