// Keeps the page up to date, sorts and filters its table, and gives orders. The server renders and escapes all HTML.

const byId = id => document.getElementById(id);
const body = byId("servers").tBodies[0];
const heads = [...byId("servers").tHead.rows[0].cells];
const [connection, search, shown, dialog] = ["connection", "search", "shown", "order"].map(byId);
const form = dialog.querySelector("form");

// Rows in the order of the list, as the messages number them.
let rows = [...body.rows];
let sorting = { cell: 1, direction: 1 };
let sortIsDue = false;

document.documentElement.classList.add("live");
setRoles();

// Messages

function setParts(parts) {
  for (const [name, html] of Object.entries(parts)) {
    document.querySelector(`[data-part="${name}"]`).innerHTML = html;
  }
}

function setCell(cell, html) {
  // A replaced button would lose the focus.
  const buttons = () => [...cell.querySelectorAll("button, a")];
  const focused = buttons().indexOf(document.activeElement);
  cell.innerHTML = html;
  if (focused >= 0) buttons()[focused]?.focus();
}

function newRow(key) {
  const row = document.createElement("tr");
  row.dataset.key = key;
  heads.forEach((head, at) => {
    const cell = document.createElement(at === 0 ? "th" : "td");
    if (at === 0) cell.scope = "row";
    cell.className = ["server", "state", "since", "reason", "share", "number", "number", "graph", "number", "graph", "actions"][at];
    row.append(cell);
  });
  return row;
}

function takeSnapshot({ rows: all, parts }) {
  setParts(parts);
  const known = new Map(rows.map(row => [row.dataset.key, row]));
  rows = all.map(([key, cells]) => {
    const row = known.get(key) ?? newRow(key);
    known.delete(key);
    cells.forEach((html, at) => { if (row.cells[at].innerHTML !== html) setCell(row.cells[at], html); });
    if (!row.isConnected) body.append(row);
    return row;
  });
  for (const row of known.values()) row.remove();
  setRoles();
  filter();
  sort();
}

function takeChanges({ cells, parts, announcement }) {
  setParts(parts);
  if (announcement) byId("announcement").textContent = announcement;
  let filterIsDue = false;
  for (const [row, at, html] of cells) {
    const cell = rows[row].cells[at];
    setCell(cell, html);
    if (at === 1) {
      cell.classList.remove("changed");
      requestAnimationFrame(() => cell.classList.add("changed"));
    }
    sortIsDue ||= at === sorting.cell;
    filterIsDue ||= at === 1 || at === 3;
  }
  if (filterIsDue) filter();
  // Rows do not move below the pointer or the focus.
  if (sortIsDue && !body.matches(":hover") && !body.contains(document.activeElement)) sort();
}

let latest = performance.now();
let stream;

function connect() {
  stream?.close();
  stream = new EventSource("/page/stream");
  const on = (name, take) => stream.addEventListener(name, message => {
    latest = performance.now();
    setConnection("on", "live");
    take(JSON.parse(message.data));
  });
  on("snapshot", takeSnapshot);
  on("changes", takeChanges);
}

function setConnection(state, text) {
  if (connection.textContent === text) return;
  connection.className = `live-only ${state}`;
  connection.textContent = text;
}

// The balancer sends a message each second. A browser does not reconnect by itself after an error status.
setInterval(() => {
  const silent = performance.now() - latest;
  if (silent > 4000) setConnection("off", "no connection to the balancer; the figures are old");
  if (silent > 4000 && stream.readyState !== EventSource.CONNECTING) connect();
}, 2000);
connect();

// Sort and filter

function sortKey(row) {
  const cell = row.cells[sorting.cell];
  const value = cell.querySelector("data")?.value;
  if (value !== undefined) return Number(value);
  return cell.querySelector("time")?.dateTime ?? cell.textContent;
}

