// Runs in the page: holds the scripts against plain models of themselves, on random data of a fixed seed.
// Calls back with what failed, and with what drawing an hour of two leads at 360 Hz costs.

const done = arguments[arguments.length - 1];

/** A small generator of the same numbers every time (mulberry32). */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const failures = [];
const check = (what, is) => {
  if (!is) failures.push(what);
};

/** Samples joined in any order, repeated and replaced, are a map by time; columns are their minima and maxima. */
function joins({ Series, Columns }, seed) {
  const next = random(seed);
  const series = new Series(100);
  const columns = new Columns(series, 0, 37.5);
  const model = new Map();
  for (let round = 0; round < 60; round += 1) {
    const times = [];
    const flat = [];
    const start = next() < 0.7 ? round * 200 : Math.floor(next() * round * 200);
    for (let i = 0; i < 1 + next() * 40; i += 1) {
      const ts = start + Math.floor(next() * 300) * 10;
      const value = next() < 0.05 ? NaN : Math.fround(next() * 10);
      times.push(ts);
      flat.push(value);
      model.set(ts, value);
    }
    series.join(times, flat, 1);
    if (next() < 0.6) columns.sync();
  }
  const due = [...model].sort(([a], [b]) => a - b);
  const same = (a, b) => a === b || (Number.isNaN(a) && Number.isNaN(b));
  check(`seed ${seed}: length`, series.length === due.length);
  check(`seed ${seed}: samples`, due.every(([ts, v], i) => series.times[i] === ts && same(series.columns[0][i], v)));

  columns.sync();
  const buckets = [];
  let before = -Infinity;
  for (const [ts, value] of due) {
    if (Number.isNaN(value)) continue;
    const slot = Math.floor(ts / 37.5);
    const last = buckets.at(-1);
    if (last?.slot === slot) {
      last.min = Math.min(last.min, value);
      last.max = Math.max(last.max, value);
      last.last = value;
    } else {
      buckets.push({ slot, min: value, max: value, first: value, last: value, gap: ts - before > series.gap ? 1 : 0 });
    }
    before = ts;
  }
  check(`seed ${seed}: columns`, columns.length === buckets.length);
  for (const name of ['slot', 'min', 'max', 'first', 'last', 'gap']) {
    check(`seed ${seed}: ${name}`, buckets.every((bucket, i) => columns[name][i] === bucket[name]));
  }
}

/** A gap is longer than three intervals and than a second; no clock error is seen in what is merely late. */
function gapsAndClocks({ Series }) {
  const fast = new Series(250);
  check('gap at 250 Hz', fast.gap === 1000);
  check('gap at 1/min', new Series(1 / 60).gap === 180_000);
  const learned = new Series(null);
  learned.join([0, 500, 1000, 1500, 9000], [1, 2, 3, 4, 5], 1);
  check('learned interval', learned.interval === 500 && learned.gap === 1500);
  const series = new Series(1);
  const arrive = (now, ts) => {
    const newest = series.newest;
    series.join([ts], [1], 1);
    series.heard(now, newest);
  };
  arrive(1_000_000, 999_900);
  arrive(1_001_000, 1_000_900);
  check('a good clock', series.skew === 0);
  arrive(1_060_000, 1_001_900);
  check('one late sample', series.skew === 0);
  const old = new Series(1);
  old.join([5000], [1], 1);
  old.heard(1_000_000, NaN);
  old.join([6000], [1], 1);
  old.heard(1_001_000, 5000);
  old.join([7000], [1], 1);
  old.heard(1_002_000, 6000);
  check('a clock far behind is followed', old.skew === 995_000);
}

function states({ freshness }) {
  const facts = { now: 100_000, newest: 99_500, arrived: 99_600, skew: 0, interval: 1000, online: true };
  check('live', freshness(facts) === 'live');
  check('delayed', freshness({ ...facts, newest: 90_000 }) === 'delayed');
  check('stale', freshness({ ...facts, newest: 90_000, arrived: 90_100 }) === 'stale');
  check('stale, gone', freshness({ ...facts, newest: 90_000, arrived: 90_100, online: false }) === 'stale');
  check('offline', freshness({ ...facts, newest: 60_000, arrived: 60_100, online: false }) === 'offline');
  check('nothing yet', freshness({ ...facts, newest: NaN, arrived: NaN, online: false }) === 'offline');
}

function texts({ Decimals, age, bytes, number, unitText, whole }) {
  check('bytes', [0, 1023, 1536, 200 * 2 ** 20, 1.5 * 2 ** 30].map(bytes).join() === '0 B,1023 B,1.5 KiB,200 MiB,1.5 GiB');
  check('whole', [0, 12.4, 999.6, 1234567].map(whole).join() === '0,12,1\u202f000,1\u202f234\u202f567');
  const shown = (values) => {
    const decimals = new Decimals();
    return values.map((value) => decimals.text(Math.fround(value))).join(' ');
  };
  check('integers', shown([72, 71]) === '72 71');
  check('tenths', shown([36.6, 37]) === '36.6 37.0');
  check('small', shown([-0.145]) === '−0.145');
  check('missing', shown([NaN]) === '–');
  check('ages', ['now', '2 s ago', '3 min ago', '2 h ago', '3 days ago'].join() ===
    [900, 2000, 180_000, 7_200_000, 260_000_000].map((ms) => age(ms)).join());
  check('trimmed', number(1.5) === '1.5' && number(100) === '100' && number(-0.0001) === '0');
  check('units', unitText('Cel') === '°C' && unitText('rpm') === 'rpm');
}

