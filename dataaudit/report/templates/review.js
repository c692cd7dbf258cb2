// The review: opens on its address, takes keys and buttons, and keeps what was decided.

class Review {
  constructor() {
    const data = JSON.parse(find("#review-data").textContent);
    for (const entry of data.entries) entry.imageName = entry.image === undefined ? null : data.images[entry.image].name;
    this.data = data;
    this.decisions = new Decisions(`${data.name}/${data.digest}`, usableStorage());
    this.queue = new Queue(data.entries, data.background, this.decisions);
    this.view = new View(data, new Pictures(all("script.pictures"), data.block), data.classes);
    this.current = null;
    this.listed = [];
    this.marked = 0;
    this.options();
    this.listen();
    this.refresh(null);
    if (!this.decisions.storage) this.tell("This browser keeps nothing for this page, as in some private windows. Download the decisions before you close it.");
  }

  options() {
    const { entries } = this.data;
    const several = (values) => [...new Set(values.filter((value) => value !== undefined))].sort((a, b) => a.localeCompare(b));
    find("#r-code").append(...several(entries.map((entry) => entry.code)).map((code) => make("option", { value: code, textContent: code })));
    find("#r-class").append(...several(entries.flatMap((entry) => [entry.given, entry.suggested])).map((name) => make("option", { value: name, textContent: shown(name) })));
    find("#r-code").hidden = find("#r-code").options.length < 3;
    all(".range").forEach((node) => { node.hidden = entries.every((entry) => entry.p === undefined); });
  }

  listen() {
    const on = (query, kind, act) => find(query).addEventListener(kind, act);
    for (const verdict of ["accept", "keep", "skip"]) on(`#r-${verdict}`, "click", () => this.decide(verdict));
    on("#r-other", "click", () => this.choose());
    on("#r-undo", "click", () => this.undo());
    on("#r-next", "click", () => this.go(1));
    on("#r-previous", "click", () => this.go(-1));
    on("#r-likely", "click", (event) => {
      const button = event.target.closest("button");
      if (button) this.nameIt(button.dataset.name);
    });
    on("#r-filter", "input", () => this.sieve());
    on("#r-filter", "submit", (event) => event.preventDefault());
    on("#r-bulk", "click", () => this.askBulk());
    on("#r-sure", "submit", (event) => this.bulk(event.submitter?.value));
    on("#r-ask", "submit", () => this.named());
    on("#r-who", "click", () => this.ask());
    on("#r-remark", "keydown", (event) => { if (event.key === "Enter") event.target.blur(); });
    on("#r-help", "click", () => find("#r-keys").showModal());
    on("#r-save", "click", () => this.save());
    on("#r-load", "click", () => find("#r-file").click());
    on("#r-file", "change", () => this.load());
    on("#r-name", "input", () => this.list());
    on("#r-name", "keydown", (event) => this.chooseKey(event));
    on("#r-name", "blur", () => this.stopChoosing());
    on("#r-names", "pointerdown", (event) => {
      event.preventDefault();
      const option = event.target.closest("li");
      if (option) this.nameIt(this.listed[[...option.parentNode.children].indexOf(option)]);
    });
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("beforeunload", (event) => {
      if (this.decisions.unsaved && this.decisions.count) event.preventDefault();
    });
    window.addEventListener("storage", (event) => {
      if (!this.decisions.readFromOther(event.key, event.newValue)) return;
      this.queue.changed(1);
      this.refresh(this.current);
    });
  }

  get entry() {
    return this.current === null ? null : this.data.entries[this.current];
  }

