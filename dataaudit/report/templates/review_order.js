// The order in which findings come, and when stopping costs little: as `dataaudit/worklist/order.py` and `advice.py`.

const LONGEST_RUN = 3;
const NEARLY = 0.05;
const WINDOW = 12;
const BLOCK = 20; // after how many verdicts the rest is judged and ordered anew
const FEW = 0.1;
const rounded = (chance) => Math.round(chance * 1e9) / 1e9; // the last digits of equal chances differ

// Chances, of findings that one verdict answers together the largest.
function together(chances, entries) {
  const most = new Map();
  entries.forEach((entry, at) => most.set(entry.same, Math.max(chances[at], most.get(entry.same) ?? 0)));
  return entries.map((entry) => most.get(entry.same));
}

// Positions in the order of falling chance: those of one place together, no long runs of one kind.
function arranged(chances, entries) {
  const gains = chances.map(rounded);
  const members = new Map();
  const best = (one, other) => gains[other] - gains[one] || entries[one].score - entries[other].score || one - other;
  for (const at of entries.map((_, number) => number).sort(best)) {
    const { place } = entries[at];
    if (members.has(place)) members.get(place).push(at);
    else members.set(place, [at]);
  }
  const units = [...members.values()].map((unit, number) => ({
    unit, number, mean: rounded(unit.reduce((sum, at) => sum + gains[at], 0) / unit.length),
  }));
  units.sort((a, b) => b.mean - a.mean || entries[a.unit[0]].score - entries[b.unit[0]].score || a.number - b.number);
  return mixed(units, entries);
}

function mixed(units, entries) {
  const kind = ({ unit }) => entries[unit[0]].kind;
  const waiting = units.slice(0, WINDOW), found = [];
  let taken = waiting.length, last = null, run = 0;
  while (waiting.length) {
    let at = 0;
    if (run >= LONGEST_RUN && kind(waiting[0]) === last) {
      const least = waiting[0].mean - NEARLY;
      at = Math.max(waiting.findIndex((unit) => kind(unit) !== last && unit.mean >= least), 0);
    }
    const [next] = waiting.splice(at, 1);
    if (taken < units.length) waiting.push(units[taken++]);
    run = kind(next) === last ? run + next.unit.length : next.unit.length;
    last = kind(next);
    found.push(...next.unit);
  }
  return found;
}

// A sentence when stopping costs little or nothing is left to look at, or null.
function adviceOf(ahead, queue, everything, confirmed) {
  if (!ahead.length) {
    const found = `Every finding is decided, ${confirmed.toLocaleString("en")} of them errors.`;
    return everything.errors >= 0.5 ? `${found} ${aboutErrors(everything)} left where nothing was found, as far as known.` : found;
  }
  if (ahead.reduce((sum, chance) => sum + chance, 0) / ahead.length >= FEW) return null;
  const looks = queue.n / Math.max(queue.errors, 1e-9);
  const cost = looks < queue.n ? `: ${Math.round(looks).toLocaleString("en")} looks an error` : "";
  return `${aboutErrors(queue)} left in ${counted(queue.n, "finding")}${cost}.`;
}

function aboutErrors({ errors, low, high }) {
  const rounded = Math.round(errors);
  return `About ${counted(rounded, "error")} (${Math.floor(low).toLocaleString("en")} to ${Math.ceil(high).toLocaleString("en")}) ${rounded === 1 ? "is" : "are"}`;
}
