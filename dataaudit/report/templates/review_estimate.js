// What the verdicts so far say about the findings that are left; `dataaudit/worklist/estimate.py` has the formulas,
// and a test compares the figures of both.

const PRIOR = { intercept: 0.5, slope: 0.2, bump: 0.4, background: 0.8, check: 0.4, unknown: 1.5, pair: 0.5 };
const ROUNDS = 12;
const SLIPS = 0.02;
const SIDE = 1.6448536269514722;
const BUMPS = [-9, -6, -3, 0, 3, 6, 9];
const BUMP_WIDTH = 2;
const LEAST = 1e-9;
const sigmoid = (odds) => 1 / (1 + Math.exp(-odds));
const within = (value, low, high) => Math.min(Math.max(value, low), high);

// An item as the model sees it: its log-odds, what multiplies the shared coefficients, its check, its pair of classes.
function itemOf(chance, check, pair, count, below) {
  const inside = within(chance ?? 0.5, LEAST, 1 - LEAST), odds = Math.log(inside / (1 - inside));
  const cut = within(odds, BUMPS[0], BUMPS.at(-1));
  const shared = [1, cut, ...BUMPS.map((middle) => Math.exp(-((cut - middle) ** 2) / (2 * BUMP_WIDTH ** 2))), below ? 1 : 0];
  return { odds, shared: chance === null ? shared.map(() => 0) : shared, check, pair, count };
}

// How a verdict pulls at the log-odds of its finding, and how much it says of them.
function pullOf(chance, truth) {
  const slope = (1 - 2 * SLIPS) * chance * (1 - chance), said = SLIPS + (1 - 2 * SLIPS) * chance;
  return { pull: (slope * (truth - said)) / (said * (1 - said)), known: slope ** 2 / (said * (1 - said)) };
}

class Estimator {
  constructor(entries, background) {
    const codes = [...new Set([...entries.map((entry) => entry.code), ...Object.keys(background)])].sort();
    const number = new Map(codes.map((code, at) => [code, at]));
    this.n = entries.length;
    this.nPairs = new Set(entries.map((entry) => entry.kind)).size + 1; // the last one is that of the background
    this.items = entries.map((entry) => itemOf(entry.p ?? null, number.get(entry.code), entry.kind, 1, false));
    for (const [code, known] of Object.entries(background)) {
      for (const [p, n] of known) this.items.push(itemOf(p, number.get(code), this.nPairs - 1, n, true));
    }
    const stated = new Set([...Object.keys(background), ...entries.filter((entry) => entry.p !== undefined).map((entry) => entry.code)]);
    this.precision = [
      PRIOR.intercept, PRIOR.slope, ...BUMPS.map(() => PRIOR.bump), PRIOR.background,
      ...codes.map((code) => (stated.has(code) ? PRIOR.check : PRIOR.unknown)),
    ].map((deviation) => deviation ** -2);
    this.update(new Map());
  }

  // Take in verdicts in place of those before: position of a finding to whether it is an error.
  update(verdicts) {
    const known = [...verdicts].map(([at, error]) => [this.items[at], Number(error)]), ofPair = PRIOR.pair ** -2;
    let weights = this.precision.map(() => 0), effects = new Array(this.nPairs).fill(0);
    let hessian = diagonal(this.precision), ofPairs = effects.map(() => ofPair);
    for (let round = 0; known.length && round < ROUNDS; round++) {
      hessian = diagonal(this.precision);
      const slope = weights.map((weight, at) => -weight * this.precision[at]);
      for (const [item, truth] of known) {
        const said = pullOf(chanceOf(item, weights, effects), truth);
        addRow(hessian, slope, item, said.known, said.pull);
      }
      mirror(hessian);
      const step = times(inverse(hessian), slope), longest = Math.max(1, ...step.map(Math.abs));
      weights = weights.map((weight, at) => weight + step[at] / longest);
      ofPairs = effects.map(() => ofPair);
      const slopes = effects.map((effect) => -effect * ofPair);
      for (const [item, truth] of known) {
        const said = pullOf(chanceOf(item, weights, effects), truth);
        ofPairs[item.pair] += said.known;
        slopes[item.pair] += said.pull;
      }
      effects = effects.map((effect, at) => effect + within(slopes[at] / ofPairs[at], -1, 1));
    }
    Object.assign(this, { weights, effects, ofPairs, covariance: inverse(hessian) });
    this.every = this.items.map((item) => chanceOf(item, weights, effects));
    this.chance = this.every.slice(0, this.n);
  }

