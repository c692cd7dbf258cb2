// What the verdicts so far say about the findings that are left; `dataaudit/worklist/estimate.py` has the formulas,
// and a test compares the figures of both.

const PRIOR = { intercept: 0.4, bump: 0.4, check: 0.4, unknown: 1.5, pair: 0.5 };
const ROUNDS = 8;
const SIDE = 1.6448536269514722;
const BUMPS = Array.from({ length: 13 }, (_, at) => -9 + 1.5 * at);
const BUMP_WIDTH = 1.5;
const SETTLED = 9.2;
const sigmoid = (odds) => 1 / (1 + Math.exp(-odds));

// Items as the model sees them: of each its log-odds, the intercept and bumps, its check and its pair of classes.
function rowOf(chance, check, pair, count = 1) {
  const known = chance !== null, inside = Math.min(Math.max(known ? chance : 0.5, 1e-9), 1 - 1e-9);
  const odds = Math.log(inside / (1 - inside)), settled = Math.abs(odds) > SETTLED;
  const bumps = [1, ...BUMPS.map((middle) => Math.exp(-((odds - middle) ** 2) / (2 * BUMP_WIDTH ** 2)))];
  return { odds, bumps: known ? bumps : bumps.map(() => 0), check, pair, count, settled };
}

class Estimator {
  constructor(entries, background) {
    const codes = [...new Set([...entries.map((entry) => entry.code), ...Object.keys(background)])].sort();
    const number = new Map(codes.map((code, at) => [code, at]));
    const nKinds = new Set(entries.map((entry) => entry.kind)).size;
    this.findings = entries.map((entry) => rowOf(entry.p ?? null, number.get(entry.code), entry.kind));
    this.nPairs = nKinds + 1;
    this.background = Object.entries(background).flatMap(([code, known]) => known.map(([p, n]) => rowOf(p, number.get(code), nKinds, n)));
    const stated = new Set([...Object.keys(background), ...entries.filter((entry) => entry.p !== undefined).map((entry) => entry.code)]);
    this.nBumps = 1 + BUMPS.length;
    this.precision = [PRIOR.intercept, ...BUMPS.map(() => PRIOR.bump), ...codes.map((code) => (stated.has(code) ? PRIOR.check : PRIOR.unknown))].map((deviation) => deviation ** -2);
    this.update(new Map());
  }

  // Take in verdicts: position of a finding to whether it is an error.
  update(verdicts) {
    const usable = [...verdicts].filter(([at]) => !this.findings[at].settled).map(([at, error]) => [this.findings[at], Number(error)]);
    this.fit(usable);
    this.chance = this.findings.map((row) => this.moved(row));
    this.below = this.background.map((row) => this.moved(row));
  }

  moved(row) {
    return sigmoid(row.settled ? row.odds : row.odds + this.effect(row));
  }

  effect({ bumps, check, pair }) {
    let sum = this.weights[this.nBumps + check] + this.effects[pair];
    for (let at = 0; at < this.nBumps; at++) sum += bumps[at] * this.weights[at];
    return sum;
  }

  fit(usable) {
    const m = this.precision.length, ofPair = PRIOR.pair ** -2;
    this.weights = new Array(m).fill(0);
    this.effects = new Array(this.nPairs).fill(0);
    let hessian = diagonal(this.precision), precisionOfPair = new Array(this.nPairs).fill(ofPair);
    for (let round = 0; usable.length && round < ROUNDS; round++) {
      hessian = diagonal(this.precision);
      const slope = this.weights.map((weight, at) => -weight * this.precision[at]);
      for (const [row, truth] of usable) {
        const chance = sigmoid(row.odds + this.effect(row));
        addRow(hessian, slope, row, this.nBumps, chance * (1 - chance), truth - chance);
      }
      mirror(hessian);
      const step = times(inverse(hessian), slope);
      this.weights = this.weights.map((weight, at) => weight + step[at]);
      precisionOfPair = new Array(this.nPairs).fill(ofPair);
      const slopeOfPair = this.effects.map((effect) => -effect * ofPair);
      for (const [row, truth] of usable) {
        const chance = sigmoid(row.odds + this.effect(row));
        precisionOfPair[row.pair] += chance * (1 - chance);
        slopeOfPair[row.pair] += truth - chance;
      }
      this.effects = this.effects.map((effect, at) => effect + slopeOfPair[at] / precisionOfPair[at]);
    }
    this.covariance = inverse(hessian);
    this.ofPairs = precisionOfPair.map((value) => 1 / value);
  }

  // How many errors are left among the findings that aren't decided, and with what no finding is about.
  left(decided) {
    const queue = this.sums(this.findings, this.chance, (_, at) => (decided(at) ? 0 : 1));
    const rest = this.sums(this.background, this.below, (row) => row.count);
    const both = {
      n: queue.n + rest.n, errors: queue.errors + rest.errors, spread: queue.spread + rest.spread,
      gradient: queue.gradient.map((value, at) => value + rest.gradient[at]), pairs: queue.pairs.map((value, at) => value + rest.pairs[at]),
    };
    return [this.interval(queue), this.interval(both)];
  }

  sums(rows, chances, countOf) {
    const found = { n: 0, errors: 0, spread: 0, gradient: new Array(this.precision.length).fill(0), pairs: new Array(this.nPairs).fill(0) };
    rows.forEach((row, at) => {
      const count = countOf(row, at), chance = chances[at], spread = count * chance * (1 - chance);
      found.n += count;
      found.errors += count * chance;
      found.spread += spread;
      if (row.settled || !spread) return;
      for (let bump = 0; bump < this.nBumps; bump++) found.gradient[bump] += row.bumps[bump] * spread;
      found.gradient[this.nBumps + row.check] += spread;
      found.pairs[row.pair] += spread;
    });
    found.pairs[this.nPairs - 1] = 0;
    return found;
  }

  interval({ n, errors, spread, gradient, pairs }) {
    if (errors <= 0) return { n, errors: 0, low: 0, high: 0 };
    const moved = times(this.covariance, gradient);
    const variance = spread + dot(gradient, moved) + pairs.reduce((sum, value, at) => sum + value * value * this.ofPairs[at], 0);
    const width = Math.sqrt(Math.log1p(variance / errors ** 2));
    const [low, high] = [-SIDE, SIDE].map((side) => Math.min(errors * Math.exp((-width * width) / 2 + side * width), n));
    return { n, errors, low, high };
  }
}

const diagonal = (values) => values.map((value, at) => Float64Array.from(values, (_, other) => (at === other ? value : 0)));
const dot = (one, other) => one.reduce((sum, value, at) => sum + value * other[at], 0);
const times = (matrix, vector) => matrix.map((row) => dot([...row], vector));

// Upper half of the Hessian, and the slope, with one more item.
function addRow(hessian, slope, { bumps, check }, nBumps, weight, error) {
  const own = nBumps + check;
  for (let at = 0; at < nBumps; at++) {
    const scaled = weight * bumps[at], row = hessian[at];
    for (let other = at; other < nBumps; other++) row[other] += scaled * bumps[other];
    row[own] += scaled;
    slope[at] += error * bumps[at];
  }
  hessian[own][own] += weight;
  slope[own] += error;
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
