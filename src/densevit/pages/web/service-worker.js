// Keeps the folder's files, so that the page works without a network. The parts of the page are kept at once, the model
// and the runtime when they are loaded first.

const { version, page, model } = self.FOLDER; // the export puts them here
const CACHE = `densevit ${self.registration.scope} ${version}`;
const KEPT = new Set([...page, ...model].map((file) => new URL(file, self.registration.scope).href));
const INDEX = new URL("index.html", self.registration.scope).href;

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const address = url.href === self.registration.scope ? INDEX : url.origin + url.pathname;
  if (event.request.method === "GET" && (KEPT.has(address) || url.origin + url.pathname === self.registration.scope)) {
    event.respondWith(answer(KEPT.has(address) ? address : INDEX));
  }
});

async function install() {
  const cache = await caches.open(CACHE);
  await cache.addAll(page.map((file) => new Request(file, { cache: "no-cache" })));
  await self.skipWaiting();
}

async function activate() {
  const old = (await caches.keys()).filter((name) => name.startsWith(`densevit ${self.registration.scope} `));
  await Promise.all(old.filter((name) => name !== CACHE).map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function answer(address) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(address);
  if (kept) return kept;
  const response = await fetch(address, { cache: "no-cache" });
  if (response.ok) cache.put(address, response.clone()).catch(() => {}); // the device may refuse so much space
  return response;
}