  // How many errors are left among the findings that aren't decided, and with what no finding is about.
  left(decided) {
    const findings = this.items.map((_, at) => (at < this.n && !decided(at) ? 1 : 0));
    const all = this.items.map((item, at) => (at < this.n ? findings[at] : item.count));
    return [this.estimate(findings), this.estimate(all)];
  }

  estimate(counts) {
    const n = counts.reduce((sum, count) => sum + count, 0), errors = dot(counts, this.every);
    if (errors <= 0) return { n, errors: 0, low: 0, high: 0 };
    const gradient = this.precision.map(() => 0), pairs = new Array(this.nPairs).fill(0);
    let byItem = 0;
    this.items.forEach(({ shared, check, pair }, at) => {
      const spread = counts[at] * this.every[at] * (1 - this.every[at]);
      if (!spread) return;
      byItem += spread;
      pairs[pair] += spread;
      shared.forEach((value, place) => { gradient[place] += spread * value; });
      gradient[shared.length + check] += spread;
    });
    for (let pair = 0; pair < this.nPairs - 1; pair++) byItem += pairs[pair] ** 2 / this.ofPairs[pair];
    const turned = times(this.covariance, gradient), along = SIDE / Math.sqrt(Math.max(dot(gradient, turned), 1e-300));
    const width = Math.sqrt(Math.log1p(byItem / errors ** 2));
    const [low, high] = [-1, 1].map((side) => {
      const moved = this.weights.map((weight, at) => weight + side * along * turned[at]);
      const together = this.items.reduce((sum, item, at) => (counts[at] ? sum + counts[at] * chanceOf(item, moved, this.effects) : sum), -errors);
      const alone = errors * Math.exp((-width * width) / 2 + side * SIDE * width) - errors;
      return errors + side * Math.hypot(together, alone);
    });
    return { n, errors, low: Math.max(low, 0), high: Math.min(high, n) };
  }
}

function chanceOf({ odds, shared, check, pair }, weights, effects) {
  let sum = odds + weights[shared.length + check] + effects[pair];
  for (let at = 0; at < shared.length; at++) sum += shared[at] * weights[at];
  return sigmoid(sum);
}

const diagonal = (values) => values.map((value, at) => Float64Array.from(values, (_, other) => (at === other ? value : 0)));
const dot = (one, other) => one.reduce((sum, value, at) => sum + value * other[at], 0);
const times = (matrix, vector) => matrix.map((row) => dot([...row], vector));

// Upper half of the Hessian, and the slope, with one more item.
function addRow(hessian, slope, { shared, check }, weight, pull) {
  const n = shared.length, own = n + check;
  for (let at = 0; at < n; at++) {
    const scaled = weight * shared[at], row = hessian[at];
    for (let other = at; other < n; other++) row[other] += scaled * shared[other];
    row[own] += scaled;
    slope[at] += pull * shared[at];
  }
  hessian[own][own] += weight;
  slope[own] += pull;
}

function mirror(matrix) {
  for (let at = 0; at < matrix.length; at++) for (let other = 0; other < at; other++) matrix[at][other] = matrix[other][at];
}

// Gauss and Jordan; the matrix is positive definite, so no pivot is zero.
function inverse(matrix) {
  const n = matrix.length, left = matrix.map((row) => Float64Array.from(row)), right = diagonal(new Array(n).fill(1));
  for (let at = 0; at < n; at++) {
    const pivot = left[at][at];
    for (let column = 0; column < n; column++) {
      left[at][column] /= pivot;
      right[at][column] /= pivot;
    }
    for (let row = 0; row < n; row++) {
      const factor = left[row][at];
      if (row === at || factor === 0) continue;
      for (let column = 0; column < n; column++) {
        left[row][column] -= factor * left[at][column];
        right[row][column] -= factor * right[at][column];
      }
    }
  }
  return right;
}