function sort() {
  sortIsDue = false;
  const keyed = rows.map((row, at) => ({ row, at, key: sortKey(row) }));
  const compare = (one, other) => typeof one.key === "number" ? one.key - other.key : one.key.localeCompare(other.key, "en", { numeric: true });
  keyed.sort((one, other) => sorting.direction * compare(one, other) || one.at - other.at);
  // Moves only rows that are out of place.
  let next = body.firstElementChild;
  for (const { row } of keyed) {
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
}

heads.forEach((head, cell) => {
  if (head.matches(".graph, .actions")) return;
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const isSame = sorting.cell === cell;
    const first = head.matches(".number") || cell === 4 ? -1 : 1;
    sorting = { cell, direction: isSame ? -sorting.direction : first };
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sorting.direction > 0 ? "ascending" : "descending");
    sort();
  });
});

function filter() {
  const state = document.querySelector("#filter :checked").value;
  const words = search.value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const row of rows) {
    const text = words[0] || words[1] ? `${row.cells[0].textContent} ${row.cells[3].textContent}`.toLowerCase() : "";
    const isShown = words.every(word => text.includes(word)) && (!state || row.cells[1].firstElementChild.classList.contains(state));
    if (row.hidden === isShown) row.hidden = !isShown;
    count += isShown;
  }
  const all = count === rows.length ? "" : ` of ${rows.length}`;
  const text = `${count}${all} ${rows.length === 1 ? "server" : "servers"}`;
  if (shown.textContent !== text) shown.textContent = text;
}

byId("filter").addEventListener("input", filter);

// The layout of live rows is not a table for a screen reader without these roles.
function setRoles() {
  const table = byId("servers");
  table.setAttribute("role", "table");
  for (const group of [table.tHead, body]) group.setAttribute("role", "rowgroup");
  for (const row of table.rows) {
    if (row.hasAttribute("role")) continue;
    row.setAttribute("role", "row");
    const roles = { col: "columnheader", row: "rowheader" };
    for (const cell of row.cells) cell.setAttribute("role", roles[cell.scope] ?? "cell");
  }
}

// Orders

let server;

body.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-order]");
  if (!button) return;
  server = button.closest("tr").dataset.key;
  form.reset();
  form.elements.order.value = button.dataset.order;
  byId("order-server").textContent = server;
  byId("order-problem").textContent = "";
  showFields();
  dialog.showModal();
});

function showFields() {
  const order = form.elements.order.value;
  byId("weight-field").hidden = order !== "weight";
  byId("until-field").hidden = order === "enable";
}

form.addEventListener("input", showFields);
form.querySelector("[value=cancel]").addEventListener("click", () => dialog.close());

const post = (path, content, headers = {}) => fetch(path, {
  method: "POST",
  headers: { "Content-Type": "application/json", ...headers },
  body: JSON.stringify(content),
});

async function give() {
  const { order, weight, note, until, token } = form.elements;
  const content = { order: order.value, note: note.value };
  if (order.value === "weight" && weight.value) content.weight = Number(weight.value);
  const canEnd = order.value !== "enable" && (order.value !== "weight" || weight.value);
  if (canEnd && until.value) content.until = until.value;
  if (!byId("token-field").hidden && token.value) {
    const session = await post("/api/v1/session", {}, { Authorization: `Bearer ${token.value}` });
    if (!session.ok) return session;
  }
  return post(`/api/v1/backends/${encodeURIComponent(server)}/orders`, content);
}

form.addEventListener("submit", async event => {
  event.preventDefault();
  const submit = form.querySelector("[type=submit]");
  submit.disabled = true;
  let problem = "";
  try {
    const answer = await give();
    if (!answer.ok) problem = (await answer.json()).detail;
    if (answer.status === 401) {
      if (byId("token-field").hidden) problem = "Orders need the token of this balancer.";
      byId("token-field").hidden = false;
      form.elements.token.focus();
    }
  } catch (error) {
    problem = `The order was not acknowledged: ${error.message}`;
  }
  submit.disabled = false;
  byId("order-problem").textContent = problem;
  if (problem) return;
  byId("token-field").hidden = true;
  byId("announcement").textContent = `The order for ${server} is in force`;
  dialog.close();
});