/** Which node a page turns to: all that are alive before any other, each once in a round, those that a node names first. */
function ways(nodes) {
  const told = (node, state = 'alive') => ({ node, http: `http://${node}.example`, state });
  nodes.begin([{ node: 'a', http: 'http://known-to-others-as-a.example' }, told('b'), told('c')]);
  check('the page is on the node that served it', nodes.at().node === 'a' && nodes.at().base === location.origin);
  nodes.learn('a', [told('a'), told('b'), told('c'), told('d', 'down'), told('e', 'suspect')]);
  let moves = 0;
  nodes.moves.addEventListener('move', () => (moves += 1));
  const first = [nodes.leave().node, nodes.leave().node].sort();
  check('those alive first', first.join() === 'b,c');
  check('then the one that was left', nodes.leave().base === location.origin && nodes.at().node === 'a');
  check('each move is told', moves === 3);
  nodes.prefer(['ws://c.example/api/v1/live', 'ws://new.example/api/v1/live']);
  check('where a node sends', nodes.leave().node === 'c' && nodes.url('/x') === 'http://c.example/x');
  check('also to one that nobody named', nodes.leave().base === 'http://new.example' && nodes.at().node === '');
  nodes.learn('n', [told('n'), told('b', 'down'), told('c')]);
  check('a node says its name', nodes.at().node === 'n' && nodes.isNode('http://new.example'));
  check('its view counts from then on', nodes.leave().node === 'c');
  nodes.learn('c', [told('c')]);
  const round = Array.from({ length: 6 }, () => nodes.leave().base);
  check('alone it tries itself, then whoever it ever knew', round[0] === 'http://c.example' && new Set(round).size > 3);
  check('a stranger is no node', !nodes.isNode('http://evil.example'));
}

/** What a line would cross a gap is not drawn: the pixels between two runs stay clear. */
async function gapStaysClear({ Series, Strip, View }) {
  const series = new Series(10);
  const times = [];
  for (let i = 0; i < 40; i += 1) times.push(1_000_000 + i * 100);
  for (let i = 0; i < 40; i += 1) times.push(1_006_000 + i * 100);
  series.join(times, times.map(() => 5), 1);
  const { canvas, draw } = chart({ Series, Strip, View }, series, 10_000, 1_010_000);
  await draw(1);
  const plot = canvas.width - 48;
  const inked = (ts) => {
    const x = Math.round(48 + ((ts - 1_000_000) / 10_000) * plot);
    const { data } = canvas.getContext('2d').getImageData(x - 2, 8, 5, canvas.height - 36);
    // The line alone is opaque and coloured; the grid is grey.
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] > 200 && Math.abs(data[i] - data[i + 1]) > 60) return true;
    }
    return false;
  };
  check('a line where samples are', inked(1_002_050) && inked(1_007_050));
  check('no line across a gap', !inked(1_005_000));
}

function chart({ Series, Strip, View }, series, windowMs, right) {
  const host = document.body.appendChild(document.createElement('div'));
  host.style.cssText = 'width:1000px;height:200px';
  const canvas = host.appendChild(document.createElement('canvas'));
  canvas.style.cssText = 'width:1000px;height:200px;display:block';
  const view = new View(windowMs);
  view.at = right;
  const channels = series.columns.map((_, index) => ({ index, name: '', color: index }));
  const strip = new Strip(host, canvas, { series, history: new Series(null), view, channels, paper: false });
  strip.width = 1000;
  strip.height = 200;
  const draw = async (times) => {
    const start = performance.now();
    for (let i = 0; i < times; i += 1) {
      strip.drawn.version = -1;
      strip.draw(performance.now());
    }
    // Reading a pixel waits for the drawing.
    canvas.getContext('2d').getImageData(0, 0, 1, 1);
    return (performance.now() - start) / times;
  };
  return { canvas, draw };
}

/** An hour of two leads at 360 Hz: the first drawing takes all in, the next cost pixels. */
async function hour({ Series, Strip, View }) {
  const rate = 360;
  const count = rate * 3600;
  const series = new Series(rate);
  const next = random(7);
  for (let from = 0; from < count; from += 4096) {
    const size = Math.min(4096, count - from);
    const times = Float64Array.from({ length: size }, (_, i) => 1e12 + ((from + i) * 1000) / rate);
    series.join(times, Float32Array.from({ length: size * 2 }, next), 2);
  }
  check('an hour is held', series.length === count && series.dropped === 0);
  const { draw } = chart({ Series, Strip, View }, series, 3_600_000, series.newest);
  const first = await draw(1);
  return { first, next: await draw(20) };
}

