// The map: indexed scenes as tiles of this service, footprints of the results, a graticule, and
// rectangles to draw. Leaflet comes with NiceGUI; no request goes to another host. Tiles wait until the
// pictures of the visible results are there, and until the map is visible: the link may be slow.

import { leaflet as L } from "nicegui-leaflet";
import { loadResource } from "../../static/utils/resources.js";

const SMALL = 6; // pixels; the map shows a smaller footprint as a dot
const SCENES = 60; // most scenes shown as tiles at once
const LARGE = 64; // pixels; with more scenes in view, the map shows only those of this side
const STEPS = [30, 15, 10]; // degrees between lines of the graticule, then 5, 2, 1, 0.5, 0.2 …
for (let power = 0; power > -6; power--) for (const n of [5, 2, 1]) STEPS.push(n * 10 ** power);
const SCENE = { interactive: false, fill: false, weight: 1, color: "#7a8a99", opacity: 0.8 };
const LINE = { weight: 2, color: "#ff8a1f", opacity: 0.95, fillColor: "#ff8a1f", fillOpacity: 0.12 };
const HIGHLIGHTED = { weight: 4, color: "#00b7ff", opacity: 1, fillColor: "#00b7ff", fillOpacity: 0.3 };

const box = ([west, south, east, north]) =>
  L.latLngBounds([south, west], [north, west > east ? east + 360 : east]);

