"use strict";

const root = document.documentElement;
const remembered = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
if (remembered) root.dataset.theme = remembered;

document.querySelector(".theme")?.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* private window: for this page only */ }
});

const side = document.querySelector(".side");
const menu = document.querySelector(".menu");
const openMenu = (open) => { side?.classList.toggle("open", open); menu?.setAttribute("aria-expanded", String(open)); };
menu?.addEventListener("click", () => openMenu(!side.classList.contains("open")));
side?.addEventListener("click", (event) => { if (event.target.closest("a")) openMenu(false); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") openMenu(false); });

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("code").textContent;
    try { await navigator.clipboard.writeText(text); } catch { return; }
    button.textContent = "Copied";
    button.classList.add("done");
    setTimeout(() => { button.textContent = "Copy"; button.classList.remove("done"); }, 1400);
  });
}

// One language for the whole page: who reads Python reads all of it in Python.
const speak = (language) => {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.language === language;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
};
for (const list of document.querySelectorAll("[role=tablist]")) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (!tab) return;
    const before = tab.getBoundingClientRect().top;
    speak(tab.dataset.language);
    scrollBy({ top: tab.getBoundingClientRect().top - before, behavior: "instant" });
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    speak(next.dataset.language);
    next.focus();
  });
}

const entries = new Map([...document.querySelectorAll(".side a")].map((link) => [link.hash.slice(1), link]));
const sections = [...document.querySelectorAll("main section[id]")];
const mark = () => {
  const line = innerHeight / 4;
  const current = sections.findLast((section) => section.getBoundingClientRect().top <= line) ?? sections[0];
  for (const [anchor, link] of entries) link.classList.toggle("current", anchor === current?.id);
};
if (sections.length) { addEventListener("scroll", mark, { passive: true }); mark(); }

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Links name the public address, which need not be the one this page was opened at: only their path is used.
const own = (url) => { const at = new URL(url, location.href); return at.pathname + at.search; };

const show = (shown, result) => {
  const media = document.createElement(result.type === "video" ? "video" : "img");
  media.src = own(result.url);
  if (result.width && result.height) [media.width, media.height] = [result.width, result.height];
  if (result.type === "video") {
    media.controls = true;
    if (result.previewUrl) media.poster = own(result.previewUrl);
  } else {
    media.alt = "The generated image";
  }
  const link = document.createElement("a");
  link.href = own(result.url);
  link.textContent = "Open the file";
  shown.replaceChildren(media, link);
};

// A job that was made here is followed to its end, as a client would do it, where this contract's paths are known.
const paths = [...document.querySelectorAll(".try form")].map((form) => form.dataset.path);
const statusPath = paths.find((path) => path.endsWith("/{jobId}"));
const resultPath = paths.find((path) => path.endsWith("/{jobId}/result"));
const follow = async (jobId, headers, status, shown) => {
  const at = (path) => path.replace("{jobId}", encodeURIComponent(jobId));
  status.textContent = "Accepted; waiting for it …";
  for (;;) {
    const answer = await fetch(at(statusPath), { headers });
    const job = await answer.json();
    if (answer.ok && job.status === "complete") break;
    if (answer.ok && job.status === "failed") { status.textContent = `Failed: ${job.error.message}`; return; }
    if (!answer.ok && answer.status !== 429 && answer.status !== 503) { status.textContent = job.error.message; return; }
    if (answer.ok) status.textContent = `${job.status}, ${job.progress} %`;
    await pause(1000 * Math.min(30, Number(answer.headers.get("Retry-After")) || 2));
  }
  const answer = await fetch(at(resultPath), { headers });
  const result = await answer.json();
  if (!answer.ok) { status.textContent = result.error.message; return; }
  status.textContent = "Complete.";
  show(shown, result);
};

for (const form of document.querySelectorAll(".try form")) {
  const output = form.querySelector(".code");
  const status = form.querySelector(".progress");
  const shown = form.querySelector(".shown");
  const button = form.querySelector("[type=submit]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = new FormData(form);
    const authorization = { Authorization: `Bearer ${fields.get("key").trim()}` };
    const headers = { ...authorization };
    const request = { method: form.dataset.method, headers };
    if (fields.has("body")) {
      headers["Content-Type"] = "application/json";
      headers["Idempotency-Key"] = `docs-${Date.now()}-${Math.random().toString(36).slice(2)}`;
      request.body = fields.get("body");
    }
    button.disabled = true;
    status.textContent = "";
    shown.replaceChildren();
    const say = (text) => { output.querySelector("code").textContent = text; output.hidden = false; };
    try {
      const path = form.dataset.path.replace("{jobId}", encodeURIComponent((fields.get("jobId") ?? "").trim()));
      const response = await fetch(path, request);
      const raw = await response.text();
      let body = null;
      try { body = JSON.parse(raw); } catch { /* shown as it came */ }
      say(`${response.status} ${response.statusText}\n\n${body ? JSON.stringify(body, null, 2) : raw}`);
      if (response.status === 202 && body?.jobId) {
        for (const input of document.querySelectorAll("input[name=jobId]")) input.value = body.jobId;
        if (statusPath && resultPath) await follow(body.jobId, authorization, status, shown);
      } else if (response.ok && body?.url) {
        show(shown, body);
      }
    } catch (fault) {
      if (output.hidden) say(String(fault)); else status.textContent = String(fault);
    } finally {
      button.disabled = false;
    }
  });
}
// A key is typed once for all panels of the tab, and kept nowhere else.
for (const input of document.querySelectorAll("input[name=key]")) {
  input.addEventListener("change", () => {
    for (const other of document.querySelectorAll("input[name=key]")) other.value = input.value;
  });
}
