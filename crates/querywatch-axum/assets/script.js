// Updates and charts. Without JavaScript, pages show the same content as of their loading.
"use strict";
(() => {
  const root = document.querySelector("[data-live], [data-refresh]");
  const status = document.getElementById("live-status");

  // ---- Charts. Their data is JSON; see chart.rs.
  const charts = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const color = (name) => getComputedStyle(document.querySelector(".querywatch")).getPropertyValue(name).trim();
  const format = (value, unit) => (value == null ? "–" : `${value.toLocaleString(undefined, { maximumFractionDigits: 2 })} ${unit}`);

  const options = (box, { unit, series }) => {
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
    return {
      width: box.clientWidth,
      height: 220,
      cursor: { drag: { x: false, y: false } },
      // Without a minimum, a single point has an axis of years.
      scales: { x: { range: (_, min, max) => [Math.min(min, max - 60), max] }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
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
    // `open` is the state of a `details` element.
    for (const { name } of [...from.attributes]) if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
    for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    children(from, to);
  };
  const children = (from, to) => {
    // Rows with a key keep their node when newer rows move them.
    const keyed = new Map([...from.children].filter((node) => node.dataset.key).map((node) => [node.dataset.key, node]));
    const next = [...to.childNodes];
    next.forEach((node, index) => {
      const key = node.dataset?.key;
      const known = key && keyed.get(key);
      const old = from.childNodes[index];
      if (known) {
        keyed.delete(key);
        if (known !== old) from.insertBefore(known, old ?? null);
        morph(known, node);
      } else if (!old) {
        from.append(node);
      } else if (key || old.dataset?.key) {
        from.insertBefore(node, old);
      } else {
        morph(old, node);
      }
    });
    while (from.childNodes.length > next.length) from.lastChild.remove();
  };
  const show = (part, html) => {
    // Skips a part while one of its links has the focus, so that the link does not change under the user.
    if (html === undefined || part.querySelector("a:focus")) return;
    const template = document.createElement("template");
    template.innerHTML = html;
    children(part, template.content);
  };

  // ---- Updates.
  let seen;
  const say = (text) => {
    if (status && status.textContent !== text) status.textContent = text;
  };
  const news = ({ slow, findings }) => {
    // Announces each new value once.
    if (seen && slow > seen.slow) say("Live. There are new slow statements.");
    else if (seen && findings > seen.findings) say("Live. There are new findings.");
    else if (!seen) say("Live.");
    seen = { slow, findings };
  };
  const apply = (update) => {
    document.querySelectorAll("[data-part]").forEach((part) => show(part, update.parts[part.dataset.part]));
    boxes.forEach((box) => update.charts[box.dataset.chart] && draw(box, update.charts[box.dataset.chart]));
    news(update.news);
  };
  const lost = (text) => {
    seen = undefined;
    say(text);
  };

  // Both return a function that ends the updates.
  const stream = (address) => {
    const source = new EventSource(address);
    source.addEventListener("snapshot", ({ data }) => apply(JSON.parse(data)));
    source.addEventListener("error", () =>
      lost(source.readyState === EventSource.CLOSED ? "Not live: reload the page." : "Not live: reconnecting."),
    );
    return () => source.close();
  };
  const poll = (seconds) => {
    let timer;
    let ended = false;
    const load = async () => {
      // A page in the background waits until it is visible.
      if (!document.hidden) {
        try {
          const signal = AbortSignal.timeout(10_000);
          const answer = await fetch(location.href, { cache: "no-store", redirect: "error", signal });
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          const content = page.querySelector("[data-refresh]");
          if (ended) return;
          if (!answer.ok || !content) throw new Error("no page");
          const [parts, plots] = ["part", "chart"].map((name) => [...content.querySelectorAll(`[data-${name}]`)]);
          apply({
            parts: Object.fromEntries(parts.map((part) => [part.dataset.part, part.innerHTML])),
            charts: Object.fromEntries(plots.map((plot) => [plot.dataset.chart, JSON.parse(plot.dataset.points)])),
            news: { slow: Number(content.dataset.slow), findings: Number(content.dataset.findings) },
          });
        } catch {
          if (!ended) lost("Not live: trying again.");
        }
      }
      if (!ended) timer = setTimeout(load, seconds * 1000);
    };
    load();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  };

  if (root) {
    const start = () => (root.dataset.live ? stream(root.dataset.live) : poll(Number(root.dataset.refresh)));
    let end = start();
    const pause = document.getElementById("pause");
    if (pause) pause.hidden = false;
    pause?.addEventListener("click", () => {
      pause.textContent = end ? "Resume" : "Pause";
      if (end) {
        end();
        lost("Paused.");
        end = undefined;
      } else {
        end = start();
      }
    });
  }
})();
