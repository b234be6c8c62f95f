// The desk of the Review tab: the next clips are here before their turn comes, so that a key press
// shows and plays one without waiting for the server. Texts are only ever text, never markup.

const KEYS = {
  y: "yes", n: "no", s: "unsure", u: "undo", backspace: "undo", " ": "play",
  arrowright: "next", arrowleft: "back", a: "auto",
};
const PATIENCE = 3000; // milliseconds until a mark that is not on the disk is worth a warning
// What is typed into, what takes letters for itself, and what takes space and arrows.
const TYPED = "input:not([type=checkbox], [type=radio], [type=button]), textarea, "
  + "[contenteditable=true]";
const FIELDS = `${TYPED}, select`;
const PRESSED = "button, a, summary, input, [role=slider], [role=option], [tabindex]";
const LANES = {annotation: "#ffd166", people: "#06d6a0", detection: "#8ecae6"};
const WORDS = {yes: "right", no: "wrong", unsure: "unsure"};

function make(tag, parent, name, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  parent.append(element);
  return element;
}

function seconds(value) {
  const minutes = Math.floor(value / 60);
  const rest = (value - 60 * minutes).toFixed(2);
  return minutes ? `${minutes}:${rest.padStart(5, "0")} min` : `${rest} s`;
}

export function render({model, el}) {
  const root = make("div", el, "desk");
  root.tabIndex = 0;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Clip to review");
  const head = make("div", root, "head");
  const title = make("h2", head, "title");
  const progress = make("span", head, "progress");
  const where = make("div", root, "where");
  const given = make("span", root, "given");
  const screen = make("div", root, "screen");
  const canvas = make("canvas", screen, "picture");
  const cursor = make("div", screen, "cursor");
  canvas.setAttribute("role", "img");
  const bar = make("div", root, "bar");
  bar.setAttribute("role", "toolbar");
  bar.setAttribute("aria-label", "Marks");
  const labels = make("div", root, "labels");
  labels.setAttribute("role", "toolbar");
  labels.setAttribute("aria-label", "Labels on the number keys");
  const status = make("p", root, "status");
  status.setAttribute("role", "status");
  const alert = make("p", root, "alert");
  alert.setAttribute("role", "alert");

  const buttons = {};
  const offer = (action, text, key, words) => {
    const button = make("button", bar, action);
    button.type = "button";
    make("span", button, "", text);
    make("kbd", button, "", key);
    button.setAttribute("aria-keyshortcuts", words);
    button.addEventListener("click", () => act(action, performance.now()));
    buttons[action] = button;
  };
  offer("yes", "Right", "Y", "y");
  offer("no", "Wrong", "N", "n");
  offer("unsure", "Skip", "S", "s");
  offer("undo", "Undo", "U", "u");
  offer("play", "Play", "space", "Space");
  offer("back", "Back", "←", "ArrowLeft");
  offer("next", "Next", "→", "ArrowRight");
  offer("auto", "Play at once", "A", "a");

  // ------------------------------------------------------------------ state

  let queue = {ticket: -1, count: 0, label: "", labels: [], editable: false, why: "", palette: []};
  let at = 0;
  let auto = true;
  let cards = new Map(); // index -> {card, image, sound}
  let asked = new Set();
  let marks = new Map(); // annotator -> index -> Map(label -> value)
  let past = []; // what can be undone: {index, mine, label, before, number}
  let waiting = new Map(); // number -> the same, or an undo
  let number = 0;
  let stored = 0;
  let pressed = null; // time of the key press that is not yet answered by picture and sound
  let by_mouse = false; // what the visitor did last
  let audio = null;
  let source = null;
  let sweep = null; // of the cursor over the picture

  const send = (message) => model.send_msg({ticket: queue.ticket, ...message});

  // ------------------------------------------------------------------ clips

  function fetch_ahead() {
    const wanted = [];
    for (let i = at; i < Math.min(at + queue.ahead, queue.count); i++) {
      if (!cards.has(i) && !asked.has(i)) {
        asked.add(i);
        wanted.push(i);
      }
    }
    if (wanted.length) send({type: "want", indices: wanted});
    for (const i of cards.keys()) {
      if (i < at - 8 || i > at + 2 * queue.ahead) {
        cards.delete(i);
        asked.delete(i);
      }
    }
  }

  function drop_cards() {
    cards = new Map();
    asked = new Set();
  }

  function look_again() {
    drop_cards();
    show();
  }

  function receive(card) {
    const entry = {card, image: null, sound: null};
    cards.set(card.index, entry);
    if (card.levels) {
      entry.image = picture_of(card);
      const bytes = card.sound instanceof ArrayBuffer ? card.sound : card.sound.slice().buffer;
      audio ??= new AudioContext();
      audio.decodeAudioData(bytes.slice(0)).then(
        (sound) => {
          entry.sound = sound;
          if (card.index === at) heard();
        },
        () => { if (card.index === at) say_problem("The browser cannot play this sound."); },
      );
    }
    if (card.index === at) show();
  }

  function picture_of(card) {
    const levels = new Uint8Array(card.levels);
    const image = new ImageData(card.columns, card.rows);
    const pixels = new Uint32Array(image.data.buffer);
    const colours = queue.palette;
    for (let row = 0; row < card.rows; row++) {
      const from = (card.rows - 1 - row) * card.columns;
      const to = row * card.columns;
      for (let i = 0; i < card.columns; i++) pixels[to + i] = colours[levels[from + i]];
    }
    const drawn = new OffscreenCanvas(card.columns, card.rows);
    drawn.getContext("2d").putImageData(image, 0, 0);
    return drawn;
  }

  function show() {
    stop();
    const entry = cards.get(at);
    const done = at >= queue.count;
    root.classList.toggle("done", done);
    title.textContent = queue.label && !done ? `${queue.label}?` : queue.title;
    progress.textContent = queue.count
      ? `${Math.min(at + 1, queue.count)} of ${queue.count.toLocaleString("en")}` : "";
    update_buttons();
    if (done) {
      where.textContent = queue.count ? "That was the last clip of this queue." : queue.empty;
      canvas.setAttribute("aria-label", "No clip");
      canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
      given.textContent = "";
      return;
    }
    const card = entry?.card;
    say_problem(card?.problem ?? "");
    where.replaceChildren();
    if (card) {
      make("b", where, "", card.name ?? "");
      if (card.levels) {
        const said = [`${seconds(card.start)} – ${seconds(card.end)}`];
        if (card.clock) said.push(card.clock);
        if (card.score !== null) said.push(`score ${card.score.toFixed(3)}`);
        if (card.slower > 1) said.push(`played ${card.slower} times slower`);
        make("span", where, "", ` ${said.join(" · ")}`);
        if (card.remark) make("div", where, "alert", card.remark);
        canvas.setAttribute("aria-label",
          `Spectrogram of ${card.name}, ${said.join(", ")}; 0 to ${(card.top / 1000).toFixed(1)} kHz.`
          + card.marks.map((mark) => ` ${mark.text} (${mark.kind}).`).join(""));
      }
    } else {
      where.textContent = "…";
    }
    draw();
    if (auto && entry?.sound) heard();
    // What comes next must not hold up what is to be seen now.
    requestAnimationFrame(() => setTimeout(fetch_ahead, 0));
  }

  function heard() {
    if (auto && cards.get(at)?.sound) play();
    tell_how_long();
  }

  // From the key press to the picture on the screen, with the sound begun.
  function tell_how_long() {
    const entry = cards.get(at);
    if (pressed === null || !entry?.image || (auto && !source)) return;
    const start = pressed;
    pressed = null;
    requestAnimationFrame(() => setTimeout(() => {
      performance.measure("next clip", {start, end: performance.now()});
    }, 0));
  }

  // ------------------------------------------------------------------ drawing

  const LEFT = 52, BOTTOM = 34, TOP = 4, RIGHT = 8;

  function draw() {
    const wide = canvas.clientWidth, high = canvas.clientHeight, scale = window.devicePixelRatio;
    if (canvas.width !== Math.round(wide * scale) || canvas.height !== Math.round(high * scale)) {
      canvas.width = Math.round(wide * scale);
      canvas.height = Math.round(high * scale);
    }
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, wide, high);
    const entry = cards.get(at);
    if (!entry?.image) return;
    const {card, image} = entry;
    const width = wide - LEFT - RIGHT, height = high - BOTTOM - TOP;
    const x = (time) => LEFT + width * (time - card.from) / (card.to - card.from);
    context.drawImage(image, LEFT, TOP, width, height);
    context.fillStyle = "rgba(255, 255, 255, 0.35)";
    if (card.start > card.from) context.fillRect(LEFT, TOP, x(card.start) - LEFT, height);
    if (card.end < card.to) context.fillRect(x(card.end), TOP, LEFT + width - x(card.end), height);
    draw_axes(context, card, x, width, height);
    draw_marks(context, card, x, width);
  }

  function draw_axes(context, card, x, width, height) {
    context.font = "12px sans-serif";
    context.fillStyle = getComputedStyle(root).color;
    context.strokeStyle = context.fillStyle;
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const [share, text] of card.ticks) {
      const y = TOP + height * (1 - share);
      context.fillText(text, LEFT - 8, Math.max(y, TOP + 6));
      context.strokeRect(LEFT - 4, y, 4, 0.01);
    }
    context.textAlign = "center";
    context.textBaseline = "top";
    const long = card.to - card.from, by = step(long, 8);
    for (let t = Math.ceil(card.from / by) * by; t <= card.to + 1e-9; t += by) {
      context.fillText(`${Number(t.toFixed(3))}`, x(t), TOP + height + 6);
      context.strokeRect(x(t), TOP + height, 0.01, 4);
    }
    context.fillText("time in the recording (s)", LEFT + width / 2, TOP + height + 20);
    context.save();
    context.translate(10, TOP + height / 2);
    context.rotate(-Math.PI / 2);
    context.textBaseline = "middle";
    context.fillText("frequency (kHz)", 0, 0);
    context.restore();
  }

  function step(range, parts) {
    const rough = range / parts, power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  }

  function draw_marks(context, card, x, width) {
    context.textAlign = "left";
    context.textBaseline = "top";
    card.marks.slice(0, 8).forEach((mark, lane) => {
      const from = Math.max(x(mark.start), LEFT), to = Math.min(x(mark.end), LEFT + width);
      const y = TOP + 3 + 19 * lane;
      context.fillStyle = LANES[mark.kind];
      context.fillRect(from, y, Math.max(to - from, 2), 3);
      context.fillRect(from, y, 2, 16);
      context.fillRect(Math.max(to - 2, from), y, 2, 16);
      context.font = "12px sans-serif";
      const text = `${mark.text}${mark.kind === "detection" ? "" : ` (${mark.kind})`}`;
      const least = Math.min(from + 4, LEFT + width - context.measureText(text).width - 6);
      context.fillStyle = "rgba(0, 0, 0, 0.72)";
      context.fillRect(least - 1, y + 3, context.measureText(text).width + 4, 14);
      context.fillStyle = "#ffffff";
      context.fillText(text, least + 1, y + 4);
    });
  }

  // ------------------------------------------------------------------ sound

  function stop() {
    sweep?.cancel();
    cursor.style.visibility = "hidden";
    if (source) {
      source.onended = null;
      source.stop();
      source = null;
    }
    buttons.play.setAttribute("aria-pressed", "false");
  }

  function play() {
    const entry = cards.get(at);
    if (!entry?.sound) return;
    stop();
    if (audio.state !== "running") audio.resume(); // browsers wait for the first key or click
    source = audio.createBufferSource();
    source.buffer = entry.sound;
    source.connect(audio.destination);
    source.onended = () => {
      source = null;
      cursor.style.visibility = "hidden";
      buttons.play.setAttribute("aria-pressed", "false");
    };
    source.start();
    buttons.play.setAttribute("aria-pressed", "true");
    // The browser moves it by itself; a picture that is drawn anew in every frame takes all the
    // time that a machine without a graphics card has.
    cursor.style.visibility = "visible";
    const to = canvas.clientWidth - RIGHT;
    sweep = cursor.animate(
      [{transform: `translateX(${LEFT}px)`}, {transform: `translateX(${to}px)`}],
      {duration: 1000 * entry.sound.duration, fill: "forwards"},
    );
  }

  // ------------------------------------------------------------------ marks

  function update_buttons() {
    const mine = marks_here();
    const live = queue.editable && at < queue.count && Boolean(cards.get(at)?.image);
    for (const value of ["yes", "no", "unsure"]) {
      buttons[value].disabled = !live || !queue.label;
      buttons[value].setAttribute("aria-pressed", String(mine.get(queue.label) === value));
    }
    buttons.undo.disabled = !queue.editable || !past.length;
    buttons.play.disabled = at >= queue.count;
    buttons.back.disabled = at === 0;
    buttons.next.disabled = at >= queue.count;
    buttons.auto.setAttribute("aria-pressed", String(auto));
    [...labels.children].forEach((button) => {
      button.disabled = !live;
      button.setAttribute("aria-pressed", String(mine.get(button.value) === "yes"));
    });
    const said = [...mine].map(([label, value]) => (
      label === queue.label ? WORDS[value] : `${value === "yes" ? "" : `${WORDS[value]}: `}${label}`
    ));
    given.textContent = said.length ? `marked: ${said.join(", ")}` : "";
    const kept = `${stored.toLocaleString("en")} ${stored === 1 ? "mark" : "marks"} stored`;
    status.textContent = queue.editable
      ? kept + (waiting.size ? `, ${waiting.size} on the way` : "")
      : queue.why;
  }

  // What the present annotator has said of the clip.
  function marks_here() {
    if (!marks.has(queue.annotator)) marks.set(queue.annotator, new Map());
    const own = marks.get(queue.annotator);
    if (!own.has(at)) own.set(at, new Map());
    return own.get(at);
  }

  function mark(label, value) {
    const mine = marks_here();
    const before = mine.get(label);
    if (before === value) return; // said already
    mine.set(label, value);
    number += 1;
    past.push({index: at, mine, label, before, number});
    waiting.set(number, {since: performance.now(), mine, label, before});
    send({type: "mark", number, index: at, label, value});
  }

  function undo() {
    const last = past.pop();
    if (!last) return;
    put_back(last);
    number += 1;
    waiting.set(number, {since: performance.now(), undo: true});
    send({type: "undo", number, undone: last.number, index: last.index, label: last.label});
    at = last.index;
    show();
  }

  function put_back({mine, label, before}) {
    if (before === undefined) mine.delete(label);
    else mine.set(label, before);
  }

  function written(outcomes) {
    for (const {number: which, problem} of outcomes) {
      const mark = waiting.get(which);
      waiting.delete(which);
      if (!mark) continue;
      if (!problem) {
        stored += mark.undo ? -1 : 1;
      } else {
        say_problem(`Not stored: ${problem}`);
        past = past.filter((item) => item.number !== which);
        if (!mark.undo) put_back(mark);
      }
    }
    update_buttons();
  }

  function say_problem(sentence) {
    alert.textContent = sentence;
  }

  const watch = setInterval(() => {
    const late = [...waiting.values()].filter((mark) => performance.now() - mark.since > PATIENCE);
    if (late.length) {
      say_problem(`The last ${late.length === 1 ? "mark is" : `${late.length} marks are`} not stored `
        + "yet: the server does not answer. Reload the page when it is there again; what was "
        + "stored is kept.");
    }
  }, 1000);

  function go(by) {
    const to = Math.min(Math.max(at + by, 0), queue.count);
    if (to === at) return;
    at = to;
    send({type: "at", index: at});
    show();
    tell_how_long();
  }

  function act(action, time) {
    if (buttons[action]?.disabled) return;
    if (audio && audio.state !== "running") audio.resume();
    if (action === "play") {
      if (source) stop(); else play();
    } else if (action === "auto") {
      auto = !auto;
      update_buttons();
    } else if (action === "undo") {
      undo();
    } else if (action === "next" || action === "back") {
      pressed = time;
      go(action === "next" ? 1 : -1);
    } else {
      pressed = time;
      mark(queue.label, action);
      go(1);
    }
  }

  function give(label, time) {
    const live = queue.editable && cards.get(at)?.image;
    if (!live) return;
    mark(label, "yes");
    if (!queue.label || label === queue.label) {
      pressed = time;
      go(1);
    } else {
      update_buttons();
    }
  }

  // ------------------------------------------------------------------ keys

  function on_key(event) {
    const clicked = by_mouse;
    by_mouse = false;
    if (event.ctrlKey || event.metaKey || event.altKey || !root.checkVisibility()) return;
    const path = event.composedPath();
    const focused = path[0];
    const key = event.key.toLowerCase();
    // Whoever has clicked on a tab or a button means the desk; whoever types there does not.
    if (focused.matches?.(FIELDS)) return;
    const ours = path.includes(root);
    const pressed_there = key === " " || key === "enter" || (!ours && key.startsWith("arrow"));
    if (pressed_there && focused.matches?.(PRESSED) && focused !== root && (ours || !clicked)) return;
    if (/^[1-9]$/.test(key)) {
      const button = labels.children[Number(key) - 1];
      if (!button) return;
      event.preventDefault();
      give(button.value, event.timeStamp);
    } else if (KEYS[key]) {
      event.preventDefault();
      if (event.repeat && key !== "arrowright" && key !== "arrowleft") return;
      act(KEYS[key], event.timeStamp);
    } else {
      return;
    }
    if (!ours) root.focus({preventScroll: true});
  }

  // ------------------------------------------------------------------ messages

  function begin(message) {
    const same = message.ticket === queue.ticket;
    queue = {...message, palette: same ? queue.palette : colours_of(message)};
    labels.replaceChildren();
    queue.labels.forEach((label, i) => {
      const button = make("button", labels, "label");
      button.type = "button";
      button.value = label;
      make("kbd", button, "", `${i + 1}`);
      make("span", button, "", label);
      button.setAttribute("aria-keyshortcuts", `${i + 1}`);
      button.addEventListener("click", () => give(label, performance.now()));
    });
    if (same) {
      update_buttons();
      return;
    }
    at = 0;
    drop_cards();
    marks = new Map();
    past = [];
    show();
    // A choice that was made with the mouse is done; with the keyboard, it may go on.
    const other = focused_element();
    const idle = !other || other === document.body || (by_mouse && !other.matches(TYPED));
    if (idle && root.checkVisibility()) root.focus({preventScroll: true});
  }

  function focused_element() {
    let element = document.activeElement;
    while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
    return element;
  }

  function colours_of({palette}) {
    return palette.map((hex) => {  // little-endian
      const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
      return (255 << 24 | b << 16 | g << 8 | r) >>> 0;
    });
  }

  model.on("msg:custom", (event) => {
    const message = event.data ?? event;
    if (message.type === "queue") begin(message);
    else if (message.ticket !== undefined && message.ticket !== queue.ticket) return;
    else if (message.type === "clip") receive(message.card);
    else if (message.type === "around") look_again();
    else if (message.type === "written") written(message.outcomes);
  });
  const on_mouse = () => { by_mouse = true; };
  document.addEventListener("keydown", on_key);
  document.addEventListener("pointerdown", on_mouse, true);
  const resized = new ResizeObserver(() => draw());
  resized.observe(canvas);
  model.on("remove", () => {
    document.removeEventListener("keydown", on_key);
    document.removeEventListener("pointerdown", on_mouse, true);
    resized.disconnect();
    clearInterval(watch);
    stop();
    audio?.close();
  });
  model.send_msg({type: "ready"});
}
