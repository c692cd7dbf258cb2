// Pictures of the review: taken out of the page's blocks when they are needed, a few ahead.

const SVG = "http://www.w3.org/2000/svg";
const TINY = 96;
const UNSEEN = /[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]/gu;

// Text with what would turn the line or break it written as an escape, as in the rest of the report.
function shown(text) {
  return text.replace(UNSEEN, (one) => {
    const number = one.codePointAt(0);
    return number < 256 ? `\\x${number.toString(16).padStart(2, "0")}` : `\\u${number.toString(16).padStart(4, "0")}`;
  });
}

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}

// A name, of whatever direction, that leaves the direction of the text around it alone.
function nameNode(text, properties = {}) {
  return make("bdi", { textContent: shown(text), ...properties });
}

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

class Pictures {
  constructor(blocks, size) {
    this.blocks = blocks;
    this.size = size;
    this.lines = new Map();
  }

  address(number) {
    const at = Math.floor(number / this.size);
    if (!this.lines.has(at)) this.lines.set(at, this.blocks[at].textContent.split("\n"));
    return `data:image/jpeg;base64,${this.lines.get(at)[number % this.size]}`;
  }

  // An element for a picture of an entry: the image alone, or an SVG in pixels of the image with its boxes.
  node(picture, alt, boxes) {
    const [width, height] = picture.size;
    const tiny = Math.max(width, height) <= TINY;
    if (!picture.view) {
      const image = make("img", { src: this.address(picture.at), alt, width, height, className: tiny ? "tiny" : "" });
      image.style.setProperty("--w", width);
      image.style.setProperty("--h", height);
      return { node: image, ready: image.decode().catch(() => {}) };
    }
    const [x1, y1, x2, y2] = picture.part;
    const image = draw("image", {
      x: x1, y: y1, width: x2 - x1, height: y2 - y1, preserveAspectRatio: "none", href: this.address(picture.at),
    });
    if (tiny) image.classList.add("tiny");
    const svg = draw("svg", { viewBox: picture.view.join(" "), role: "img", "aria-label": alt, class: "drawn" }, image);
    svg.append(...marksOf(boxes, Math.max(picture.view[2], picture.view[3])));
    const warm = make("img", { src: this.address(picture.at) });
    return { node: svg, ready: warm.decode().catch(() => {}) };
  }

  thumbnail(image) {
    if (image.thumb === undefined) return make("span", { className: "missing", textContent: "no preview" });
    return make("img", { src: this.address(image.thumb), alt: "", decoding: "async", className: "thumb" });
  }
}

// Boxes as rectangles: others thin, then the given and the proposed one over a dark line.
function marksOf(boxes, extent) {
  const least = 0.004 * extent;
  const place = ([x1, y1, x2, y2]) => ({
    x: Math.min(x1, x2), y: Math.min(y1, y2),
    width: Math.max(Math.abs(x2 - x1), least), height: Math.max(Math.abs(y2 - y1), least),
  });
  const title = (text) => {
    const node = draw("title", {});
    node.textContent = shown(text);
    return node;
  };
  return boxes.flatMap(({ kind, box, name }) => [
    draw("rect", { ...place(box), class: kind === "other" ? "shade" : "halo" }),
    draw("rect", { ...place(box), class: kind }, title(name)),
  ]);
}