  // Keys act where no text is typed and no question is open.
  key(event) {
    if (find("#r-review").hidden || event.ctrlKey || event.metaKey || event.altKey || find("dialog[open]")) return;
    if (event.key === "Escape" && event.target.matches("input, select")) event.target.blur();
    // What was closed just now may still have the focus
    if (event.target.matches("input, select, textarea") && event.target.getClientRects().length) return;
    const acts = {
      a: () => this.decide("accept"), k: () => this.decide("keep"), s: () => this.decide("skip"), o: () => this.choose(),
      u: () => this.undo(), ArrowRight: () => this.go(1), ArrowLeft: () => this.go(-1), "?": () => find("#r-keys").showModal(),
      n: () => find("#r-remark").focus(), "/": () => find("#r-words").focus(), f: () => find("#r-file-link")?.click(),
    };
    const number = /^[1-5]$/.test(event.key) ? Number(event.key) : 0;
    const act = number ? () => this.nameIt(find("#r-likely").children[number - 1]?.dataset.name) : acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  decide(verdict, label = null) {
    const entry = this.entry;
    if (!entry || (verdict === "accept" && !entry.fix) || (verdict === "other" && !entry.named)) return;
    const note = find("#r-remark").value.trim() || null, following = this.queue.following(this.current);
    const findings = this.queue.same(entry);
    this.decisions.decide(findings, verdict, label, note);
    const words = { accept: "Accepted", keep: "Kept", skip: "Skipped", other: "Changed" }[verdict];
    this.goOn(findings.length, following, `${words}${label === null ? "" : `: ${shown(label)}`}.`);
  }

  // After verdicts: to the finding that follows, or to the first where all are ordered anew.
  goOn(n, following, words) {
    const anew = this.queue.changed(n);
    this.refresh(anew ? null : following);
    const next = [find("#r-change").textContent, find("#r-chance").textContent].filter(Boolean).join(", ");
    this.say(this.entry ? `${words} Next: ${next}.` : words);
  }

  nameIt(name) {
    if (name === undefined || !this.entry) return;
    const { verdict, label } = verdictOf(this.entry, name);
    this.stopChoosing();
    this.decide(verdict, label ?? null);
  }

  undo() {
    const keys = this.decisions.undo();
    if (!keys.length) {
      this.say("There is nothing to undo.");
      return;
    }
    const places = keys.map((key) => this.queue.keys.get(key)).filter((at) => at !== undefined);
    this.queue.undone(places);
    this.refresh(places[0] ?? null);
    this.say(keys.length === 1 ? "Undone." : `Undone: ${counted(keys.length, "decision")}.`);
  }

  go(by) {
    this.refresh(this.queue.step(this.current, by));
  }

  sieve() {
    const share = (query, otherwise) => (find(query).value === "" ? otherwise : Number(find(query).value) / 100);
    this.queue.filter = {
      code: find("#r-code").value, name: find("#r-class").value, state: find("#r-state").value,
      low: share("#r-low", 0), high: share("#r-high", 1), words: find("#r-words").value.toLowerCase().split(/\s+/).filter(Boolean),
    };
    this.queue.renew();
    this.refresh(this.queue.fitting.includes(this.current) ? this.current : null);
  }

  // Show a finding, or the first of the queue; and what is left.
  refresh(wanted) {
    const { fitting } = this.queue;
    this.current = wanted ?? this.queue.first;
    const entry = this.entry;
    find("#r-desk").hidden = !entry;
    find("#r-empty").hidden = Boolean(entry);
    find("#r-bulk").disabled = !fitting.length;
    find("#r-number").textContent = `${fitting.length.toLocaleString("en")} shown`;
    if (entry) {
      const place = fitting.indexOf(this.current), decision = this.decisions.get(entry.key);
      this.view.show(this.current, place, fitting.length, entry.p === undefined ? null : this.queue.chances[this.current], decision);
      find("#r-remark").value = decision?.note ?? "";
      this.view.prepare([this.current, ...this.queue.around(this.current, AHEAD)]);
    }
    this.stopChoosing();
    this.progress();
  }

  progress() {
    const { decided, left, errorsLeft, low, high, advice } = this.queue.progress();
    find("#r-progress").value = decided;
    find("#r-progress-text").textContent = `${decided.toLocaleString("en")} of ${(decided + left).toLocaleString("en")} decided`;
    find("#r-estimate").textContent = `about ${counted(Math.round(errorsLeft), "error")} left (${Math.floor(low).toLocaleString("en")} to ${Math.ceil(high).toLocaleString("en")})`;
    find("#r-advice").hidden = !advice;
    find("#r-advice").textContent = advice ?? "";
    find("#r-empty").textContent = left ? "No finding matches." : "Every finding is decided. Download the decisions and hand them to dataaudit fix.";
    const count = this.decisions.count;
    find("#r-save").disabled = !count;
    find("#r-save").textContent = count && this.decisions.unsaved ? `Download ${counted(count, "decision")}` : "Download decisions";
    find("#r-undo").disabled = !count;
    find("#r-who").replaceChildren(...(this.decisions.reviewer ? ["as ", nameNode(this.decisions.reviewer)] : ["no name"]));
  }

  say(text) {
    find("#r-said").textContent = text;
  }

  tell(text) {
    find("#r-note").hidden = !text;
    find("#r-note").textContent = text;
  }

  open() {
    if (this.decisions.reviewer === null) this.ask();
  }

  ask() {
    find("#r-reviewer").value = this.decisions.reviewer ?? "";
    find("#r-ask").showModal();
  }

  named() {
    this.decisions.setReviewer(find("#r-reviewer").value.trim());
    this.progress();
  }

  // Another class: a list that follows what is typed.
  choose() {
    if (!this.entry?.named) return;
    find("#r-choose").hidden = false;
    find("#r-name").value = "";
    this.list();
    find("#r-name").focus();
  }

  stopChoosing() {
    if (find("#r-choose").hidden) return;
    find("#r-choose").hidden = true;
    // At once, or the next key is still typed into it
    find("#r-name").blur();
  }

  list() {
    this.listed = this.view.names(this.entry, find("#r-name").value);
    this.mark(0);
  }

  mark(at) {
    this.marked = at;
    find("#r-names").replaceChildren(...this.listed.map((name, number) => {
      const option = make("li", { id: `r-name-${number}`, role: "option" }, nameNode(name));
      option.setAttribute("aria-selected", number === at);
      return option;
    }));
    if (this.listed.length) find("#r-name").setAttribute("aria-activedescendant", `r-name-${at}`);
    else {
      find("#r-name").removeAttribute("aria-activedescendant");
      find("#r-names").append(make("li", { className: "dim", textContent: "No such class." }));
    }
  }

  chooseKey(event) {
    const n = this.listed.length;
    if (event.key === "Enter") this.nameIt(this.listed[this.marked]);
    else if (event.key === "Escape") this.stopChoosing();
    else if (event.key === "ArrowDown" && n) this.mark((this.marked + 1) % n);
    else if (event.key === "ArrowUp" && n) this.mark((this.marked + n - 1) % n);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  askBulk() {
    const wanted = this.queue.acceptable(), left = this.queue.fitting.length - wanted.length;
    const right = wanted.length ? this.queue.precision(wanted) : 0;
    const words = [`${counted(wanted.length, "proposal")} will be accepted.`];
    if (wanted.length) words.push(`About ${Math.round(right * wanted.length).toLocaleString("en")} of them (${percentOf(right)}) are expected to be errors.`);
    if (left) words.push(`${counted(left, "finding")} that ${left === 1 ? "is" : "are"} decided, skipped or without a proposal ${left === 1 ? "stays" : "stay"} as ${left === 1 ? "it is" : "they are"}.`);
    find("#r-sure-text").textContent = words.join(" ");
    find("#r-sure .primary").disabled = !wanted.length;
    find("#r-sure").showModal();
  }

  bulk(answer) {
    if (answer !== "yes") return;
    const findings = [...new Set(this.queue.acceptable().flatMap((at) => this.queue.same(this.data.entries[at])))];
    this.decisions.decide(findings, "accept");
    this.goOn(BLOCK, null, `Accepted: ${counted(findings.length, "finding")}.`);
  }

  save() {
    const blob = new Blob([this.decisions.toText()], { type: "application/jsonl" });
    const name = this.data.name.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[-.]+/, "") || "dataset";
    const link = make("a", { href: URL.createObjectURL(blob), download: `decisions-${name}.jsonl` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    this.decisions.changed(false);
    this.say(`Downloaded: ${counted(this.decisions.count, "decision")}.`);
    this.progress();
  }

  async load() {
    const [file] = find("#r-file").files;
    find("#r-file").value = "";
    if (!file) return;
    try {
      const { fresh, unknown } = this.decisions.load(await file.text(), this.queue.keys);
      this.tell(`${counted(fresh, "decision")} taken over.${unknown ? ` ${counted(unknown, "decision")} left out: about findings that this page doesn't have.` : ""}`);
      this.queue.judgeAnew();
      this.refresh(null);
    } catch (error) {
      this.tell(error.message);
    }
  }
}

let review = null;

function toggleReview() {
  const open = location.hash === "#review";
  find("#r-review").hidden = !open;
  document.body.classList.toggle("reviewing", open);
  if (!open) return;
  const begin = () => {
    review ??= new Review();
    review.open();
  };
  // The findings and pictures stand at the end of the page
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin, { once: true });
  else begin();
}

if (find("#r-review")) {
  window.addEventListener("hashchange", toggleReview);
  toggleReview();
}
