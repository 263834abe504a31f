// @ts-check
// Files for the browser to save.

/** How long a file offered for download is kept for the browser to read. */
const KEEP_FILE_MS = 10_000;
/** Room above and around the charts of a picture, in device pixels for each CSS pixel. */
const HEAD_PX = 44;
const MARGIN_PX = 12;

/**
 * @param {Blob} blob
 * @param {string} name
 */
export function offer(blob, name) {
  const url = URL.createObjectURL(blob);
  const file = document.createElement('a');
  file.href = url;
  file.download = name;
  file.click();
  // Some browsers read it only after the click.
  setTimeout(() => URL.revokeObjectURL(url), KEEP_FILE_MS);
}

/**
 * Charts one below the other as a picture, under a title and with the time that they show.
 * @param {HTMLCanvasElement[]} charts
 * @param {string} title
 * @param {string} span
 * @param {string} name of the file
 */
export async function savePicture(charts, title, span, name) {
  const ratio = window.devicePixelRatio || 1;
  const margin = MARGIN_PX * ratio;
  const head = HEAD_PX * ratio;
  const style = getComputedStyle(document.body);
  const width = Math.max(...charts.map((chart) => chart.width)) + 2 * margin;
  const height = charts.reduce((sum, chart) => sum + chart.height + margin, head);
  const canvas = new OffscreenCanvas(width, height);
  const g = canvas.getContext('2d');
  if (!g) throw new Error('this browser draws no pictures');
  g.fillStyle = style.backgroundColor;
  g.fillRect(0, 0, width, height);
  g.fillStyle = style.color;
  g.textBaseline = 'middle';
  g.font = `600 ${15 * ratio}px ${style.fontFamily}`;
  g.fillText(title, margin, head / 2);
  g.font = `${12 * ratio}px ${style.fontFamily}`;
  g.textAlign = 'right';
  g.fillText(span, width - margin, head / 2);
  let top = head;
  for (const chart of charts) {
    g.drawImage(chart, margin, top);
    top += chart.height + margin;
  }
  offer(await canvas.convertToBlob({ type: 'image/png' }), name);
}
