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

// What the answer at a dotted name is, or undefined.
const within = (answer, names) => names.split(".").reduce((value, name) => value?.[name], answer);

const texts = (answer) => (answer && typeof answer === "object" ? Object.values(answer).flatMap(texts) : [answer]);

// Every file that an answer links to, as what a person would look at or listen to.
const show = (shown, answer) => {
  const urls = [...new Set(texts(answer).filter((text) => typeof text === "string" && text.includes("/media/")).map(own))];
  shown.replaceChildren(...urls.flatMap((url) => {
    const link = document.createElement("a");
    [link.href, link.textContent] = [url, "Open the file"];
    const kind = { mp4: "video", mp3: "audio", wav: "audio", png: "img", jpg: "img", webp: "img" }[url.split("?")[0].split(".").pop()];
    if (!kind) return [link];
    const media = document.createElement(kind);
    media.src = url;
    if (kind === "img") media.alt = "The generated picture"; else media.controls = true;
    return [media, link];
  }));
};

// A job that was made here is followed to its end, as a client would do it.
const tracking = JSON.parse(document.querySelector("main").dataset.tracking ?? "null");
const follow = async (jobId, headers, status, shown) => {
  const at = (path) => (path.includes(`{${tracking.parameter}}`)
    ? path.replace(`{${tracking.parameter}}`, encodeURIComponent(jobId))
    : `${path}?${new URLSearchParams({ [tracking.parameter]: jobId })}`);
  status.textContent = "Accepted; waiting for it …";
  let job;
  for (;;) {
    const answer = await fetch(at(tracking.status_path), { headers });
    job = await answer.json();
    const word = within(job, tracking.status);
    if (answer.ok) status.textContent = word;
    if (answer.ok && tracking.ended.includes(word)) break;
    if (!answer.ok && answer.status !== 429 && answer.status !== 503) return;
    await pause(1000 * Math.min(30, Number(answer.headers.get("Retry-After")) || 2));
  }
  if (tracking.result_path) {
    const answer = await fetch(at(tracking.result_path), { headers });
    if (answer.ok) job = await answer.json();
  }
  show(shown, job);
};

for (const form of document.querySelectorAll(".try form")) {
  const output = form.querySelector(".code");
  const status = form.querySelector(".progress");
  const shown = form.querySelector(".shown");
  const button = form.querySelector("[type=submit]");
  const typed = (place) => [...form.querySelectorAll(`input[name^="${place}:"]`)]
    .map((input) => [input.name.slice(place.length + 1), input.value.trim()]);
  const requested = () => {
    const fields = new FormData(form);
    const headers = fields.has("key") ? { Authorization: `Bearer ${fields.get("key").trim()}` } : {};
    const query = new URLSearchParams(typed("query").filter(([, value]) => value));
    const path = typed("path").reduce((at, [name, value]) => at.replace(`{${name}}`, encodeURIComponent(value)), form.dataset.path);
    const request = { method: form.dataset.method, headers: { ...headers } };
    if ("keyed" in form.dataset) request.headers["Idempotency-Key"] = `docs-${Date.now()}-${Math.random().toString(36).slice(2)}`;
    if (fields.has("body")) {
      const asForm = "form" in form.dataset;
      if (!asForm) request.headers["Content-Type"] = "application/json";
      request.body = asForm ? new URLSearchParams(JSON.parse(fields.get("body"))) : fields.get("body");
    }
    return [query.size ? `${path}?${query}` : path, request, headers];
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    status.textContent = "";
    shown.replaceChildren();
    const say = (text) => { output.querySelector("code").textContent = text; output.hidden = false; };
    try {
      const [path, request, authorization] = requested();
      const response = await fetch(path, request);
      const raw = await response.text();
      let body = null;
      try { body = JSON.parse(raw); } catch { /* shown as it came */ }
      say(`${response.status} ${response.statusText}\n\n${body ? JSON.stringify(body, null, 2) : raw}`);
      const jobId = "keyed" in form.dataset && response.ok ? within(body, tracking.job_id) : undefined;
      if (jobId !== undefined) {
        for (const input of document.querySelectorAll(`input[name$=":${tracking.parameter}"]`)) input.value = jobId;
        await follow(jobId, authorization, status, shown);
      } else if (response.ok) {
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
