// Draws messages. Everything that anybody wrote goes in as textContent, never as HTML.

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function button(label, title, action) {
  const made = element("button", "", label);
  made.type = "button";
  made.title = title;
  made.addEventListener("click", action);
  return made;
}

/** Text with ``` fences as blocks of code. */
function fill(target, text) {
  target.replaceChildren();
  text.split(/^```[^\n]*\n?/m).forEach((part, number) => {
    if (number % 2) target.append(element("pre", "", part.replace(/\n$/, "")));
    else if (part) target.append(part);
  });
}

const ENDINGS = {
  context: "the model's context is full",
  length: "longest answer reached",
  stopped: "stopped",
};

function figures(message) {
  const parts = [];
  if (message.tokens) parts.push(`${message.tokens} token${message.tokens === 1 ? "" : "s"}`);
  if (message.speed) parts.push(`${message.speed < 10 ? message.speed.toFixed(1) : Math.round(message.speed)} tokens/s`);
  if (ENDINGS[message.end]) parts.push(ENDINGS[message.end]);
  return parts.join(" · ");
}

/**
 * One message as a list item with `update(state)`. on: {edit, again, copy}, called with the message's number.
 */
export function messageItem(message, number, on) {
  const item = element("li", `message ${message.role}`);
  item.dataset.number = number;
  const notice = element("p", "notice");
  const sums = element("div", "sums");
  const text = element("div", "text");
  const dots = element("div", "dots");
  const place = element("span");
  dots.append(element("i"), element("i"), element("i"), place);
  const foot = element("div", "foot");
  item.append(notice, sums, text, dots, foot);

  /** state: {growing, position, last}. */
  item.update = ({ growing = false, position = 0, last = false } = {}) => {
    notice.textContent = message.notice ?? "";
    notice.hidden = !message.notice;
    sums.hidden = !message.calculations?.length;
    sums.replaceChildren(
      ...(message.calculations ?? []).map((made) =>
        element("span", "sum", made.result === null ? made.expression : `${made.expression} = ${made.result}`)),
    );
    fill(text, message.content);
    item.classList.toggle("growing", growing && Boolean(message.content));
    dots.hidden = !growing || Boolean(message.content);
    place.textContent = position ? `number ${position} in line` : "";
    foot.replaceChildren();
    if (growing) return;
    if (message.role === "assistant") {
      if (figures(message)) foot.append(element("span", "figures", figures(message)));
      foot.append(button("Copy", "Copy the answer", (event) => on.copy(number, event.currentTarget)));
      foot.append(button("Regenerate", last ? "Answer again (Alt R)" : "Answer again from here", () => on.again(number)));
    } else {
      foot.append(button("Edit", "Change it and go on from here", () => on.edit(number)));
      foot.append(button("Copy", "Copy the message", (event) => on.copy(number, event.currentTarget)));
      if (last) foot.append(button("Answer", "Get an answer", () => on.again(number + 1)));
    }
  };
  return item;
}

/** Replace a message's text by a field to change it in. */
export function editor(item, message, done, cancel) {
  const form = element("form", "edit");
  const field = element("textarea");
  field.value = message.content;
  field.rows = Math.min(10, message.content.split("\n").length + 1);
  field.setAttribute("aria-label", "Edit the message");
  const row = element("div", "row end");
  const send = element("button", "strong", "Send");
  row.append(button("Cancel", "Leave it as it was (Esc)", cancel), send);
  form.append(field, row);
  const finish = (event) => {
    event.preventDefault();
    if (field.value.trim()) done(field.value);
  };
  form.addEventListener("submit", finish);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) finish(event);
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    }
  });
  item.replaceChildren(form);
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
}

/** The list of conversations. on: {open, drop}, called with an id. */
export function drawList(target, conversations, activeId, on) {
  target.replaceChildren(
    ...conversations.map((one) => {
      const item = element("li", one.id === activeId ? "active" : "");
      const open = button(one.title || "…", one.title, () => on.open(one.id));
      open.className = "open";
      const drop = button("✕", "Delete this conversation", () => on.drop(one.id));
      drop.className = "icon drop";
      drop.setAttribute("aria-label", `Delete ${one.title}`);
      item.append(open, drop);
      return item;
    }),
  );
}
