// What the browser does without the server: light or dark, the panel that a phone shows, copying the
// link. It also reports steps back and forth through the searches to the server.

const rsirMedia = matchMedia("(prefers-color-scheme: dark)");

function rsirDark() {
  const shade = localStorage.getItem("rsir-shade");
  return shade ? shade === "dark" : rsirMedia.matches;
}

function rsirShade() {
  localStorage.setItem("rsir-shade", rsirDark() ? "light" : "dark");
  rsirPaint();
}

function rsirPaint() {
  document.documentElement.dataset.shade = rsirDark() ? "dark" : "light";
  window.Quasar?.Dark.set(rsirDark());
}

function rsirPanel(name) {
  const page = document.querySelector(".page");
  if (!page) return;
  page.dataset.panel = name;
  for (const tab of page.querySelectorAll("[data-tab]")) {
    tab.setAttribute("aria-current", tab.dataset.tab === name ? "true" : "false");
  }
  dispatchEvent(new Event("rsir:panel"));
}

async function rsirCopy(text) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // no clipboard without https
    area.value = text;
    document.body.append(area);
    area.select();
    copied = document.execCommand("copy");
    area.remove();
  }
  Quasar.Notify.create({ message: copied ? "The link is copied." : "Copy it from the address bar.", type: "info" });
}

rsirPaint();
rsirMedia.addEventListener("change", rsirPaint);
addEventListener("load", rsirPaint);
addEventListener("popstate", () => emitEvent("rsir_back", location.search));
