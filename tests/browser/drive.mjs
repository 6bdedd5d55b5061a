// MLflow's own interface, used as a person uses it. A command a line on standard input, an answer a line:
//
//   {"do": "aliases", "url": …, "model": …, "version": …, "add": […], "remove": […]}   its dialog for aliases
//   {"do": "stage", "url": …, "model": …, "version": …, "stage": …}                    the older one for stages
//   {"do": "promote", "url": …, "model": …, "version": …, "to": …}                     a copy into another model
//   {"do": "picture", "file": …}                                                       the page as it is now
//   {"do": "look", "url": …, "width": …, "scheme": …, "media": …, "file": …, "height": …}  any page, in a window of its own
//
// Answers: {"alert": what the page says against it, "whole": whether all of that is in the window}, {"alert": null} once
// the page shows that it was done, {"failed": …, "shows": …} where it shows neither; to "look", what `seen` says.
import { createInterface } from "node:readline";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const place = join(dirname(fileURLToPath(import.meta.url)), "node_modules", ".chromium");
const browser = await chromium.launch({
  executablePath: join(place, "chromium"),
  chromiumSandbox: false, // not to be had as root; the only pages are those of a server that the test started
  args: ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-dev-shm-usage"],
  env: {
    ...process.env,
    LD_LIBRARY_PATH: join(place, "al2023", "lib"),
    FONTCONFIG_FILE: join(place, "fonts.conf"),
  },
});
const page = await browser.newPage({ viewport: { width: 1000, height: 640 } });
page.setDefaultTimeout(60_000);
await page.addInitScript(() => {
  localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true"); // else a panel opens over the page
  localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
});
const dialog = page.getByRole("dialog");

// The page of a version, with stages as MLflow had them first (`old`) or with aliases.
async function open({ url, model, version }, old = false) {
  await page.goto("about:blank"); // else only the part after the # changes, and the page keeps what it knew
  await page.goto(`${url}/#/models/${model}/versions/${version}`);
  const toggle = page.getByRole("switch");
  await toggle.waitFor();
  if ((await toggle.isChecked()) !== old) return;
  await toggle.click();
  if (old) await page.getByRole("button", { name: "Disable" }).click();
  await page.getByText("Stage (deprecated)").waitFor({ state: old ? "hidden" : "visible" });
}

// Whichever comes first. `whole`: nothing of the message lies outside the window once it stands still.
async function outcome(message, done) {
  await message.or(done).first().waitFor();
  if (!(await message.isVisible())) return { alert: null };
  await (await message.elementHandle()).waitForElementState("stable");
  const box = await message.boundingBox();
  const { width, height } = page.viewportSize();
  const whole = box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height;
  return { alert: await message.innerText(), whole };
}

const commands = {
  async aliases(asked) {
    const edit = page.getByRole("button", { name: "Add", exact: true }).or(page.getByTitle("Edit aliases"));
    await open(asked);
    await edit.click();
    for (const alias of asked.remove ?? [])
      await dialog.getByRole("status").filter({ hasText: alias }).getByRole("button").click();
    const field = dialog.getByRole("combobox");
    for (const alias of asked.add ?? []) {
      await field.fill(alias);
      await field.press("Enter");
    }
    await dialog.getByRole("button", { name: "Save aliases" }).click();
    return outcome(dialog.getByRole("alert").filter({ hasText: "mlseal" }), page.locator("body:not(:has([role=dialog] form))"));
  },

  async stage(asked) {
    await open(asked, true);
    await page.getByText("None", { exact: true }).first().click();
    await page.getByRole("menuitem").filter({ hasText: asked.stage }).click();
    await dialog.getByRole("button", { name: "OK" }).click();
    return outcome(page.getByText("PERMISSION_DENIED"), page.locator("#root").getByText(asked.stage, { exact: true }));
  },

  async promote(asked) {
    await open(asked);
    await page.getByRole("button", { name: "Promote model" }).click();
    await dialog.getByRole("combobox").fill(asked.to);
    await page.getByText(asked.to, { exact: true }).locator("visible=true").last().click();
    await dialog.getByRole("button", { name: "Promote" }).click();
    return outcome(page.getByText("PERMISSION_DENIED"), page.getByText("Copied from"));
  },

  async picture({ file }) {
    await page.screenshot({ path: file });
    return {};
  },

  async look({ url, width, scheme = "light", media = "screen", file, height }) {
    const context = await browser.newContext({ viewport: { width, height: height ?? 900 }, colorScheme: scheme });
    context.setDefaultTimeout(60_000);
    try {
      const one = await context.newPage();
      const requests = [];
      const ran = [];
      one.on("request", (request) => requests.push(request.url()));
      one.on("console", (message) => ran.push(message.text())); // also what the page's own policy kept it from
      one.on("pageerror", (error) => ran.push(String(error)));
      await one.emulateMedia({ media, colorScheme: scheme });
      await one.goto(url, { waitUntil: "load" });
      if (file) await one.screenshot({ path: file, fullPage: !height });
      return { ...(await one.evaluate(seen)), requests: requests.filter((asked) => asked !== url), ran };
    } finally {
      await context.close();
    }
  },
};

// What a reader of the page gets, asked of the browser that drew it. `hidden`: texts of which a part lies outside and
// cannot be scrolled to; `least`: the smallest contrast (WCAG 2.1) of a text with what is painted behind it.
function seen() {
  const root = document.documentElement;
  const shown = (one) => one.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const parts = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return getComputedStyle(root).colorScheme.includes("dark") && matchMedia("(prefers-color-scheme: dark)").matches
      ? "rgb(0, 0, 0)"
      : "rgb(255, 255, 255)";
  };
  const contrast = (one) => {
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const every = [...document.body.querySelectorAll("*")].filter((one) => !(one instanceof SVGElement));
  const texts = every.filter((one) => shown(one) && [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  const scrolls = (one) => ["auto", "scroll"].includes(getComputedStyle(one).overflowX) && matchMedia("screen").matches;
  const reachable = (one) => {
    for (let at = one; at; at = at.parentElement) if (scrolls(at)) return true;
    return one.getBoundingClientRect().right <= root.clientWidth + 1 && one.getBoundingClientRect().left >= -1;
  };
  return {
    plots: [...document.querySelectorAll("svg")].filter(shown).map((one) => {
      const box = one.getBoundingClientRect();
      return { width: box.width, height: box.height, marks: one.querySelectorAll("path, use").length };
    }),
    overflow: root.scrollWidth - root.clientWidth,
    hidden: texts.filter((one) => !reachable(one)).map((one) => one.textContent.trim().slice(0, 60)),
    least: Math.min(...texts.map(contrast)),
    scripts: document.scripts.length + [...document.querySelectorAll("*")].filter((one) => [...one.attributes].some((a) => /^on/i.test(a.name))).length,
    headings: [...document.querySelectorAll("h1, h2")].filter(shown).map((one) => one.innerText),
    text: document.body.innerText,
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer;
  try {
    answer = await commands[asked.do](asked);
  } catch (error) {
    answer = { failed: String(error), shows: await page.locator("body").innerText().catch(() => "") };
  }
  console.log(JSON.stringify(answer));
}
await browser.close();
