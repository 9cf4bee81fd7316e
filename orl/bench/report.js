"use strict";
// The moving parts of a sweep report: figures, sorting by header, and the list of runs. Text from records reaches the
// page through textContent only.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // ---- figures ---------------------------------------------------------------------------------------------------
  function colours(printing) {
    if (printing) return { ink: "#000", rule: "#ccc", paper: "#fff" };
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(name).trim();
    return { ink: token("--ink"), rule: token("--rule"), paper: token("--paper") };
  }

  function themed(printing) {
    const { ink, rule, paper } = colours(printing);
    const change = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": ink,
      "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": rule, "modebar.activecolor": ink,
      "hoverlabel.bgcolor": paper, "hoverlabel.bordercolor": rule, "hoverlabel.font.color": ink,
    };
    for (const axis of ["xaxis", "yaxis"]) {
      change[`${axis}.gridcolor`] = rule;
      change[`${axis}.linecolor`] = rule;
      change[`${axis}.zerolinecolor`] = rule;
    }
    return change;
  }

  const plots = [...document.querySelectorAll(".plot")];

  function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "yes";
    const figure = data.figures[plot.dataset.figure];
    const narrow = plot.clientWidth < 560;
    const layout = Object.assign({
      autosize: true, hovermode: "closest", dragmode: false,
      font: { family: "system-ui, sans-serif", size: narrow ? 12 : 13 },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, xanchor: "left" },
    }, figure.layout);
    layout.margin = Object.assign({ l: 8, r: 12, t: 10, b: 8 }, figure.layout.margin);
    Plotly.newPlot(plot, figure.data, layout, {
      responsive: true, displaylogo: false,
      displayModeBar: narrow || !window.matchMedia("(hover: hover)").matches ? false : "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    });
    Plotly.relayout(plot, themed(false));
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "600px" });
  plots.forEach((plot) => seen.observe(plot));

  function recolour(printing) {
    for (const plot of plots) if (plot.dataset.drawn) Plotly.relayout(plot, themed(printing));
  }
  dark.addEventListener("change", () => recolour(false));
  window.addEventListener("beforeprint", () => {
    plots.forEach(draw);
    recolour(true);
    for (const box of document.querySelectorAll("details.print-open")) box.open = true;
  });
  window.addEventListener("afterprint", () => recolour(false));

  // ---- tables that sort by a click on a header -----------------------------------------------------------------
  // Numbers go before words, missing values always last.
  function compare(a, b, sign) {
    const none = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);
    if (none(a) || none(b)) return none(a) - none(b);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  }

  function sortable(table, sort) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = element("button", { type: "button" });
      const [title, ...rest] = head.childNodes;
      button.append(title, element("i", { class: "arrow", "aria-hidden": "true" }), ...rest);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(column, down ? -1 : 1);
      });
    });
  }

  function cellValue(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    sortable(table, (column, sign) => {
      const rows = [...body.rows].map((row) => [cellValue(row, column), row]);
      rows.sort((a, b) => compare(a[0], b[0], sign));
      body.append(...rows.map((pair) => pair[1]));
    });
  }

  // ---- runs ------------------------------------------------------------------------------------------------------
  const PAGE = 50;
  const box = document.getElementById("runs");
  if (!box) return;
  const shared = data.shared, runs = data.runs;
  const byName = new Map(runs.map((run) => [run.run, run]));

  const seconds = (value) => {
    if (value === null) return "";
    if (value < 10) return `${value.toFixed(2)} s`;
    if (value < 600) return `${Math.round(value)} s`;
    return value < 36000 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
  };
  const whole = (value) => (value === null ? "" : Math.round(value).toLocaleString("en"));
  const columns = [
    ["run", (run) => run.run], ["environment", (run) => run.environment], ["subject", (run) => run.subject],
    ["instance", (run) => run.instance], ["seed", (run) => run.seed], ["state", (run) => run.state],
    ["result", (run) => run.result, (value, run) => run.result_text], ["steps", (run) => run.steps, whole], ["time", (run) => run.seconds, seconds],
    ["memory", (run) => run.memory, (value) => (value === null ? "" : `${whole(value)} MB`)],
  ];
  const words = new Set(["run", "environment", "subject", "instance", "state"]);
  const filter = element("input", { type: "search", placeholder: "Filter runs", "aria-label": "Filter runs" });
  const back = element("button", { type: "button" }, "Previous");
  const next = element("button", { type: "button" }, "Next");
  const count = element("span", { role: "status" });
  const head = element("tr"), body = element("tbody"), table = element("table", {}, element("thead", {}, head), body);
  for (const [title] of columns) {
    head.append(element("th", { scope: "col", class: words.has(title) ? "text" : "" }, title));
  }
  box.append(
    element("div", { class: "controls" }, filter, back, next, count),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs" }, table),
  );
  let order = runs.slice(), shown = order, page = 0;
  const opened = new Set();

  function list(pairs) {
    const made = element("dl");
    for (const [key, value] of pairs) {
      if (value !== null && value !== undefined && value !== "") made.append(element("dt", {}, key), element("dd", {}, value));
    }
    return made;
  }

  const flat = (value) => Object.entries(value || {}).filter((pair) => pair[1] !== null)
    .map(([key, item]) => `${key} ${typeof item === "object" ? JSON.stringify(item) : item}`).join(", ");

  function detail(run) {
    const configuration = Object.fromEntries(Object.entries(run.configuration).map(([key, at]) => [key, shared[at]]));
    const resumed = run.resumed ? `${run.resumed} times${run.exact === false ? ", which may have changed the result" : ""}` : "";
    return element("div", {},
      element("code", { class: "command" }, run.command || "The folder holds no sweep file, so there is no command."),
      list([
        ["run", run.run], ["started", run.started],
        ["wall time", seconds(run.seconds)], ["processor time", seconds(run.cpu_seconds)],
        ["peak memory", run.memory === null ? "" : `${whole(run.memory)} MB`], ["resumed", resumed],
        ["git", flat(shared[run.git])], ["versions", flat(shared[run.versions])],
        ["machine", flat(shared[run.machine])], ["files", run.files.join(", ")],
      ]),
      run.error === null ? "" : element("pre", {}, run.error),
      element("pre", { class: "configuration" }, JSON.stringify(configuration, null, 2)),
    );
  }

  function rowOf(run) {
    const open = element("button", {
      type: "button", class: "open-run", "aria-expanded": "false", title: "Command and configuration",
    }, run.run.slice(0, 8));
    const row = element("tr", { id: `run-${run.run}` }, element("th", { scope: "row", class: "text" }, open));
    for (const [title, value, show] of columns.slice(1)) {
      const kind = title === "state" ? `text state-${run.state}` : words.has(title) ? "text" : "";
      const item = value(run);
      row.append(element("td", { class: kind }, show ? show(item, run) : item === null ? "" : String(item)));
    }
    let extra = null;
    const toggle = (on) => {
      open.setAttribute("aria-expanded", String(on));
      if (on) {
        opened.add(run.run);
        extra = element("tr", { class: "detail" }, element("td", { colspan: columns.length }, detail(run)));
        row.after(extra);
      } else {
        opened.delete(run.run);
        extra.remove();
      }
    };
    open.addEventListener("click", () => toggle(open.getAttribute("aria-expanded") === "false"));
    return [row, toggle];
  }

  function show() {
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    const part = shown.slice(page * PAGE, (page + 1) * PAGE);
    body.replaceChildren();
    for (const run of part) {
      const [row, toggle] = rowOf(run);
      body.append(row);
      if (opened.has(run.run)) toggle(true);
    }
    const from = shown.length ? page * PAGE + 1 : 0;
    count.textContent = `${from} to ${page * PAGE + part.length} of ${shown.length} runs`;
    back.disabled = page === 0;
    next.disabled = page === last;
  }

  function narrow() {
    const parts = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (run) => [run.run, run.environment, run.subject, run.instance, run.state, `seed ${run.seed}`].join(" ");
    shown = parts.length
      ? order.filter((run) => parts.every((part) => text(run).toLowerCase().includes(part))) : order;
    page = 0;
    show();
  }

  filter.addEventListener("input", narrow);
  back.addEventListener("click", () => { page -= 1; show(); });
  next.addEventListener("click", () => { page += 1; show(); });
  sortable(table, (column, sign) => {
    const value = columns[column][1];
    order = order.slice().sort((a, b) => compare(value(a), value(b), sign));
    narrow();
  });

  // A link to #run-HASH opens that run, wherever it is in the list.
  function follow() {
    const run = byName.get(decodeURIComponent(location.hash).replace(/^#run-/, ""));
    if (!run) return;
    filter.value = "";
    opened.add(run.run);
    shown = order;
    page = Math.floor(shown.indexOf(run) / PAGE);
    show();
    document.getElementById(`run-${run.run}`).scrollIntoView();
  }
  window.addEventListener("hashchange", follow);
  show();
  follow();
})();
