// What the review shows of one finding.

const AHEAD = 4; // pictures that are decoded before they are needed
const MOST_LISTED = 12;
const percentOf = (share) => (share > 0 && share < 0.01 ? "<1%" : share < 1 && share >= 0.995 ? ">99%" : `${Math.round(100 * share)}%`);
const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

class View {
  constructor(data, pictures, classes) {
    this.data = data;
    this.pictures = pictures;
    this.classes = classes;
    this.ready = new Map();
  }

  // The pictures of an entry as elements, made once and decoded before they are shown.
  prepared(at) {
    if (!this.ready.has(at)) {
      const entry = this.data.entries[at];
      this.ready.set(at, (entry.pictures ?? []).map((picture) => {
        const image = this.data.images[picture.of ?? entry.image];
        return this.pictures.node(picture, shown(image.name), picture.view ? this.boxes(entry) : []);
      }));
    }
    return this.ready.get(at);
  }

  prepare(several) {
    several.forEach((at) => this.prepared(at));
    for (const at of this.ready.keys()) {
      if (this.ready.size <= 4 * AHEAD) break;
      if (!several.includes(at)) this.ready.delete(at);
    }
  }

  boxes(entry) {
    const others = (this.data.images[entry.image].boxes ?? []).filter(([id]) => id !== entry.object);
    return [
      ...others.map(([, name, ...box]) => ({ kind: "other", box, name })),
      ...(entry.box ? [{ kind: "given", box: entry.box, name: `given: ${entry.given ?? "no class"}` }] : []),
      ...(entry.newBox ? [{ kind: "proposed", box: entry.newBox, name: `proposed: ${entry.suggested ?? entry.given ?? "no class"}` }] : []),
    ];
  }

