// Decisions, kept in the browser one finding an item, so that neither a crash nor a second tab loses any.

const DECISION = ["finding", "verdict", "label", "box", "reviewer", "note", "at"];
const VERDICTS = ["accept", "keep", "other", "skip"];

// The browser's storage, or null where it is refused, as in some private windows and for some local files.
function usableStorage() {
  try {
    localStorage.setItem("dataaudit", "1");
    localStorage.removeItem("dataaudit");
    return localStorage;
  } catch {
    return null;
  }
}

class Decisions {
  // `place` names the dataset and the audit; two audits never share decisions.
  constructor(place, storage) {
    this.prefix = `dataaudit/${place}/`;
    this.storage = storage;
    this.reviewer = null;
    this.unsaved = false;
    this.step = 0;
    this.stacks = new Map(); // finding -> [[step, decision, place in the step], ...], the last one counts
    if (storage) this.read();
  }

  read() {
    for (let at = 0; at < this.storage.length; at++) {
      const name = this.storage.key(at);
      if (name.startsWith(this.prefix)) this.readItem(name.slice(this.prefix.length), this.storage.getItem(name));
    }
    this.reviewer = this.storage.getItem("dataaudit/reviewer");
  }

  readItem(name, text) {
    if (name === "#unsaved") {
      this.unsaved = text !== null;
      return;
    }
    let stack = [];
    try {
      stack = JSON.parse(text) ?? [];
    } catch {
      // Not of this page
    }
    if (stack.length) this.stacks.set(name, stack);
    else this.stacks.delete(name);
    for (const [step] of stack) this.step = Math.max(this.step, step);
  }

  // Whether an item of the storage, changed by another tab, is one of these decisions.
  readFromOther(name, text) {
    if (name === null || !name.startsWith(this.prefix)) return false;
    this.readItem(name.slice(this.prefix.length), text);
    return true;
  }

  keep(name, text) {
    if (!this.storage) return;
    try {
      if (text === null) this.storage.removeItem(this.prefix + name);
      else this.storage.setItem(this.prefix + name, text);
    } catch {
      this.storage = null; // full, or taken away meanwhile: from now on the download is what counts
    }
  }

  keepStack(finding) {
    const stack = this.stacks.get(finding);
    this.keep(finding, stack ? JSON.stringify(stack) : null);
  }

  changed(unsaved) {
    if (this.unsaved !== unsaved) this.keep("#unsaved", unsaved ? "1" : null);
    this.unsaved = unsaved;
  }

  setReviewer(name) {
    this.reviewer = name; // empty: asked, and not said
    if (!this.storage) return;
    try {
      this.storage.setItem("dataaudit/reviewer", name);
    } catch {
      this.storage = null;
    }
  }

  get(finding) {
    return this.stacks.get(finding)?.at(-1)[1] ?? null;
  }

  // Whether the last decision on a finding was made before that on another: negative if so.
  compare(one, other) {
    const [step, , place] = this.stacks.get(one)?.at(-1) ?? [0, null, 0];
    const [otherStep, , otherPlace] = this.stacks.get(other)?.at(-1) ?? [0, null, 0];
    return step - otherStep || place - otherPlace;
  }

  get count() {
    return this.stacks.size;
  }

  // Decisions that one `undo` takes back together.
  add(decisions) {
    this.step += 1;
    decisions.forEach((decision, place) => {
      const stack = this.stacks.get(decision.finding) ?? [];
      stack.push([this.step, decision, place]);
      this.stacks.set(decision.finding, stack);
      this.keepStack(decision.finding);
    });
    if (decisions.length) this.changed(true);
  }

  // The same verdict on several findings.
  decide(findings, verdict, label = null, note = null) {
    const at = new Date().toISOString().replace("Z", "+00:00");
    this.add(findings.map((finding) => ({ finding, verdict, label, box: null, reviewer: this.reviewer || null, note, at })));
  }

  // Take back the last step; returns its findings, none where there is nothing left.
  undo() {
    let last = 0;
    for (const stack of this.stacks.values()) last = Math.max(last, stack.at(-1)[0]);
    const found = [...this.stacks.keys()].filter((finding) => this.stacks.get(finding).at(-1)[0] === last);
    found.sort((one, other) => this.compare(one, other));
    for (const finding of found) {
      const stack = this.stacks.get(finding);
      stack.pop();
      if (!stack.length) this.stacks.delete(finding);
      this.keepStack(finding);
    }
    if (found.length) this.changed(true);
    return found;
  }

  // The decisions that count, in the order in which they were given.
  inOrder() {
    return [...this.stacks.keys()].sort((one, other) => this.compare(one, other)).map((finding) => this.get(finding));
  }

  toText() {
    return this.inOrder().map((decision) => JSON.stringify(decision, DECISION) + "\n").join("");
  }

  // Take over a file of decisions; returns how many were new and how many are about none of the findings.
  load(text, findings) {
    const fresh = [];
    let unknown = 0;
    for (const row of decisionsOf(text)) {
      if (!findings.has(row.finding)) {
        unknown += 1;
        continue;
      }
      const mine = this.get(row.finding);
      const same = mine && DECISION.every((name) => (mine[name] ?? null) === row[name]);
      if (!same && !(mine && row.at && mine.at > row.at)) fresh.push(row);
    }
    this.add(fresh);
    return { fresh: fresh.length, unknown };
  }
}

// Rows of a decisions file as the page or the command line writes it. Throws an Error with a sentence for people.
function decisionsOf(text) {
  const rows = [];
  text.replace(/^\ufeff/, "").split("\n").forEach((line, at) => {
    if (!line.trim()) return;
    let row;
    try {
      row = JSON.parse(line);
    } catch {
      throw new Error(`Line ${at + 1} is not JSON. Expected a decisions file of this page, one JSON object a line.`);
    }
    if (typeof row?.finding !== "string" || !VERDICTS.includes(row.verdict)) {
      throw new Error(`Line ${at + 1} has no finding, or no verdict that is one of ${VERDICTS.join(", ")}.`);
    }
    rows.push(Object.fromEntries(DECISION.map((name) => [name, row[name] ?? null])));
  });
  return rows;
}
