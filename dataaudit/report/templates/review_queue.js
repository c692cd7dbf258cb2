// A review under way, as `dataaudit.worklist.Session` has it: which finding comes next, and what the verdicts say.

const IS_ERROR = { accept: true, other: true, keep: false };

class Queue {
  constructor(entries, background, decisions) {
    this.entries = entries;
    this.decisions = decisions;
    this.keys = new Map(entries.map((entry, at) => [entry.key, at]));
    this.filter = { code: "", name: "", low: 0, high: 1, words: [], state: "open" };
    this.texts = [];
    this.estimator = new Estimator(entries, background);
    this.twins = new Map();
    for (const entry of entries) this.twins.set(entry.same, [...(this.twins.get(entry.same) ?? []), entry.key]);
    this.since = 0;
    this.judgeAnew();
  }

  get chances() {
    return this.estimator.chance;
  }

  // The verdict on an entry: given here, or recorded before the audit.
  verdict(entry) {
    return this.decisions.get(entry.key)?.verdict ?? entry.decision ?? null;
  }

  // What was skipped comes again, so it is still to be decided.
  isOpen(entry) {
    const verdict = this.verdict(entry);
    return verdict === null || verdict === "skip";
  }

  fits(at) {
    const entry = this.entries[at], { code, name, low, high, words, state } = this.filter;
    if (state !== "all" && this.isOpen(entry) !== (state === "open")) return false;
    if (code && entry.code !== code) return false;
    if (name && entry.given !== name && entry.suggested !== name) return false;
    if ((low > 0 || high < 1) && (this.chances[at] < low || this.chances[at] > high)) return false;
    return words.every((word) => this.text(at).includes(word));
  }

  text(at) {
    const entry = this.entries[at];
    this.texts[at] ??= [
      entry.message, entry.given, entry.suggested, entry.imageName, entry.item, entry.code, entry.split, entry.key,
    ].filter(Boolean).join("\n").toLowerCase();
    return this.texts[at];
  }

  // Positions of the entries that fit in their order, those that were skipped at the end.
  renew() {
    const found = this.order.filter((at) => this.fits(at));
    const late = (at) => this.verdict(this.entries[at]) === "skip";
    const since = (one, other) => this.decisions.compare(this.entries[one].key, this.entries[other].key);
    this.fitting = [...found.filter((at) => !late(at)), ...found.filter(late).sort(since)];
  }

  judgeAnew() {
    this.since = 0;
    const known = this.entries.map((entry, at) => [at, IS_ERROR[this.verdict(entry)]]);
    this.takenIn = new Map(known.filter(([, error]) => error !== undefined));
    this.estimator.update(this.takenIn);
    this.order = arranged(together(this.chances, this.entries), this.entries);
    this.renew();
  }

  // Take in what was just decided; true where everything is judged and ordered anew.
  changed(n) {
    this.since += n;
    if (this.since < BLOCK) {
      this.renew();
      return false;
    }
    this.judgeAnew();
    return true;
  }

  // Findings of which the verdicts were taken back: only what is already taken in changes the order.
  undone(places) {
    this.since = Math.max(this.since - places.length, 0);
    if (places.some((at) => this.takenIn.has(at))) this.judgeAnew();
    else this.renew();
  }

  get first() {
    return this.fitting.find((at) => this.isOpen(this.entries[at])) ?? this.fitting[0] ?? null;
  }

  // The finding to go on with after one in the queue, or the first where it is the last one.
  following(here) {
    const at = this.fitting.indexOf(here);
    if (at < 0) return null;
    if (this.filter.state === "done") return this.fitting[at + 1] ?? null;
    return [...this.fitting.slice(at + 1), ...this.fitting.slice(0, at)].find((one) => this.verdict(this.entries[one]) === null) ?? null;
  }

  step(here, by) {
    const at = this.fitting.indexOf(here);
    return at < 0 ? this.first : this.fitting[Math.min(Math.max(at + by, 0), this.fitting.length - 1)];
  }

  // The next ones and the one before, to get their pictures ready.
  around(here, n) {
    const at = this.fitting.indexOf(here);
    return [...this.fitting.slice(at + 1, at + 1 + n), ...this.fitting.slice(0, 1), ...this.fitting.slice(Math.max(at - 1, 0), Math.max(at, 0))];
  }

  // The findings that propose the same fix of the same label: one verdict answers them all.
  same(entry) {
    return [entry.key, ...this.twins.get(entry.same).filter((key) => key !== entry.key)];
  }

  progress() {
    const { entries } = this, open = entries.map((entry) => this.isOpen(entry));
    const verdicts = entries.map((entry) => this.verdict(entry));
    const confirmed = verdicts.filter((verdict) => IS_ERROR[verdict]).length;
    const [queue, everything] = this.estimator.left((at) => !open[at]);
    const ahead = this.chances.filter((_, at) => open[at]).sort((a, b) => b - a).slice(0, BLOCK);
    const left = open.filter(Boolean).length;
    return {
      decided: entries.length - left, left, confirmed, kept: verdicts.filter((verdict) => verdict === "keep").length,
      errorsLeft: everything.errors, low: everything.low, high: everything.high, advice: adviceOf(ahead, queue, everything, confirmed),
    };
  }

  // Positions of what a bulk accept takes: the undecided ones that are shown and propose something.
  acceptable() {
    return this.fitting.filter((at) => this.entries[at].fix && this.verdict(this.entries[at]) === null);
  }

  precision(several) {
    return several.reduce((sum, at) => sum + this.chances[at], 0) / several.length;
  }
}

// What accepting a finding does, in a few words; null where nothing is proposed.
function proposalOf(entry) {
  const fix = entry.fix;
  if (!fix) return null;
  return {
    relabel: ["Change to ", fix.new],
    rename: ["Rename the class to ", fix.new],
    add: entry.newBox ? ["Add an object: ", fix.new] : ["Add the class ", fix.new],
    remove: entry.box ? ["Remove the object", null] : ["Remove the class ", fix.old],
    move: ["Move the box", null],
    drop: ["Drop the image", null],
    merge: ["Drop it and keep the other image", null],
  }[fix.op];
}

// Whether the image itself is in question, and not what it is said to show.
function isAboutImage(entry) {
  return ["drop", "merge"].includes(entry.fix?.op);
}

// Classes that a person may name instead, most probable first, then the others by name.
function classesFor(entry, classes) {
  const taken = new Set(entry.taken ?? []);
  const likely = (entry.choices ?? []).map(([name]) => name);
  return [...new Set([...likely, ...classes])].filter((name) => !taken.has(name) && name !== entry.given);
}

// The verdict that naming a class is: that of the source is kept, the proposed one accepted.
function verdictOf(entry, name) {
  if (name === entry.given) return { verdict: "keep" };
  if (entry.fix && ["relabel", "add", "rename"].includes(entry.fix.op) && entry.fix.new === name) return { verdict: "accept" };
  return { verdict: "other", label: name };
}