  show(at, place, total, chance, decision) {
    const entry = this.data.entries[at];
    this.stage(at, entry);
    find("#r-of-check").textContent = entry.code;
    find("#r-of-check").className = `code ${entry.code.slice(0, 3)}`;
    find("#r-check").textContent = shown(this.data.codes[entry.code] ?? "");
    find("#r-at").textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${total.toLocaleString("en")}`;
    find("#r-change").replaceChildren(...this.change(entry));
    find("#r-message").textContent = shown(entry.message);
    find("#r-chance").textContent = chance === null ? "" : `${percentOf(chance)} likely an error`;
    find("#r-score").textContent = `score ${entry.score.toFixed(3)}`;
    this.verdict(entry, decision);
    this.buttons(entry);
    this.likely(entry);
    this.near(entry);
    this.path(entry);
  }

  stage(at, entry) {
    const nodes = this.prepared(at).map(({ node }, number) => {
      const other = entry.pictures[number].of;
      const caption = other === undefined ? null : this.caption(this.data.images[other]);
      return make("figure", {}, node, caption);
    });
    if (nodes.length > 1 && entry.pictures[1].of !== undefined) nodes[0].append(this.caption({ labels: entry.given ? [entry.given] : [] }));
    if (!nodes.length) nodes.push(make("p", { className: "missing", textContent: entry.image === undefined ? "This finding is about no single image." : "This image can't be shown." }));
    const stage = find("#r-stage");
    stage.replaceChildren(...nodes);
    stage.classList.toggle("two", nodes.length > 1);
    stage.classList.toggle("pair", nodes.length > 1 && entry.pictures[1].of !== undefined);
  }

  caption(image) {
    const labels = (image.labels ?? []).flatMap((name, at) => (at ? [", ", nameNode(name)] : [nameNode(name)]));
    return make("figcaption", {}, ...(labels.length ? labels : ["unlabeled"]), ...(image.name ? [" ", nameNode(image.name, { className: "dim", dir: "ltr" })] : []));
  }

  change(entry) {
    const op = entry.fix?.op, given = entry.given;
    const old = () => make("del", {}, nameNode(given)), fresh = (name) => make("ins", {}, nameNode(name));
    if (entry.item !== undefined) return [nameNode(entry.item), ...(entry.suggested ? [" → ", fresh(entry.suggested)] : [])];
    if (op === "add" || (entry.newBox && !entry.box)) return ["missing ", fresh(entry.suggested ?? "object")];
    if (op === "remove") return ["extra ", given ? old() : "label"];
    if (op === "move") return [nameNode(given ?? "object"), make("span", { className: "dim", textContent: " another box" })];
    if (op === "drop" || op === "merge") return [op === "drop" ? "to drop: " : "shown twice: ", given ? nameNode(given) : "image"];
    if (entry.suggested && entry.suggested !== given) return [given ? old() : "unlabeled", " → ", fresh(entry.suggested)];
    return [given ? nameNode(given) : make("span", { className: "dim", textContent: "no class" })];
  }

  verdict(entry, decision) {
    const words = find("#r-verdict");
    const verdict = decision?.verdict ?? entry.decision;
    words.hidden = !verdict;
    if (!verdict) return;
    const who = decision ? (decision.reviewer ? [nameNode(decision.reviewer), ": "] : ["Decided: "]) : ["Decided before: "];
    words.replaceChildren(...who, verdict, ...(decision?.label ? [" ", nameNode(decision.label)] : []), ...(decision?.note ? [", ", nameNode(decision.note)] : []));
  }

  buttons(entry) {
    const proposal = proposalOf(entry);
    find("#r-accept").disabled = !proposal;
    find("#r-accept-text").replaceChildren(...(proposal ? [proposal[0], ...(proposal[1] ? [nameNode(proposal[1])] : [])] : ["Nothing is proposed"]));
    const keep = isAboutImage(entry) ? ["Keep the image"] : entry.given && !entry.newBox ? ["Keep ", nameNode(entry.given)] : ["Keep as it is"];
    find("#r-keep-text").replaceChildren(...keep);
    find("#r-other").disabled = !entry.named;
  }

  // The classes that number keys stand for.
  numbered(entry) {
    if (isAboutImage(entry)) return [];
    const taken = new Set(entry.taken ?? []);
    return entry.named || entry.choices ? (entry.choices ?? []).filter(([name]) => name === entry.given || (entry.named && !taken.has(name))).slice(0, 5) : [];
  }

  likely(entry) {
    find("#r-likely").replaceChildren(...this.numbered(entry).map(([name, chance], at) => {
      const bar = make("i", { className: "share" });
      bar.style.width = `${Math.round(100 * (chance ?? 0))}%`;
      const kind = name === entry.given ? "is-given" : name === entry.suggested ? "is-proposed" : "";
      const button = make("button", { type: "button", className: kind }, bar, make("kbd", { textContent: at + 1 }), nameNode(name), make("span", { className: "dim", textContent: chance === null ? "" : percentOf(chance) }));
      button.dataset.name = name;
      return button;
    }));
  }

  near(entry) {
    const several = entry.near ?? [];
    find("#r-near").hidden = !several.length;
    find("#r-near-list").replaceChildren(...several.map(([number, similarity]) => {
      const image = this.data.images[number], labels = image.labels ?? [];
      const kind = labels.includes(entry.given) ? "is-given" : labels.includes(entry.suggested) ? "is-proposed" : "";
      const figure = make("figure", { className: kind, title: shown(image.name) }, this.pictures.thumbnail(image));
      const caption = make("figcaption", {}, make("span", {}, ...(labels.length ? labels.flatMap((name, at) => (at ? [", ", nameNode(name)] : [nameNode(name)])) : ["unlabeled"])));
      if (similarity !== null) caption.append(make("small", { textContent: similarity.toFixed(2) }));
      figure.append(caption);
      return figure;
    }));
  }

  path(entry) {
    const image = this.data.images[entry.image];
    if (!image) {
      find("#r-path").replaceChildren();
      return;
    }
    const text = nameNode(image.name, { dir: "ltr", className: "file" });
    const link = image.url === undefined ? text : make("a", { href: image.url, target: "_blank", rel: "noopener", id: "r-file-link" }, text);
    find("#r-path").replaceChildren(link, ...(entry.split ? [" ", nameNode(entry.split, { className: "split" })] : []));
  }

  // The classes that fit what was typed: those that begin with it first.
  names(entry, typed) {
    const wanted = typed.trim().toLowerCase(), every = classesFor(entry, this.classes);
    const begins = every.filter((name) => name.toLowerCase().startsWith(wanted));
    const holds = wanted ? every.filter((name) => !name.toLowerCase().startsWith(wanted) && name.toLowerCase().includes(wanted)) : [];
    return [...begins, ...holds].slice(0, MOST_LISTED);
  }
}
