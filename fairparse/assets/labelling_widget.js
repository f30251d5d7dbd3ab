// The window of fairparse.labelling_widget: shows what the kernel sends, and sends what the person does.
// No picture and no answer is kept in the widget's state, so none of them ends up in the saved notebook.

const PATIENCE = 4000; // milliseconds without an answer before we say so

function element(tag, className, properties = {}) {
  return Object.assign(document.createElement(tag), { className, ...properties });
}

function render({ model, el }) {
  const root = element("div", "fairparse-labelling", { tabIndex: 0 });
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Labelling");
  root.dataset.lmSuppressShortcuts = "true"; // some JupyterLabs listen before us, where press() cannot stop a key: this tells them that keys in here are ours

  const task = element("span", "fl-task");
  const count = element("span", "fl-count");
  count.setAttribute("role", "status");
  const header = element("div", "fl-header");
  header.append(task, count);
  const bar = element("progress", "fl-bar");
  bar.setAttribute("aria-label", "labelled so far");
  const picture = element("img", "fl-picture");
  const ended = element("div", "fl-ended");
  const stage = element("div", "fl-stage");
  stage.append(picture, ended);
  const guess = element("div", "fl-guess");
  const choices = element("div", "fl-choices");
  const others = element("div", "fl-choices");
  const message = element("div", "fl-message", { textContent: "Run this cell to start labelling." });
  message.setAttribute("role", "alert");
  const hint = element("div", "fl-hint", { textContent: "Click the picture, then use the keys." });
  root.append(header, bar, stage, guess, choices, others, message, hint);
  el.append(root);

  let view = null;    // what the kernel sent last
  let waiting = null; // the timer of a message that was not answered yet

  function send(action, label) {
    if (waiting) return;
    model.send({ action, label, item: view ? view.item : null });
    waiting = setTimeout(() => {
      waiting = null;
      say("The kernel does not answer: it is busy, or was restarted. If nothing changes soon, run this cell again.", true);
    }, PATIENCE);
  }

  function say(text, problem) {
    message.textContent = text;
    message.classList.toggle("fl-problem", problem);
  }

  // Buttons are made once and never disabled: the one in focus must stay, or the next key would go to JupyterLab.
  function button(key, text, action) {
    const made = element("button", "fl-button", { type: "button" });
    if (key) {
      made.append(element("kbd", "", { textContent: key }));
      made.setAttribute("aria-keyshortcuts", key);
    }
    made.append(element("span", "", { textContent: text }));
    made.addEventListener("click", action);
    return made;
  }

  function choose(k) {
    if (view && view.item !== null && k < view.choices.length) send("choose", view.choices[k]);
  }

  function skip() {
    if (view && view.item !== null) send("skip");
  }

  function undo() {
    if (view) send("undo");
  }

  const skipping = button("s", "skip: cannot tell", skip);
  others.append(skipping, button("u", "undo", undo));

  function show(answer) {
    clearTimeout(waiting);
    waiting = null;
    view = answer;
    const finished = view.item === null;
    task.textContent = view.task;
    count.textContent = `${view.done} of ${view.total} · ${view.annotator}`;
    count.title = `${view.skipped} skipped`;
    bar.max = Math.max(view.total, 1);
    bar.value = view.done;
    picture.hidden = !view.picture;
    if (view.picture) {
      picture.src = view.picture;
      picture.alt = `picture to label: ${view.item}`;
      picture.style.width = `${view.size}px`;
      picture.style.imageRendering = view.smooth ? "auto" : "pixelated";
    }
    stage.style.minHeight = `${view.size}px`;
    ended.hidden = !finished;
    ended.textContent = view.total ? "All done. Thank you." : "Nothing to label.";
    guess.hidden = !view.guess;
    guess.textContent = view.guess ? `the model says: ${view.guess}` : "";
    if (choices.children.length !== view.choices.length) {
      choices.replaceChildren(...view.choices.map((name, k) => button(k < 9 ? String(k + 1) : "", name, () => choose(k))));
    }
    for (const part of [choices, skipping]) part.classList.toggle("fl-off", finished);
    say(view.problem || view.notice, Boolean(view.problem));
  }

  function press(event) {
    event.stopPropagation();
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code); // the key's place: on some keyboards digits need Shift
    if (digit) choose(Number(digit[1]) - 1);
    else if (event.key.toLowerCase() === "s") skip();
    else if (event.key.toLowerCase() === "u") undo();
    else return; // Tab, Enter and Space do what they do elsewhere
    event.preventDefault();
  }

  root.addEventListener("keydown", press);
  model.on("msg:custom", show);
  send("show");
  return () => {
    clearTimeout(waiting);
    model.off("msg:custom", show);
  };
}

export default { render };