export default {
  template: `
    <div class="map">
      <div ref="map" class="map-canvas" role="application" :aria-label="label"></div>
      <div class="map-tools" role="toolbar" aria-label="Map tools">
        <button v-for="tool in tools" :key="tool.mode" type="button" :title="tool.title"
                :aria-pressed="mode === tool.mode" @click="draw(tool.mode)">
          <i class="material-icons" aria-hidden="true">{{ tool.icon }}</i><span>{{ tool.name }}</span>
        </button>
        <button type="button" title="Show all scenes and results" @click="fit(true)">
          <i class="material-icons" aria-hidden="true">zoom_out_map</i><span>Show all</span>
        </button>
      </div>
      <div v-if="mode" class="map-hint" role="status">
        <span>{{ hint }}</span>
        <button type="button" @click="finish(map.getBounds())">Use this view</button>
        <button type="button" @click="draw(null)">Cancel</button>
      </div>
    </div>
  `,
  props: { label: String, resourcePath: String },
  data: () => ({ mode: null }),
  computed: {
    hint() {
      return this.mode === "area"
        ? "Drag a rectangle to show only results inside it."
        : "Drag a rectangle on a scene to search with it.";
    },
  },
  created() {
    this.tools = [
      { mode: "window", icon: "crop_free", name: "Search here", title: "Search with a rectangle of a scene" },
      { mode: "area", icon: "filter_alt", name: "Only here", title: "Only results in a rectangle" },
    ];
    this.footprints = new Map(); // id → { shape, dot, bounds, shown }
    this.sceneLayers = null;
    this.highlighted = null;
    this.drawnAt = -Infinity;
    this.sceneBounds = null;
  },
  async mounted() {
    // First, because messages from the server need the map; its style sheet follows.
    this.make();
    await this.$nextTick(); // window.path_prefix is set after the first rendering
    await loadResource((window.path_prefix || "") + this.resourcePath + "/leaflet/leaflet.css");
    this.map.invalidateSize({ pan: false });
    this.drawGraticule();
    this.$emit("ready");
  },
  unmounted() {
    this.observer.disconnect();
    window.removeEventListener("rsir:items", this.onItems);
    window.removeEventListener("rsir:highlight", this.onHighlight);
    for (const event of ["rsir:panel", "rsir:pictures"]) window.removeEventListener(event, this.drawScenes);
    window.removeEventListener("keydown", this.onKey);
    this.map.remove();
  },
  methods: {
    make() {
      const map = (this.map = L.map(this.$refs.map, {
        center: [0, 0], zoom: 1, minZoom: 1, maxZoom: 22, zoomSnap: 0.5, attributionControl: false, zoomControl: false,
        zoomAnimation: !matchMedia("(prefers-reduced-motion: reduce)").matches,
      }));
      L.control.zoom({ position: "bottomright" }).addTo(map);
      L.control.scale({ imperial: false, position: "bottomright" }).addTo(map);
      this.graticule = L.layerGroup().addTo(map);
      this.tiles = L.layerGroup().addTo(map);
      this.drawn = L.layerGroup().addTo(map);
      this.renderer = L.canvas({ padding: 0.3, tolerance: 3 });
      this.outlines = L.layerGroup().addTo(map);
      this.shapes = L.layerGroup().addTo(map);
      map.createPane("drawn").style.zIndex = 450; // over the results, which are at 400
      map.createPane("grid").style.zIndex = 150; // under the tiles, which are at 200
      map.on("moveend", () => { this.drawGraticule(); this.drawScenes(); });
      map.on("zoomend", this.resize);
      map.on("click", (event) => {
        // The end of a drag also arrives as a click.
        if (this.mode || performance.now() - this.drawnAt < 300) return;
        this.$emit("point", [event.latlng.lng, event.latlng.lat]);
      });
      this.$refs.map.addEventListener("pointerdown", this.startRectangle);
      this.onItems = (event) => this.items(event.detail);
      this.onHighlight = (event) => this.highlight(event.detail);
      this.onKey = (event) => { if (event.key === "Escape" && this.mode) this.draw(null); };
      window.addEventListener("rsir:items", this.onItems);
      window.addEventListener("rsir:highlight", this.onHighlight);
      for (const event of ["rsir:panel", "rsir:pictures"]) window.addEventListener(event, this.drawScenes);
      window.addEventListener("keydown", this.onKey);
      this.observer = new ResizeObserver(() => {
        map.invalidateSize({ pan: false });
        if (this.unfitted && this.$refs.map.clientWidth) this.fit();
        this.drawScenes();
      });
      this.observer.observe(this.$refs.map);
    },

    // Called by the server. url: of the scenes' tiles, with {scene}; scenes: [[id, bounds, ring]].
    showScenes(url, scenes) {
      this.url = url;
      this.sceneLayers = scenes.map(([id, bounds, ring]) => ({ id, bounds: box(bounds), ring, layer: null }));
      this.outlines.clearLayers();
      this.sceneBounds = L.latLngBounds([]);
      for (const { bounds, ring } of this.sceneLayers) {
        this.sceneBounds.extend(bounds);
        const corners = L.GeoJSON.coordsToLatLngs(ring, 0);
        L.polygon(corners, { ...SCENE, renderer: this.renderer }).addTo(this.outlines);
      }
      this.fit();
      this.drawScenes();
    },
    // Show the scenes in view as tiles.
    drawScenes() {
      const { map } = this.$refs;
      if (window.rsirPictures || !map.clientWidth || getComputedStyle(map).visibility !== "visible") return;
      const view = this.map.getBounds();
      let visible = (this.sceneLayers || []).filter(({ bounds }) => view.intersects(bounds));
      // With many scenes in view, show none of the small ones: only some would be misleading.
      if (visible.length > SCENES) visible = visible.filter(({ bounds }) => this.pixels(bounds) >= LARGE);
      visible = new Set(visible.slice(0, SCENES)); // the server sends the largest first
      for (const scene of this.sceneLayers || []) {
        const show = visible.has(scene);
        if (show && !scene.layer) {
          scene.layer = L.tileLayer(this.url.replace("{scene}", scene.id), {
            bounds: scene.bounds, maxZoom: 22, keepBuffer: 1,
          }).addTo(this.tiles);
        } else if (!show && scene.layer) {
          this.tiles.removeLayer(scene.layer);
          scene.layer = null;
        }
      }
    },
    pixels(bounds) {
      const a = this.map.latLngToLayerPoint(bounds.getNorthWest());
      const b = this.map.latLngToLayerPoint(bounds.getSouthEast());
      return Math.max(b.x - a.x, b.y - a.y);
    },
    showRectangles(window, area) {
      this.drawn.clearLayers();
      if (area) this.outline(box(area), "area").addTo(this.drawn);
      if (window) this.outline(box(window), "window").addTo(this.drawn);
    },
    // Light dashes on dark, so that they show on any image.
    outline(bounds, kind) {
      const style = { interactive: false, fill: false, pane: "drawn" };
      return L.featureGroup([
        L.rectangle(bounds, { ...style, className: "map-casing", weight: 5 }),
        L.rectangle(bounds, { ...style, className: "map-" + kind, weight: 2 }),
      ]);
    },

    // Results from the list; first, last: whether the list begins or ends with them.
    items({ first, last, items }) {
      if (first) {
        this.footprints.clear();
        this.shapes.clearLayers();
        this.highlighted = null;
      }
      for (const item of items) if (item.footprint) this.add(item);
      this.resize();
      if (last) this.fit();
    },
    add(item) {
      const { type, coordinates } = item.footprint;
      const depth = { Polygon: 1, MultiPolygon: 2 }[type];
      if (!depth) return;
      const shape = L.polygon(L.GeoJSON.coordsToLatLngs(coordinates, depth), {
        ...LINE, renderer: this.renderer, bubblingMouseEvents: false,
      });
      const bounds = shape.getBounds();
      const dot = L.circleMarker(bounds.getCenter(), {
        ...LINE, radius: 3, fillOpacity: 0.6, renderer: this.renderer, bubblingMouseEvents: false,
      });
      for (const layer of [shape, dot]) {
        layer.on("mouseover", () => this.sendHighlight(item.id));
        layer.on("mouseout", () => this.sendHighlight(null));
        layer.on("click", () => this.$emit("details", item.id));
        layer.bindTooltip(() => this.tip(item), { className: "map-tip", sticky: true });
      }
      this.footprints.set(item.id, { shape, dot, bounds, shown: null });
    },
    resize() {
      for (const footprint of this.footprints.values()) {
        const layer = this.pixels(footprint.bounds) >= SMALL ? footprint.shape : footprint.dot;
        if (layer === footprint.shown) continue;
        if (footprint.shown) this.shapes.removeLayer(footprint.shown);
        footprint.shown = layer;
        this.shapes.addLayer(layer);
      }
    },
    tip(item) {
      const tip = document.createElement("div");
      const image = document.createElement("img");
      image.src = item.picture;
      image.alt = "";
      const text = document.createElement("div");
      text.textContent = [item.score, item.class].filter(Boolean).join(" · ");
      tip.append(image, text);
      return tip;
    },
    sendHighlight(id) { window.dispatchEvent(new CustomEvent("rsir:highlight", { detail: id })); },
    highlight(id) {
      for (const [changed, style] of [[this.highlighted, LINE], [id, HIGHLIGHTED]]) {
        const layers = this.footprints.get(changed);
        if (!layers) continue;
        layers.shape.setStyle(style);
        layers.dot.setStyle({ ...style, fillOpacity: 0.6 }).setRadius(style === HIGHLIGHTED ? 7 : 3);
        if (style === HIGHLIGHTED && layers.shown) layers.shown.bringToFront();
      }
      this.highlighted = id;
    },
    reveal(id) {
      const footprint = this.footprints.get(id);
      if (!footprint) return;
      this.map.fitBounds(footprint.bounds.pad(2), { maxZoom: 18 });
      this.highlight(id);
    },
    fit(everything) {
      let bounds = L.latLngBounds([]);
      for (const footprint of this.footprints.values()) bounds.extend(footprint.bounds);
      if (this.sceneBounds?.isValid() && (everything || !bounds.isValid())) bounds.extend(this.sceneBounds);
      this.unfitted = !this.$refs.map.clientWidth;
      if (this.unfitted || !bounds.isValid()) return;
      this.map.fitBounds(bounds, { padding: [24, 24], maxZoom: 18, animate: !!everything });
    },

    // Start or stop drawing a rectangle; mode: "window", "area" or null.
    draw(mode) {
      this.mode = mode === this.mode ? null : mode;
      this.rectangle?.remove();
      this.map.dragging[this.mode ? "disable" : "enable"]();
      this.$refs.map.classList.toggle("map-drawing", !!this.mode);
    },
    startRectangle(event) {
      if (!this.mode || event.button || event.target.closest(".leaflet-control")) return;
      event.preventDefault();
      const corner = this.map.mouseEventToLatLng(event);
      this.rectangle?.remove();
      this.rectangle = this.outline(L.latLngBounds(corner, corner), this.mode).addTo(this.map);
      const canvas = this.$refs.map;
      canvas.setPointerCapture(event.pointerId);
      const move = (e) => {
        const bounds = L.latLngBounds(corner, this.map.mouseEventToLatLng(e));
        this.rectangle.eachLayer((layer) => layer.setBounds(bounds));
      };
      const end = (e) => {
        canvas.removeEventListener("pointermove", move);
        canvas.removeEventListener("pointerup", end);
        canvas.removeEventListener("pointercancel", end);
        const [x, y] = [Math.abs(e.clientX - event.clientX), Math.abs(e.clientY - event.clientY)];
        if (e.type === "pointerup" && this.mode && x > 4 && y > 4) this.finish(this.rectangle.getBounds());
        else this.rectangle?.remove();
      };
      canvas.addEventListener("pointermove", move);
      canvas.addEventListener("pointerup", end);
      canvas.addEventListener("pointercancel", end);
    },
    finish(bounds) {
      this.$emit(this.mode, [bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()]);
      this.drawnAt = performance.now();
      this.draw(null);
    },

    drawGraticule() {
      this.graticule.clearLayers();
      const view = this.map.getBounds();
      const { x: width } = this.map.getSize();
      if (!width) return;
      const least = ((view.getEast() - view.getWest()) / width) * 130; // a line every 130 pixels
      const step = STEPS.findLast((degrees) => degrees >= least) ?? STEPS[0];
      const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
      const lines = (low, high, draw) => {
        for (let n = Math.ceil(low / step); n <= high / step; n++) draw(n * step);
      };
      const style = { className: "map-grid", weight: 1, interactive: false, pane: "grid" };
      const label = (at, text, kind) => L.marker(at, {
        interactive: false, keyboard: false,
        icon: L.divIcon({ className: "map-degrees " + kind, html: text, iconSize: null }),
      }).addTo(this.graticule);
      const [south, north] = [Math.max(view.getSouth(), -85), Math.min(view.getNorth(), 85)];
      lines(view.getWest(), view.getEast(), (lng) => {
        L.polyline([[south, lng], [north, lng]], style).addTo(this.graticule);
        const wrapped = ((((lng + 180) % 360) + 360) % 360) - 180;
        const side = Math.abs(wrapped) < step / 2 ? "" : wrapped > 0 ? " E" : " W";
        label([south, lng], Math.abs(wrapped).toFixed(digits) + "°" + side, "map-lng");
      });
      lines(south, north, (lat) => {
        L.polyline([[lat, view.getWest()], [lat, view.getEast()]], style).addTo(this.graticule);
        const side = Math.abs(lat) < step / 2 ? "" : lat > 0 ? " N" : " S";
        label([lat, view.getWest()], Math.abs(lat).toFixed(digits) + "°" + side, "map-lat");
      });
    },
  },
};
