"use strict";
// Draws the page from the JSON in it. Times are nanoseconds since the start of a session.
(() => {
  const trace = JSON.parse(document.getElementById("trace").textContent);
  const charts = [];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const PALETTE = ["#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#c9a0dc"];
  const INK = "#111";  // on each of the colours, in light and dark
  const accent = () => getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
  // Touch scrolls the page. The buttons zoom the drawing.
  const touch = matchMedia("(pointer: coarse)").matches;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const time = (ns) => {
    if (ns < 0) return `-${time(-ns)}`;  // a clock that was set back
    for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
      if (ns >= size) return `${Number((ns / size).toPrecision(4))} ${unit}`;
    }
    return `${ns} ns`;
  };
  const number = (value) => value.toLocaleString("en");
  const count = (value, one, more = `${one}s`) => `${number(value)} ${value === 1 ? one : more}`;
  const colour = (name) => {
    let hash = 0;
    for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
    return PALETTE[hash % PALETTE.length];
  };
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");  // Plotly reads some HTML in texts

  const layout = (more) => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: read("--line"), zerolinecolor: read("--line"), automargin: true };
    return {
      dragmode: touch ? false : "pan", paper_bgcolor: read("--card"), plot_bgcolor: read("--card"), font: { color: read("--text"), size: 12 },
      margin: { l: 8, r: 8, t: 8, b: 8 }, showlegend: false, hoverlabel: { align: "left" },
      ...more, height: more.height - 2, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
    };
  };
  const chart = (parent, label, traces, more) => {
    const area = make("div", { class: "chart wide", tabindex: "0", role: "img", "aria-label": label });
    area.style.height = `${more.height}px`;  // with its border
    parent.append(area);
    const entry = { area, traces, more };
    charts.push(entry);
    const options = { responsive: true, displaylogo: false, scrollZoom: false, displayModeBar: false };
    Plotly.newPlot(area, traces, layout(more), options);
    if (!more.still) controls(parent, area);
    return entry;
  };
  const controls = (parent, area) => {
    const range = () => area._fullLayout.xaxis.range.slice();
    const move = (factor, shift) => {
      const [from, to] = range(), middle = (from + to) / 2 + (to - from) * shift, half = (to - from) / 2 * factor;
      Plotly.relayout(area, { "xaxis.range": [middle - half, middle + half] });
    };
    const actions = {
      "+": ["Zoom in", () => move(0.5, 0)], "-": ["Zoom out", () => move(2, 0)],
      ArrowLeft: ["Earlier", () => move(1, -0.25)], ArrowRight: ["Later", () => move(1, 0.25)],
      0: ["All", () => Plotly.relayout(area, { "xaxis.autorange": true, "yaxis.autorange": area.dataset.down ? "reversed" : true })],
    };
    const bar = make("div", { class: "bar" });
    for (const [key, [name, act]] of Object.entries(actions)) {
      const button = make("button", { type: "button", title: `Key: ${key}` }, name);
      button.addEventListener("click", act);
      bar.append(button);
    }
    area.before(bar);
    area.addEventListener("keydown", (event) => {
      if (!(event.key in actions) || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      actions[event.key][1]();
    });
  };
  // More rows would slow the page down.
  const MOST_ROWS = 500;
  const table = (parent, title, heads, rows) => {
    const body = make("tbody");
    for (const row of rows.slice(0, MOST_ROWS)) body.append(make("tr", {}, ...row.map((cell) => make("td", {}, String(cell)))));
    const head = make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text))));
    const part = make("details", {}, make("summary", {}, title), make("div", { class: "wide" }, make("table", {}, head, body)));
    if (rows.length > MOST_ROWS) part.append(make("p", { class: "note" }, `Not in this table: the last ${number(rows.length - MOST_ROWS)} of ${count(rows.length, "row")}.`));
    parent.append(part);
  };

  const overTime = (parent, session) => {
    const lines = session.timeline.lines;
    const threads = [...new Set(lines.map((line) => line.thread))];
    const label = (line) => {
      const thread = threads.length > 1 ? `thread ${threads.indexOf(line.thread) + 1}` : "depth";
      return `${thread}${line.lane ? ` (${line.lane + 1})` : ""} ${line.depth}`;
    };
    const bars = { x: [], base: [], y: [], text: [], colour: [], names: [] };
    const add = (y, start, took, name, text, shade) => {
      bars.base.push(start / 1e9); bars.x.push(took / 1e9); bars.y.push(y);
      bars.text.push(text); bars.names.push(name); bars.colour.push(shade);
    };
    const rows = [];
    for (const line of lines) {
      for (const [start, took, name, index, open] of line.bars) {
        const shown = `${name}${index === null ? "" : ` ${index}`}`;
        const text = `${plain(shown)}<br>${open ? "open, " : ""}${time(took)}<br>at ${time(start)}`;
        add(label(line), start, took, name, text, colour(name));
        rows.push([label(line), shown, time(start), open ? "open" : time(took)]);
      }
      for (const [start, end, folded] of line.folds) {
        add(label(line), start, end - start, "", count(folded, "shorter span"), "#999999");
      }
    }
    const order = [...new Set(lines.map(label))];
    for (const [start, end, folded] of session.timeline.rest) {
      add("others", start, end - start, "", `${count(folded, "span")} of other lines`, "#999999");
    }
    if (session.timeline.restLines) order.push("others");
    for (const [start, took] of session.timeline.gaps) add("gaps", start, took, "", `nothing for ${time(took)}`, "#b3261e");
    if (session.timeline.gaps.length) order.push("gaps");
    const data = {
      type: "bar", orientation: "h", x: bars.x, base: bars.base, y: bars.y, hovertext: bars.text, hoverinfo: "text",
      marker: { color: bars.colour, line: { width: 0.5, color: "rgba(128,128,128,.6)" } }, customdata: bars.names,
      text: bars.names.map(plain), textposition: "inside", insidetextanchor: "start", textangle: 0, insidetextfont: { color: INK, size: 11 },
    };
    const more = {
      barmode: "overlay", bargap: 0.05, height: 60 + 24 * order.length,
      uniformtext: { mode: "hide", minsize: 10 },
      xaxis: { title: { text: "seconds since the start" } },
      yaxis: { categoryorder: "array", categoryarray: order, autorange: "reversed", fixedrange: true },
    };
    const entry = chart(parent, "Flame graph by time: the longest spans as bars, below each other by depth", [data], more);
    entry.area.dataset.down = "1";
    entry.shades = bars.colour;
    const { shown, folded, gaps, restLines } = session.timeline;
    const notes = [`Drawn: ${count(shown, "span")}.`];
    if (folded) notes.push(`Folded into grey bars: ${count(folded, "span")}.`);
    if (restLines) notes.push(`The line "others" stands for ${count(restLines, "further line")} of lanes, depths and threads.`);
    if (gaps.length) notes.push(`In red: ${count(gaps.length, "gap")} without any record.`);
    parent.append(make("p", { class: "note" }, notes.join(" ")));
    table(parent, "The spans as a table", ["Line", "Span", "At", "Duration"], rows);
    if (gaps.length) table(parent, "The gaps as a table", ["At", "Duration"], gaps.map((gap) => gap.map(time)));
  };

  const aggregated = (parent, session) => {
    const ids = [], labels = [], parents = [], values = [], texts = [], shades = [], rows = [];
    const totalOf = (node) => node.fold ? node.totalNs : node.durationNs ?? session.durationNs;
    const walk = (node, parentId) => {
      const id = `${parentId}/${ids.length}`;
      const total = totalOf(node);
      const own = node.children.reduce((left, child) => left - totalOf(child), total);
      ids.push(id); labels.push(plain(node.name)); parents.push(parentId); values.push(Math.max(0, own) / 1e9);
      const spans = node.fold ? node.count : 1;
      texts.push(`${number(spans)} × ${plain(node.name)}<br>total ${time(total)}`);
      shades.push(colour(node.name));
      rows.push([node.name, number(spans), time(total), node.fold ? time(node.medianNs) : "", node.fold ? time(node.p95Ns) : ""]);
      for (const child of node.children) walk(child, id);
    };
    walk(session.aggregated, "");
    const data = {
      type: "icicle", ids, labels, parents, values, hovertext: texts, hoverinfo: "text", branchvalues: "remainder",
      marker: { colors: shades }, tiling: { orientation: "v" }, pathbar: { visible: true, textfont: { color: INK } }, textfont: { color: INK }, leaf: { opacity: 1 }, sort: false, maxdepth: 12,
    };
    chart(parent, "Flame graph by name: the total time of the spans of each name, below their parents", [data], { height: 360, still: true });
    parent.append(make("p", { class: "note" }, "Spans of one name below the same parents are one bar. Click a bar to zoom, and the top bar to go back. The width of a bar is its total time, or that of its children if they ran in parallel."));
    if (session.aggregatedHidden) parent.append(make("p", { class: "note" }, `Not drawn, for there are too many names: ${count(session.aggregatedHidden, "span")}.`));
    table(parent, "The totals as a table", ["Span", "Count", "Total", "Median", "95th percentile"], rows);
  };

  const tree = (parent, session) => {
    const mark = (each) => {
      const value = each.lastNonfinite ?? each.last;
      const text = typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
      return `${each.name}${each.count > 1 ? ` ×${number(each.count)}` : ""}=${text.length > 40 ? `${text.slice(0, 40)}…` : text}`;
    };
    const item = (node, level) => {
      const times = node.fold
        ? `×${number(node.count)}, total ${time(node.totalNs)}, median ${time(node.medianNs)}, 95th percentile ${time(node.p95Ns)}`
        : node.durationNs === null ? "open" : node.durationNs === undefined ? "" : time(node.durationNs);
      const index = node.index === null || node.index === undefined ? "" : ` ${node.index}`;
      const text = [make("span", { class: "name" }, `${node.name}${index}`), " ", make("span", { class: "soft" }, times)];
      if (node.marks.length) text.push(" ", make("span", { class: "soft" }, `{${node.marks.map(mark).join(", ")}}`));
      if (!node.children.length) return make("li", {}, ...text);
      const list = make("ul", {}, ...node.children.map((child) => item(child, level + 1)));
      const details = make("details", level < 2 ? { open: "" } : {}, make("summary", {}, ...text), list);
      return make("li", {}, details);
    };
    parent.append(make("div", { class: "wide" }, make("ul", { class: "tree" }, item(session.tree, 0))));
    const notes = [`With a line of their own: ${count(session.shown, "span")}.`];
    if (session.folded) notes.push(`In folds, which have a count: ${number(session.folded)}.`);
    if (session.hidden) notes.push(`Not shown, for they are too many: ${number(session.hidden)}.`);
    parent.append(make("p", { class: "note" }, notes.join(" ")));
  };

  const marks = (parent, session) => {
    const epochs = session.epochs.map(([start]) => ({
      type: "line", xref: "x", yref: "paper", x0: start / 1e9, x1: start / 1e9, y0: 0, y1: 1, line: { width: 1, dash: "dot", color: "#888888" },
    }));
    for (const series of session.series) {
      const part = make("details", session.series.length <= 8 ? { open: "" } : {}, make("summary", {}, `${series.name}: ${count(series.marks, "mark")}`));
      parent.append(part);
      if (series.points.length) {
        const data = {
          type: "scatter", mode: series.points.length > 200 ? "lines" : "lines+markers",
          x: series.points.map((point) => point[0] / 1e9), y: series.points.map((point) => point[1]),
          line: { color: accent() }, hovertemplate: "%{y} at %{x} s<extra></extra>",
        };
        const draw = () => (chart(part, `${series.name} over time`, [data], { height: 240, shapes: epochs, xaxis: { title: { text: "seconds since the start" } } }).lines = true);
        if (part.open) draw(); else part.addEventListener("toggle", draw, { once: true });
      }
      const notes = [];
      if (series.odd) notes.push(`Without a finite number, and not drawn: ${number(series.odd)}.`);
      if (series.thinned) notes.push("Only the lowest and the highest point of each time interval are drawn.");
      if (epochs.length) notes.push(`A dotted line is the begin of an epoch.${session.epochsLeftOut ? ` Later epochs have none: ${number(session.epochsLeftOut)}.` : ""}`);
      if (notes.length) part.append(make("p", { class: "note" }, notes.join(" ")));
      table(part, "The points as a table", ["At", "Value"], series.points.map(([at, value]) => [time(at), value]));
    }
    if (session.seriesLeftOut) parent.append(make("p", { class: "note" }, `Not drawn: ${count(session.seriesLeftOut, "further name")} of marks.`));
  };

  const PARTS = [["By time", overTime], ["By name", aggregated], ["Scopes", tree], ["Marks", marks]];
  trace.sessions.forEach((session, place) => {
    const section = make("section", { "aria-labelledby": `session-${place}` });
    document.getElementById("sessions").append(section);
    const rank = session.rank === null ? "" : `Rank ${session.rank}: `;
    section.append(make("h2", { id: `session-${place}` }, `${rank}session ${session.session}`));
    const facts = {
      Start: session.iso, Duration: session.live ? `live, ${time(session.durationNs)} so far` : time(session.durationNs),
      Spans: number(session.spans), Marks: number(session.marks), Snapshots: number(session.snapshots), Batches: number(session.batches),
    };
    const cards = make("dl");
    for (const [name, value] of Object.entries(facts)) cards.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
    section.append(cards);
    for (const [title, draw] of PARTS) {
      if (title === "Marks" && !session.series.length) continue;
      section.append(make("h3", {}, title));
      const part = make("div");
      section.append(part);
      draw(part, session);
    }
  });
  if (!trace.sessions.length) document.getElementById("sessions").append(make("p", {}, "No traces found."));

  const search = (words) => {
    const wanted = words.trim().toLowerCase();
    let hits = 0;
    for (const name of document.querySelectorAll(".tree .name")) {
      const fits = wanted !== "" && name.textContent.toLowerCase().includes(wanted);
      name.classList.toggle("found", fits);
      hits += fits;
      if (fits) for (let up = name.closest("li").parentElement; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
    }
    for (const { area, traces, shades } of charts) {
      if (!shades) continue;
      const names = traces[0].customdata;
      const opacity = names.map((name) => wanted === "" || name.toLowerCase().includes(wanted) ? 1 : 0.15);
      Plotly.restyle(area, { "marker.opacity": [opacity] });
    }
    document.getElementById("hits").textContent = wanted === "" ? "" : count(hits, "line of the tree", "lines of the tree");
  };
  let waiting;
  document.getElementById("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(event.target.value), 150);
  });
  const repaint = (width) => {
    for (const { area, more, lines } of charts) {
      Plotly.relayout(area, { ...layout(more), width, autosize: !width });
      if (lines) Plotly.restyle(area, { "line.color": accent() });
    }
  };
  dark.addEventListener("change", () => repaint());
  // For print: light colours, everything unfolded, and drawings as wide as the paper.
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "1";
    for (const details of document.querySelectorAll("details")) {
      details.open = true;
      details.dispatchEvent(new Event("toggle"));  // draws a series that was folded
    }
    repaint(660);
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    repaint();
  });
  document.documentElement.dataset.drawn = "1";
})();
