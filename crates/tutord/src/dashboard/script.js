// Updates and charts. Without JavaScript, pages show the same content as of their loading.
"use strict";
(() => {
  const main = document.querySelector("main");
  const status = document.getElementById("live-status");

  // ---- Charts. Their data is JSON; see chart.rs.
  const charts = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const format = (value, unit) => (value == null ? "–" : `${value.toLocaleString(undefined, { maximumFractionDigits: 2 })} ${unit}`);

  const options = (box, { unit, series }) => {
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
    return {
      width: box.clientWidth,
      height: 220,
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
      axes: [axis, { ...axis, size: 60 }],
      series: [
        {},
        ...series.map(({ name }, index) => ({
          label: name,
          stroke: color(`--series-${index + 1}`),
          // Dashes distinguish the lines without colors.
          dash: index > 0 ? [6, 4] : undefined,
          width: 2,
          points: { size: 5 },
          value: (_, value) => format(value, unit),
        })),
      ],
    };
  };

  const draw = (box, data) => {
    const known = charts.get(box);
    box.hidden = data.empty;
    if (data.empty || typeof uPlot === "undefined") return;
    const values = [data.at, ...data.series.map((series) => series.values)];
    if (known) {
      known.data = data;
      known.plot.setData(values);
    } else {
      box.replaceChildren();
      charts.set(box, { data, plot: new uPlot(options(box, data), values, box) });
    }
  };

  const redraw = () => {
    for (const [box, { plot, data }] of [...charts]) {
      plot.destroy();
      charts.delete(box);
      draw(box, data);
    }
  };

  const boxes = [...document.querySelectorAll("[data-chart]")];
  boxes.forEach((box) => draw(box, JSON.parse(box.dataset.points)));
  dark.addEventListener("change", redraw);
  addEventListener("resize", () => charts.forEach(({ plot }, box) => plot.setSize({ width: box.clientWidth, height: 220 })));

  // ---- Parts of the page. Only changed nodes are updated, to preserve focus, selection and scroll position.
  const morph = (from, to) => {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) return from.replaceWith(to);
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    for (const { name } of [...from.attributes]) if (!to.hasAttribute(name)) from.removeAttribute(name);
    for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    children(from, to);
  };
  const children = (from, to) => {
    const [old, next] = [[...from.childNodes], [...to.childNodes]];
    next.forEach((node, index) => (index < old.length ? morph(old[index], node) : from.append(node)));
    old.slice(next.length).forEach((node) => node.remove());
  };
  const show = (part, html) => {
    // Skips a part while one of its links has the focus, so that the link does not change under the user.
    if (html === undefined || part.querySelector("a:focus")) return;
    const template = document.createElement("template");
    template.innerHTML = html;
    children(part, template.content);
  };

  // ---- Updates.
  let source;
  let seen;
  const say = (text) => {
    if (status.textContent !== text) status.textContent = text;
  };
  const news = ({ slow, findings }) => {
    // Announces each new value once.
    if (seen && slow > seen.slow) say("Live. There are new slow statements.");
    else if (seen && findings > seen.findings) say("Live. There are new findings.");
    else if (!seen) say("Live.");
    seen = { slow, findings };
  };
  const connect = () => {
    source = new EventSource(main.dataset.live);
    source.addEventListener("snapshot", ({ data }) => {
      const { parts, charts, news: counts } = JSON.parse(data);
      document.querySelectorAll("[data-part]").forEach((part) => show(part, parts[part.dataset.part]));
      boxes.forEach((box) => charts[box.dataset.chart] && draw(box, charts[box.dataset.chart]));
      news(counts);
    });
    source.addEventListener("error", () => {
      seen = undefined;
      say(source.readyState === EventSource.CLOSED ? "Not live: reload the page." : "Not live: reconnecting.");
    });
  };
  const pause = document.getElementById("pause");
  if (main.dataset.live && pause) {
    connect();
    pause.hidden = false;
    pause.addEventListener("click", () => {
      const live = source.readyState !== EventSource.CLOSED;
      pause.textContent = live ? "Resume" : "Pause";
      seen = undefined;
      if (live) {
        source.close();
        say("Paused.");
      } else {
        connect();
      }
    });
  }

  // ---- Log-in and log-out.
  const form = document.getElementById("log-in");
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const refused = document.getElementById("refused");
    refused.textContent = "";
    try {
      const answer = await fetch("/api/auth/login", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(Object.fromEntries(new FormData(form))),
      });
      if (!answer.ok) {
        refused.textContent = (await answer.json()).error.message;
      } else if (location.pathname === "/ops/login") {
        location.assign("/ops");
      } else {
        location.reload();
      }
    } catch {
      refused.textContent = "The server does not respond.";
    }
  });
  const out = document.getElementById("log-out");
  if (out) {
    out.hidden = false;
    out.addEventListener("click", async () => {
      const token = document.cookie.match(/(?:^|; )csrf_token=([^;]*)/)?.[1] ?? "";
      await fetch("/api/auth/logout", { method: "POST", headers: { "x-csrf-token": token } });
      location.assign("/ops/login");
    });
  }
})();
