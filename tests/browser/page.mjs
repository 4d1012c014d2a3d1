// Tests the live page in Chromium: console, accessibility, orders, a killed server, other origins, and no JavaScript.
//
//     NODE_PATH=... node tests/browser/page.mjs ADMIN-URL PID-OF-A-SERVER URL-WITH-TOKEN TOKEN [FOLDER-FOR-SCREENSHOTS]
//
// The balancer at ADMIN-URL has no token. Needs puppeteer-core and axe-core in NODE_PATH.

import assert from "node:assert/strict";
import http from "node:http";
import { createRequire } from "node:module";

// `import` ignores NODE_PATH.
const require = createRequire(import.meta.url);
const puppeteer = require("puppeteer-core");
const axe = require("axe-core").source;

const [admin, pid, guarded, token, folder] = process.argv.slice(2);
const DEADLINE = 15_000;

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu"],
});

async function open(url) {
  const page = await browser.newPage();
  page.setDefaultTimeout(DEADLINE);
  await page.setViewport({ width: 1400, height: 900 });
  page.problems = [];
  page.on("console", message => {
    // Chromium reports each answer with an error status, also those that the script handles.
    if (message.type() === "error" && !message.text().includes("401 (Unauthorized)")) page.problems.push(message.text());
  });
  page.on("pageerror", error => page.problems.push(error.message));
  await page.goto(url, { waitUntil: "domcontentloaded" });
  return page;
}

const screenshot = (page, name) => folder && page.screenshot({ path: `${folder}/${name}.png` });
const isLive = page => page.waitForFunction(() => document.querySelector("#connection")?.textContent === "live");
const stateOf = row => row.cells[1].textContent;

async function checkAccessibility(page, what) {
  await page.evaluate(source => { const run = new Function(source); run.call(window); }, axe).catch(() => page.evaluate(axe));
  const { violations } = await page.evaluate(() => axe.run());
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const shown = serious.map(({ id, nodes }) => `${id}: ${nodes.map(node => node.html).join(" ")}`);
  assert.deepEqual(shown, [], `accessibility of ${what}`);
}

async function backends(url) {
  return (await (await fetch(`${url}api/v1/backends`)).json()).backends;
}

async function ordersOf(url) {
  return (await backends(url)).flatMap(backend => backend.orders ?? []).length;
}

/** Gives an order for the first row through the dialog. */
async function order(page, name, fill = async () => {}) {
  await page.click("tbody tr:first-child [data-order]");
  await page.click(`#order [name=order][value=${name}]`);
  await fill();
  await page.click("#order [type=submit]");
}

const tests = {
  async "the page is live without a console error and is accessible"() {
    const page = await open(admin);
    await isLive(page);
    for (const scheme of ["light", "dark"]) {
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await checkAccessibility(page, scheme);
      await screenshot(page, scheme);
    }
    await page.click("tbody tr:first-child [data-order]");
    await checkAccessibility(page, "the dialog");
    await screenshot(page, "dialog");
    assert.deepEqual(page.problems, []);
  },

  async "the drain button withdraws a server and enable returns it"() {
    const page = await open(admin);
    await isLive(page);
    await order(page, "drain", () => page.type("#order [name=note]", "new disk"));
    await page.waitForFunction(() => document.querySelector("tbody tr:first-child .withdrawn"));
    assert.equal(await ordersOf(admin), 1);
    await screenshot(page, "drained");
    await order(page, "enable");
    await page.waitForFunction(() => !document.querySelector("tbody .withdrawn"));
    assert.equal(await ordersOf(admin), 0);
    assert.deepEqual(page.problems, []);
  },

  async "with a token, an order needs it"() {
    const page = await open(guarded);
    await isLive(page);
    await order(page, "drain");
    await page.waitForFunction(() => document.querySelector("#order-problem").textContent.includes("token"));
    assert.equal(await ordersOf(guarded), 0);
    await page.type("#order [name=token]", token);
    await page.click("#order [type=submit]");
    await page.waitForFunction(() => document.querySelector("tbody tr:first-child .withdrawn"));
    assert.equal(await ordersOf(guarded), 1);
    // The cookie of the session permits the next order.
    await order(page, "enable");
    await page.waitForFunction(() => !document.querySelector("tbody .withdrawn"));
    assert.deepEqual(page.problems, []);
  },

  async "a page of another origin cannot give an order"() {
    const [{ address }] = await backends(admin);
    const path = `${admin}api/v1/backends/${encodeURIComponent(address)}/orders`;
    const content = JSON.stringify({ order: "drain" });
    // The body of this form is `{"order":"drain","note":"="}`, which is JSON.
    const form = `<form method="post" enctype="text/plain" action="${path}"><input name='{"order":"drain","note":"' value='"}'></form>`;
    const foreign = http.createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end(form));
    await new Promise(done => foreign.listen(0, "127.0.0.1", done));
    const page = await open(`http://127.0.0.1:${foreign.address().port}/`);
    const outcomes = await page.evaluate(async (path, content) => {
      const post = (mode, type) => fetch(path, {
        method: "POST", mode, credentials: "include", body: content, headers: { "Content-Type": type },
      }).then(answer => answer.type, () => "failed");
      return [
        await post("no-cors", "text/plain"), await post("no-cors", "application/json"),
        await post("cors", "text/plain"), await post("cors", "application/json"),
      ];
    }, path, content);
    // Without CORS, the browser sends the request and hides the answer.
    assert.deepEqual(outcomes, ["opaque", "opaque", "failed", "failed"]);
    await Promise.all([page.waitForNavigation(), page.evaluate(() => document.querySelector("form").submit())]);
    const refusal = await page.evaluate(() => document.body.textContent);
    assert.match(refusal, /application\/json/);
    assert.equal(await ordersOf(admin), 0);
    foreign.close();
  },

  async "the page is usable without JavaScript"() {
    const page = await browser.newPage();
    await page.setJavaScriptEnabled(false);
    await page.goto(admin);
    const rows = await page.$$("tbody tr");
    assert.equal(rows.length, (await backends(admin)).length);
    const text = await (await (await page.$("body")).getProperty("innerText")).jsonValue();
    assert.match(text, /Without JavaScript, this page reloads every 5 seconds/);
    assert.doesNotMatch(text, /connecting/);
    await screenshot(page, "without-javascript");
  },

  async "a killed server is visible within three seconds"() {
    const page = await open(admin);
    await isLive(page);
    await page.waitForFunction(() => [...document.querySelectorAll("tbody tr")].every(row => row.cells[1].textContent.includes("up")));
    const began = performance.now();
    process.kill(Number(pid), "SIGKILL");
    await page.waitForFunction(() => [...document.querySelectorAll("tbody tr")].some(row => !row.cells[1].textContent.includes("up")));
    const took = performance.now() - began;
    assert(took <= 3000, `visible after ${took} ms`);
    await screenshot(page, "killed");
    assert.deepEqual(page.problems, []);
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`ok: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}\n${error.stack}`);
  }
  for (const page of await browser.pages()) if (page.url() !== "about:blank") await page.close();
}
await browser.close();
console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
