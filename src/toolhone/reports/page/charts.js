// Small drawing functions. Text reaches the page as text nodes alone, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 6;

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const $ = (id) => document.getElementById(id);

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) < 0.001 && value ? value.toExponential(1) : value.toFixed(digits);
}
const points = (score) => (score && score.value !== null ? (100 * score.value).toFixed(1) : "–");
const words = (name) => name.replace(/_/g, " ");

function range(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low > high) [low, high] = [0, 1];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

function ticks(low, high) {
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + step * 1e-9; k++) found.push(+(k * step).toPrecision(6));
  return found;
}

// Each value as the mean of those around it, fewer at the ends.
function movingAverage(line) {
  const around = Math.round(line.length * 0.05);
  return line.map(([x], i) => {
    const near = line.slice(Math.max(0, i - around), i + around + 1);
    return [x, near.reduce((sum, [, y]) => sum + y, 0) / near.length];
  });
}

// series: {name, colour, points: [[step, value, low, high, n]], dots}.
function lineChart(title, series) {
  const [W, H, L, B] = [420, 220, 46, 30];
  const every = series.flatMap((one) => one.points);
  const [x0, x1] = range(every.map(([x]) => x).concat(0));
  let [y0, y1] = range(every.flatMap(([, y, low, high]) => [y, low, high]));
  if (y0 >= 0 && y1 <= 1 && series.some((one) => one.dots && one.points[0].length > 2)) [y0, y1] = [0, 1];
  const x = (v) => L + ((v - x0) / (x1 - x0)) * (W - L - 10);
  const y = (v) => 8 + ((y1 - v) / (y1 - y0)) * (H - B - 8);
  const path = (line) => line.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  const image = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title });
  for (const tick of ticks(y0, y1)) {
    image.append(draw("line", { class: "axis", x1: L, x2: W - 10, y1: y(tick), y2: y(tick) }));
    image.append(draw("text", { x: L - 5, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (const tick of ticks(x0, x1)) image.append(draw("text", { x: x(tick), y: H - 14, "text-anchor": "middle" }, String(tick)));
  image.append(draw("text", { x: (L + W) / 2, y: H - 2, "text-anchor": "middle" }, "step"));
  for (const one of series) {
    const group = draw("g", { class: `c${one.colour % COLOURS}` });
    const banded = one.points.filter((point) => point[2] !== undefined && point[2] !== null);
    if (banded.length > 1) {
      const back = banded.map(([a, , low]) => [a, low]).reverse();
      group.append(draw("path", { class: "band", d: path([...banded.map(([a, , , high]) => [a, high]), ...back]) + "Z" }));
    }
    const noisy = !one.dots && one.points.length > 40;
    if (noisy) group.append(draw("path", { class: "faint", d: path(one.points) }));
    group.append(draw("path", { class: "curve", d: path(noisy ? movingAverage(one.points) : one.points) }));
    if (one.dots) {
      for (const [a, b, low, high, n] of one.points) {
        const span = low === undefined || low === null ? "" : `, 95 % interval ${number(low)} to ${number(high)}, n ${n}`;
        if (span) group.append(draw("line", { class: "whisker", x1: x(a), x2: x(a), y1: y(low), y2: y(high) }));
        group.append(draw("circle", { class: "dot", cx: x(a), cy: y(b), r: 3 }, draw("title", {}, `${one.name}, step ${a}: ${number(b)}${span}`)));
      }
    }
    image.append(group);
  }
  const legend = el("div", { class: "legend" }, series.map((one) => el("span", { class: `c${one.colour % COLOURS}` }, one.name)));
  return el("figure", {}, el("figcaption", {}, words(title)), image, legend);
}

// Two scores in [0, 1] with their intervals, base above tuned.
function intervalBars(scores) {
  const image = draw("svg", { viewBox: "0 0 220 26" });
  image.append(draw("line", { class: "axis", x1: 5, x2: 215, y1: 25, y2: 25 }));
  scores.forEach((score, i) => {
    if (!score || score.value === null) return;
    const [x, at] = [(v) => 5 + 210 * v, 7 + 11 * i];
    image.append(draw("g", { class: `c${i}` },
      draw("line", { class: "whisker", x1: x(score.low), x2: x(score.high), y1: at, y2: at }),
      draw("circle", { class: "dot", cx: x(score.value), cy: at, r: 3.5 },
        draw("title", {}, `${points(score)} (${(100 * score.low).toFixed(1)} to ${(100 * score.high).toFixed(1)}), n ${score.n}`))));
  });
  return image;
}
