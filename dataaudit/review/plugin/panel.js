/* The review panel of dataaudit in the FiftyOne App. No build step: React and the App's own packages are
   globals there. `Review` holds what is known and talks to the server; `Panel` draws it. */
(function () {
  "use strict";

  const { createElement: h, useEffect, useReducer, useRef, useState } = window.React;
  const { recoil, __fos__: fos, __fop__: fop, __fou__: fou, __foo__: foo } = window;
  const OPERATOR = "@dataaudit/review/review";
  const AHEAD = 3; // pictures that are loaded beforehand
  const KEYS = [
    ["a", "accept what is proposed"], ["k", "keep the label as it is"], ["o", "another class"],
    ["1 – 5", "one of the likely classes"], ["s", "skip: decide later"], ["u", "undo"],
    ["← →", "previous, next"], ["z", "zoom to the object"], ["?", "these keys"],
  ];

  const style = document.createElement("link");
  Object.assign(style, { rel: "stylesheet", href: new URL("panel.css", document.currentScript.src).href });
  document.head.append(style);

  const source = (path) => fos.getSampleSrc(path);
  const percent = (p) => (p === null || p === undefined ? "–" : `${(100 * p).toFixed(0)} %`);

  class Review {
    constructor(dataset, changed) {
      Object.assign(this, { dataset, changed, about: null, shown: null, ahead: [], progress: null });
      Object.assign(this, { error: null, message: null, job: null, left: 0, preview: null });
      this.pending = []; // verdicts that the server hasn't confirmed, in order
      this.pictures = new Map();
      this.chain = Promise.resolve();
    }

    /** Ask the server, one question after another. */
    ask(question) {
      const answer = this.chain.then(() => this.post(question));
      this.chain = answer.catch(() => {});
      return answer;
    }

    async post(params) {
      const body = { operator_uri: OPERATOR, dataset_name: this.dataset, params };
      const found = await fou.getFetchFunction()("POST", "/operators/execute", body);
      const error = found.error_message || found.error || (found.result || {}).error;
      if (error) throw new Error(error);
      return found.result;
    }

    async open() {
      await this.attempt({ action: "open" }, (answer) => {
        this.about = answer;
        this.take(answer, true);
        if (answer.running) this.watch();
      });
    }

    /** Ask; what goes wrong is shown. */
    async attempt(question, use) {
      try {
        const answer = await this.ask(question);
        this.error = null;
        this.message = answer.message || null;
        use(answer);
      } catch (error) {
        this.error = error.message || String(error);
      }
      this.changed();
    }

    /** Use an answer that names the findings to come. */
    take(answer, jump) {
      const decided = new Set(this.pending.map((each) => each.finding.key));
      const ahead = answer.findings.filter((each) => !decided.has(each.key));
      if (jump || this.shown === null) {
        this.shown = ahead[0] || null;
        this.ahead = ahead.slice(1);
      } else {
        // What is being looked at stays, whatever the new order is
        this.shown = ahead.find((each) => each.key === this.shown.key) || this.shown;
        this.ahead = ahead.filter((each) => each.key !== this.shown.key);
      }
      this.progress = answer.progress;
      this.left = answer.left_under_filter;
      this.prefetch();
    }

    prefetch() {
      for (const { filepath } of this.ahead.slice(0, AHEAD)) {
        if (!filepath || this.pictures.has(filepath)) continue;
        const picture = new Image();
        picture.src = source(filepath);
        picture.decode().catch(() => {});
        this.pictures.set(filepath, picture);
        if (this.pictures.size > 4 * AHEAD) this.pictures.delete(this.pictures.keys().next().value);
      }
    }

    decide(verdict, label) {
      const finding = this.shown;
      if (!finding) return;
      if (verdict === "accept" && !finding.accept) return this.say("Nothing is proposed here to accept.");
      if (verdict === "other" && !finding.other) return this.say("No other class can be given here.");
      this.message = null;
      if (this.failed === finding.key) this.error = this.failed = null;
      this.pending.push({ finding });
      this.shown = this.ahead.shift() || null;
      this.changed();
      const question = { action: "decide", key: finding.key, verdict, label };
      this.ask(question).then(
        (answer) => {
          this.pending.shift();
          this.take(answer, false);
          this.changed();
        },
        (error) => {
          // It isn't written, so it is asked again
          this.pending.shift();
          if (this.shown) this.ahead.unshift(this.shown);
          this.shown = finding;
          this.failed = finding.key;
          this.error = `Not written: ${error.message || error}`;
          this.changed();
        },
      );
    }

    choose(number) {
      const choice = (this.shown ? this.shown.choices : [])[number];
      if (choice) this.label(choice.name);
    }

    label(name) {
      if (name === this.shown.given) this.decide("keep");
      else if (name === this.shown.accept_label) this.decide("accept");
      else this.decide("other", name);
    }

    say(message) {
      this.message = message;
      this.changed();
    }

    undo() {
      return this.attempt({ action: "undo" }, (answer) => this.take(answer, true));
    }

    go(step) {
      return this.attempt({ action: "go", step }, (answer) => this.take(answer, true));
    }

    filter(filter) {
      return this.attempt({ action: "filter", ...filter }, (answer) => {
        this.about = { ...this.about, filter: answer.filter };
        this.take(answer, true);
      });
    }

    ready(question) {
      return this.attempt({ action: "preview", ...question }, (answer) => {
        this.preview = { question, ...answer };
      });
    }

    bulk() {
      const { question, keys } = this.preview;
      this.preview = null;
      return this.attempt({ action: "bulk", verdict: question.verdict, keys }, (answer) => {
        this.message = `${answer.decided} findings decided. u takes them back one by one.`;
        this.take(answer, true);
      });
    }

    async start(job, message) {
      await this.attempt({ action: "start", job, message }, (answer) => {
        this.job = answer.job;
      });
      if (!this.error) this.watch();
    }

    async watch() {
      await this.attempt({ action: "job" }, (answer) => {
        this.job = answer.job;
      });
      if (this.job && this.job.running) return void setTimeout(() => this.watch(), 500);
      await this.open();
      foo.executeOperator("reload_dataset");
    }
  }

  /* What is drawn */

  const Name = ({ children, className }) => h("bdi", { className: `da-name ${className || ""}` }, children);

  function Picture({ finding, zoomed }) {
    const [size, setSize] = useState(finding.size);
    const [broken, setBroken] = useState(false);
    const boxes = [[finding.box, "given"], [finding.suggested_box, "proposed"]].filter(([box]) => box);
    if (!finding.filepath) return h("div", { className: "da-frame da-empty" }, "This finding is about no single image.");
    if (broken) return h("div", { className: "da-frame da-empty" }, "The browser can't show ", h(Name, null, finding.filepath));
    const loaded = (event) => {
      const { naturalWidth, naturalHeight } = event.target;
      if (!size) setSize([naturalWidth, naturalHeight]);
      event.target.dataset.loaded = "true";
    };
    const small = size && Math.max(...size) <= 160;
    const fits = size && { aspectRatio: `${size[0]} / ${size[1]}`, width: `min(100%, calc(var(--da-height) * ${size[0] / size[1]}))` };
    return h("div", { className: "da-frame" },
      h("div", { className: "da-stage", style: { ...fits, ...(zoomed && size && boxes.length ? zoom(size, boxes) : null) } },
        h("img", { src: source(finding.filepath), alt: "", className: small ? "da-pixels" : "", draggable: false,
          onLoad: loaded, onError: () => setBroken(true) }),
        size && boxes.length > 0 && h("svg", { viewBox: `0 0 ${size[0]} ${size[1]}`, "aria-hidden": true },
          boxes.map(([[x1, y1, x2, y2], kind]) => h("rect", { key: kind, className: `da-box-${kind}`,
            x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1),
            vectorEffect: "non-scaling-stroke" })))));
  }

  /** The transformation of the picture that brings the boxes, and some of what is around them, into sight. */
  function zoom([width, height], boxes) {
    const corner = (i, pick) => pick(...boxes.map(([box]) => box[i]));
    const [x1, y1, x2, y2] = [corner(0, Math.min), corner(1, Math.min), corner(2, Math.max), corner(3, Math.max)];
    const scale = Math.min(20, Math.max(1, 0.75 * Math.min(width / (x2 - x1), height / (y2 - y1))));
    if (scale === 1) return null;
    const [x, y] = [(x1 + x2) / 2 / width - 0.5, (y1 + y2) / 2 / height - 0.5];
    return { transform: `scale(${scale}) translate(${-100 * x}%, ${-100 * y}%)` };
  }

  function Facts({ finding }) {
    const row = (name, value, className) => h(window.React.Fragment, { key: name }, h("dt", null, name), h("dd", { className }, value));
    const boxed = finding.box || finding.suggested_box;
    return h("dl", { className: "da-facts" },
      row("given", finding.given === null ? "–" : h(Name, null, finding.given), boxed && finding.box ? "da-is-given" : ""),
      row("suggested", finding.suggested === null ? (finding.suggested_box ? "the dashed box" : "–") : h(Name, null, finding.suggested), finding.suggested_box ? "da-is-proposed" : ""),
      row("error?", h("span", { className: "da-figure" }, percent(finding.probability))),
      row("score", h("span", { className: "da-figure" }, finding.score.toFixed(3))),
      row("check", `${finding.code} ${finding.check}`),
      row("file", h(Name, null, finding.sample_id || finding.item_id)));
  }

  function Choices({ review, finding }) {
    if (!finding.choices.length) return null;
    return h("ol", { className: "da-choices", "aria-label": "likely classes" }, finding.choices.slice(0, 5).map((choice, i) =>
      h("li", { key: choice.name }, h("button", { onClick: () => review.choose(i), disabled: !finding.other && choice.name !== finding.given },
        h("kbd", null, i + 1), h(Name, null, choice.name), h("span", { className: "da-figure" }, percent(choice.probability))))));
  }

  function Neighbors({ finding }) {
    if (!finding.neighbors.length) return null;
    return h("div", { className: "da-neighbors" }, h("h3", null, "Images that look like it"), h("ul", null,
      finding.neighbors.map((each) => h("li", { key: each.sample_id, title: each.sample_id },
        h("img", { src: source(each.filepath), alt: "", loading: "lazy", decoding: "async" }),
        each.names.map((name) => h(Name, { key: name, className: name === finding.given ? "da-same" : "" }, name))))));
  }

  function Other({ review, finding, close }) {
    const [words, setWords] = useState("");
    const [at, setAt] = useState(0);
    const small = words.trim().toLowerCase();
    const free = review.about.classes.filter((name) => name !== finding.given && !finding.taken.includes(name));
    const rank = (name) => (name.toLowerCase().startsWith(small) ? 0 : 1);
    const found = free.filter((name) => name.toLowerCase().includes(small)).sort((a, b) => rank(a) - rank(b)).slice(0, 12);
    const take = (name) => { close(); review.label(name); };
    const onKeyDown = (event) => {
      event.stopPropagation();
      if (event.key === "Escape") close();
      else if (event.key === "ArrowDown") setAt(Math.min(at + 1, found.length - 1));
      else if (event.key === "ArrowUp") setAt(Math.max(at - 1, 0));
      else if (event.key === "Enter") { if (found[at] !== undefined) take(found[at]); }
      else return;
      event.preventDefault();
    };
    return h("div", { className: "da-other" },
      h("input", { autoFocus: true, value: words, placeholder: "Another class …", "aria-label": "Another class",
        onChange: (event) => { setWords(event.target.value); setAt(0); }, onKeyDown }),
      h("ul", { role: "listbox" }, found.map((name, i) => h("li", { key: name, role: "option", "aria-selected": i === at,
        onMouseDown: (event) => { event.preventDefault(); take(name); } }, h(Name, null, name)))),
      found.length === 0 && h("p", null, "No class of the dataset is called so."));
  }

  function Progress({ review }) {
    const { progress, left } = review;
    const all = progress.decided + progress.left;
    const errors = progress.errors_left === null || progress.errors_left === undefined ? null
      : `about ${Math.round(progress.errors_left)} errors left (${Math.round(progress.low)} to ${Math.round(progress.high)})`;
    return h("div", { className: "da-progress", role: "status" },
      h("progress", { value: progress.decided, max: Math.max(all, 1), "aria-label": "decided" }),
      h("span", { className: "da-figure da-decided" }, `${progress.decided} of ${all} decided`),
      h("span", null, `${progress.confirmed} errors, ${progress.kept} kept`), errors && h("span", { className: "da-left" }, errors),
      left !== progress.left && h("span", null, `${left} under the filter`),
      progress.advice && h("strong", { className: "da-advice" }, progress.advice));
  }

  function Filter({ review }) {
    const filter = review.about.filter;
    const set = (name, value) => review.filter({ ...filter, [name]: value });
    const number = (name, label) => h("label", { key: name }, label, h("input", { type: "number", min: 0, max: 1, step: 0.05, className: `da-${name}`,
      defaultValue: filter[name] === undefined ? "" : filter[name], onKeyDown: (event) => event.stopPropagation(),
      onChange: (event) => set(name, event.target.value === "" ? undefined : Number(event.target.value)) }));
    const pick = (name, label, options) => h("label", { key: name }, label, h("select", { className: `da-${name}`, value: (filter[name] || [""])[0],
      onChange: (event) => set(name, event.target.value === "" ? undefined : [event.target.value]) },
      h("option", { value: "" }, "all"), options.map(([value, text]) => h("option", { key: value, value }, text))));
    return h("div", { className: "da-filter" },
      pick("codes", "check", review.about.codes.map(({ code, name, n }) => [code, `${code} ${name} (${n})`])),
      pick("classes", "class", review.about.classes.map((name) => [name, name])),
      number("min_probability", "error? from"), number("max_probability", "to"),
      h("label", null, h("input", { type: "checkbox", checked: filter.undecided === false,
        onChange: (event) => set("undecided", event.target.checked ? false : undefined) }), "decided too"));
  }

  function Many({ review }) {
    const selected = recoil.useRecoilValue(fos.selectedSamples);
    const ids = [...(selected.keys ? selected.keys() : selected)];
    const [least, setLeast] = useState("0.9");
    const preview = review.preview;
    if (preview) {
      const n = preview.keys.length;
      const right = preview.precision === null ? "" : ` About ${Math.round(n * preview.precision)} of them are errors (${percent(preview.precision)}).`;
      const does = preview.question.verdict === "accept" ? "Accept" : "Keep";
      return h("div", { className: "da-many", role: "alertdialog" }, h("span", null, n ? `${does} ${n} findings?${right}` : "None of them can be decided so."),
        n > 0 && h("button", { className: "da-confirm", onClick: () => review.bulk() }, does),
        h("button", { onClick: () => { review.preview = null; review.changed(); } }, "Cancel"));
    }
    const under = (verdict) => ({ verdict, min_probability: verdict === "accept" && least !== "" ? Number(least) : undefined });
    return h("div", { className: "da-many" },
      h("button", { className: "da-accept-all", onClick: () => review.ready(under("accept")) }, "Accept all under the filter"),
      h("label", null, "from", h("input", { type: "number", min: 0, max: 1, step: 0.05, value: least,
        onKeyDown: (event) => event.stopPropagation(), onChange: (event) => setLeast(event.target.value) })),
      ids.length > 0 && h("button", { onClick: () => review.ready({ verdict: "accept", selected: ids }) }, `Accept the ${ids.length} selected`),
      ids.length > 0 && h("button", { onClick: () => review.ready({ verdict: "keep", selected: ids }) }, `Keep the ${ids.length} selected`));
  }

  function Jobs({ review }) {
    const [message, setMessage] = useState(null);
    const job = review.job;
    const running = job && job.running;
    const commit = () => { review.start("commit", message); setMessage(null); };
    const onKeyDown = (event) => {
      event.stopPropagation();
      if (event.key === "Enter") commit();
      if (event.key === "Escape") setMessage(null);
    };
    return h("div", { className: "da-jobs" },
      h("button", { disabled: running, className: "da-apply", onClick: () => review.start("apply") }, "Apply decisions"),
      h("button", { disabled: running, className: "da-commit", onClick: () => setMessage(message === null ? "" : null) }, "Commit version …"),
      h("button", { disabled: running, className: "da-audit", onClick: () => review.start("audit") }, "Audit again"),
      message !== null && h("input", { autoFocus: true, value: message, placeholder: "What changed? Enter commits.", "aria-label": "What changed",
        onChange: (event) => setMessage(event.target.value), onKeyDown }),
      running && h("div", { role: "status" }, h("progress", job.share === null ? {} : { value: job.share, max: 1 }), ` ${job.title}: ${job.doing}`),
      job && !running && h("pre", { className: job.ok ? "da-done" : "da-failed", role: "status" }, job.message || "Done."));
  }

  function onKey(event, review, view) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    const keys = {
      a: () => review.decide("accept"), k: () => review.decide("keep"), s: () => review.decide("skip"),
      o: () => (review.shown && review.shown.other ? view.set({ typing: true }) : review.say("No other class can be given here.")),
      u: () => review.undo(), ArrowLeft: () => review.go(-1), ArrowRight: () => review.go(1),
      z: () => view.set({ zoomed: !view.zoomed }), "?": () => view.set({ help: !view.help }),
    };
    const does = keys[event.key] || (/^[1-5]$/.test(event.key) ? () => review.choose(Number(event.key) - 1) : null);
    if (!does) return;
    event.preventDefault();
    event.stopPropagation();
    does();
  }

  function Verdicts({ review, view }) {
    const finding = review.shown;
    const button = (key, text, does, disabled, hint) => h("button", { key, className: `da-verdict da-key-${key}`, onClick: does, disabled, title: hint },
      h("kbd", null, key), " ", text);
    return h("div", { className: "da-verdicts" },
      button("a", "Accept", () => review.decide("accept"), !finding || !finding.accept, finding && finding.accept),
      button("k", "Keep", () => review.decide("keep"), !finding),
      button("o", "Other …", () => view.set({ typing: true }), !finding || !finding.other),
      button("s", "Skip", () => review.decide("skip"), !finding),
      button("u", "Undo", () => review.undo()));
  }

  function Help() {
    return h("dl", { className: "da-help" }, KEYS.map(([key, text]) => [h("dt", { key }, h("kbd", null, key)), h("dd", { key: text }, text)]));
  }

  /** What is below the picture. */
  function Below({ review, view }) {
    return h("div", { className: "da-below" }, h(Verdicts, { review, view }), view.help && h(Help), h(Many, { review }), h(Jobs, { review }),
      h("p", { className: "da-who" }, "Reviewer: ", h(Name, null, review.about.reviewer), " · ", h("kbd", null, "?"), " shows the keys"));
  }

  function Finding({ review, view }) {
    const finding = review.shown;
    if (!finding) {
      const none = "There is nothing left to decide under this filter.";
      return h("div", null, h("div", { className: "da-frame da-empty" }, review.pending.length ? "…" : none), h(Below, { review, view }));
    }
    return h("div", { className: "da-finding", "data-finding": finding.key },
      h("div", null, h(Picture, { key: finding.key, finding, zoomed: view.zoomed }), h(Below, { review, view })),
      h("div", { className: "da-side" },
        h("p", { className: "da-message" }, h("bdi", null, finding.message)),
        h("p", { className: "da-proposal" }, finding.accept ? h("bdi", null, finding.accept) : "Nothing is proposed: keep, skip or name another class."),
        finding.verdict && h("p", { className: "da-was" }, `Decided: ${finding.verdict}${finding.by ? ` by ${finding.by}` : ""}`),
        view.typing ? h(Other, { key: finding.key, review, finding, close: () => { view.set({ typing: false }); view.focus(); } }) : h(Choices, { review, finding }),
        h(Facts, { finding }), h(Neighbors, { finding })));
  }

  function Panel() {
    const dataset = recoil.useRecoilValue(fos.datasetName);
    const [, changed] = useReducer((n) => n + 1, 0);
    const [state, setState] = useState({ zoomed: false, help: false, typing: false });
    const root = useRef(null);
    const held = useRef(null);
    if (held.current === null || held.current.dataset !== dataset) held.current = new Review(dataset, changed);
    const review = held.current;
    const view = { ...state, set: (news) => setState((old) => ({ ...old, ...news })), focus: () => root.current && root.current.focus() };
    useEffect(() => { review.open().then(() => view.focus()); }, [review]);
    useEffect(() => {
      // Keys are for the panel too while nothing else has the focus
      const listen = (event) => { if (document.activeElement === document.body) onKey(event, review, view); };
      document.addEventListener("keydown", listen);
      return () => document.removeEventListener("keydown", listen);
    });
    const children = [];
    if (review.error) children.push(h("p", { key: "error", className: "da-error", role: "alert" }, review.error));
    if (!review.about) {
      children.push(h("p", { key: "wait" }, review.error ? h("button", { onClick: () => review.open() }, "Try again") : "Reading the findings …"));
    } else {
      const notes = [review.about.note, review.about.second ? "A second opinion: what others said isn't shown." : null, review.message].filter(Boolean);
      children.push(
        h(Progress, { key: "progress", review }), h(Filter, { key: "filter", review }),
        ...notes.map((note) => h("p", { key: note, className: "da-note", role: "status" }, note)),
        h(Finding, { key: "finding", review, view }));
    }
    return h("div", { className: "da-root", ref: root, tabIndex: 0, onKeyDown: (event) => onKey(event, review, view),
      onMouseUp: (event) => { if (!event.target.closest("input, select, textarea")) view.focus(); } },
      children);
  }

  const Icon = () => h("span", { "aria-hidden": true, style: { marginRight: "0.4em" } }, "✓");

  fop.registerComponent({ name: "dataaudit_review", label: "Review", component: Panel, Icon,
    type: fop.PluginComponentType.Panel, activator: () => true, panelOptions: { surfaces: "grid", priority: 0 } });
})();