/** A sweep writes once around its paper with a gap ahead of the pen, and over what it wrote the round before. */
function sweeps({ Series, Sweep, View }) {
  const canvas = document.body.appendChild(document.createElement('canvas'));
  const series = new Series(250);
  const view = new View(10_000);
  const sweep = new Sweep(canvas, { series, view, channels: [{ index: 0, name: '', color: 0 }] });
  sweep.width = 600;
  sweep.height = 150;
  // Six seconds of a line at 0 mV with a peak each second, and six at 1 mV without.
  const level = (i) => (i < 1500 ? (i % 250 === 100 ? 1 : 0) : 1);
  series.join(Float64Array.from({ length: 3000 }, (_, i) => 1_000_000 + i * 4), Float32Array.from({ length: 3000 }, (_, i) => level(i)), 1);
  check('a round takes six seconds', sweep.windowMs === 6000);
  const draw = (from, to) => {
    for (let at = from; at <= to; at += 16) {
      view.at = at;
      // The signal is fitted to its lane once, so that heights can be compared.
      sweep.fitAt = sweep.fitAt === -Infinity ? -Infinity : Infinity;
      sweep.draw(at);
    }
  };
  const heights = (ts) => {
    const x = Math.round((((ts / 6000) % 1) * canvas.width));
    const { data } = canvas.getContext('2d').getImageData(Math.max(0, x - 1), 0, 3, canvas.height);
    const inked = [];
    for (let i = 0; i < data.length; i += 4) if (data[i + 1] - data[i] > 60) inked.push(Math.floor(i / 12));
    return inked;
  };
  draw(1_000_000, 1_005_700);
  const low = heights(1_003_000);
  check('it is written where the pen was', low.length > 0 && heights(1_001_500).length > 0);
  check('a peak is up to its height', Math.min(...heights(1_002_400)) < Math.min(...low) - 30);
  check('nothing is written ahead of the pen', heights(1_005_900).length === 0);
  draw(1_005_716, 1_009_500);
  check('the next round is written over it', Math.max(...heights(1_009_000)) < Math.min(...low) - 30);
  check('the gap goes ahead', heights(1_009_600).length === 0 && heights(1_009_900 - 6000).length > 0);
  // What comes late is drawn too.
  series.join([1_009_002], [-0.5], 1);
  sweep.draw(1_009_600);
  check('a late sample is drawn', Math.max(...heights(1_009_002)) > Math.max(...low) + 10);
  const right = view.right;
  check('a place on it is a moment', Math.abs(sweep.agoAt(sweep.xOf(1234)) - 1234) < 1e-6 && Number.isNaN(sweep.xOf(5990)) && right > 0);
}

/** What a page lets go of keeps its least and greatest values, for an hour. */
function letsGo({ Past, Series, View }) {
  const series = new Series(100);
  const next = random(3);
  const count = 50_000;
  const values = Float32Array.from({ length: count }, () => next() * 10);
  series.join(Float64Array.from({ length: count }, (_, i) => 1_000_000 + i * 10), values, 1);
  let shown = null;
  const past = new Past('s/a', series, new View(5000), { show: (history) => (shown = history) });
  past.absorb(10_000);
  past.absorb(15_050);
  check('the rest is held', series.length === count - 25_050 && series.oldest === 1_000_000 + 250_500);
  const kept = [...shown.columns[0].subarray(0, shown.length)];
  check('few are kept of what went', shown.length <= 2 * 253);
  check('its extremes are kept', Math.max(...kept) === Math.max(...values.subarray(0, 25_050)) && Math.min(...kept) === Math.min(...values.subarray(0, 25_050)));
  check('none is in both', shown.newest < series.oldest + 1000);
  past.close();
}

/** Limits: usual ones by kind, a person's own before them. */
function limits({ beyond, limitsOf, setLimits }) {
  check('usual limits', limitsOf('x/t', 'temperature').high === 27 && limitsOf('x/e', 'ecg').high === null);
  setLimits('x/t', { low: null, high: 5 });
  const own = limitsOf('x/t', 'temperature');
  check('own limits', own.low === null && beyond(6, own) === 'high' && beyond(5, own) === '' && beyond(-99, own) === '');
  check('nothing is beyond nothing', beyond(NaN, own) === '' && beyond(1, { low: 2, high: null }) === 'low');
}

(async () => {
  const modules = await Promise.all(
    ['series', 'state', 'format', 'limits', 'charts/columns', 'charts/past', 'charts/strip', 'charts/sweep', 'charts/view'].map((name) =>
      import(`/assets/js/${name}.js`),
    ),
  );
  const all = Object.assign({}, ...modules);
  for (let seed = 1; seed <= 50; seed += 1) joins(all, seed);
  gapsAndClocks(all);
  states(all);
  texts(all);
  // An instance of its own: the page has moved nowhere.
  ways(await import('/assets/js/nodes.js?of-this-test'));
  await gapStaysClear(all);
  sweeps(all);
  letsGo(all);
  limits(all);
  return { failures, hour: await hour(all) };
})().then(done, (error) => done({ failures: [error.stack] }));
