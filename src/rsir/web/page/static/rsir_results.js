// The results as a feed of cards. Only the rows near the visible part are in the document, so that
// 5,000 results are as fast as 50. All text goes through Vue's interpolation, so it is never HTML.

const CARD = 140; // least width of a card in pixels
const TEXT = 68; // height of a card's text in pixels
const GAP = 12;
const MAP_WAITS = 10000; // milliseconds that the map waits for pictures at most
const ROWS_AROUND = 3; // rows in the document above and below the visible ones

export default {
  template: `
    <div class="results" role="feed" :aria-label="label" :aria-busy="items.length < total"
         @keydown="onKey" @focusin="onFocus">
      <div :style="{ height: height + 'px', position: 'relative' }">
        <article v-for="cell in visible" :key="cell.item.id" class="card"
                 :class="{ highlighted: cell.item.id === highlighted, selected: selected.has(cell.item.id),
                           liked: rating(cell.item.id) > 0, disliked: rating(cell.item.id) < 0 }"
                 :style="cell.style" :data-index="cell.index"
                 :tabindex="cell.index === current ? 0 : -1"
                 :aria-posinset="cell.index + 1" :aria-setsize="total"
                 :aria-label="accessibleName(cell)" aria-keyshortcuts="Enter Space M + -"
                 @pointerenter="hover($event, cell.item.id)" @pointerleave="hover($event, null)">
          <div class="picture" @click="$emit('details', cell.item.id)">
            <img v-if="!broken.has(cell.item.id)" :src="cell.item.picture" :alt="cell.item.alt"
                 loading="lazy" decoding="async" draggable="false"
                 :fetchpriority="cell.shown ? 'high' : 'low'" @error="broken.add(cell.item.id)">
            <div v-else class="no-picture">No picture: its file is gone or cannot be read</div>
            <span class="rank" aria-hidden="true">{{ cell.index + 1 }}</span>
          </div>
          <label class="select" :title="'Select result ' + (cell.index + 1)">
            <input type="checkbox" :checked="selected.has(cell.item.id)"
                   :tabindex="cell.index === current ? 0 : -1"
                   :aria-label="'Select result ' + (cell.index + 1)"
                   @change="toggle(cell.item.id)">
          </label>
          <div class="text">
            <div class="line"><b>{{ cell.item.score }}</b><span class="class">{{ cell.item.class }}</span></div>
            <div class="location">{{ cell.item.location || cell.item.name }}</div>
            <div class="date">{{ cell.item.date }}</div>
          </div>
          <div class="actions">
            <button v-for="action in actions" :key="action.icon" type="button" :title="action.title"
                    :aria-label="action.title + ', result ' + (cell.index + 1)"
                    :aria-pressed="action.rating ? rating(cell.item.id) === action.rating : undefined"
                    :tabindex="cell.index === current ? 0 : -1" @click="action.run(cell.item.id)">
              <i class="material-icons" aria-hidden="true">{{ action.icon }}</i>
            </button>
          </div>
        </article>
      </div>
    </div>
  `,
  props: { label: String, expected: Boolean }, // expected: whether a search already runs
  data() {
    return {
      items: [], total: 0, search: 0, ratings: {}, selected: new Set(), broken: new Set(),
      highlighted: null, current: 0, top: 0, width: 0, viewHeight: 800,
    };
  },
  created() {
    window.rsirPictures = this.expected;
    this.actions = [
      { icon: "travel_explore", title: "More like this", run: (id) => this.$emit("more", id) },
      { icon: "thumb_up", title: "Like this", rating: 1, run: (id) => this.rate(id, 1) },
      { icon: "thumb_down", title: "Not like this", rating: -1, run: (id) => this.rate(id, -1) },
    ];
  },
  mounted() {
    this.scroller = this.$el.closest("[data-scrolls]");
    this.onScroll = () => { this.top = this.scroller.scrollTop - this.offset(); };
    this.scroller.addEventListener("scroll", this.onScroll, { passive: true });
    this.observer = new ResizeObserver(() => {
      this.width = this.$el.clientWidth;
      this.viewHeight = this.scroller.clientHeight;
      this.onScroll();
    });
    this.observer.observe(this.$el);
    this.observer.observe(this.scroller);
    this.onHighlight = (event) => { this.highlighted = event.detail; };
    window.addEventListener("rsir:highlight", this.onHighlight);
  },
  updated() { this.focusCurrent(); },
  unmounted() {
    this.scroller.removeEventListener("scroll", this.onScroll);
    this.observer.disconnect();
    window.removeEventListener("rsir:highlight", this.onHighlight);
  },
  computed: {
    columns() { return Math.max(2, Math.floor((this.width + GAP) / (CARD + GAP))); },
    side() { return Math.max(0, (this.width - GAP * (this.columns - 1)) / this.columns); },
    pitch() { return this.side + TEXT + GAP; },
    height() { return Math.ceil(this.items.length / this.columns) * this.pitch; },
    visible() {
      if (!this.width) return [];
      const seen = [Math.floor(this.top / this.pitch), Math.ceil((this.top + this.viewHeight) / this.pitch)];
      const first = Math.max(0, seen[0] - ROWS_AROUND);
      const indexes = [];
      const end = Math.min(this.items.length, (seen[1] + ROWS_AROUND) * this.columns);
      for (let index = first * this.columns; index < end; index++) indexes.push(index);
      // The card that has the focus stays in the document; else the focus would be lost.
      if (this.items[this.current] && !indexes.includes(this.current)) indexes.push(this.current);
      return indexes.map((index) => ({
        index,
        item: this.items[index],
        shown: index >= seen[0] * this.columns && index < seen[1] * this.columns,
        style: {
          width: this.side + "px",
          height: this.side + TEXT + "px",
          transform: `translate(${(index % this.columns) * (this.side + GAP)}px, ` +
            `${Math.floor(index / this.columns) * this.pitch}px)`,
        },
      }));
    },
  },
  methods: {
    // Called by the server: begin a new list of results, add some, show ratings, select.
    begin(search, total) {
      // A visitor who went from result to result by keyboard can go on in the new results.
      const active = document.activeElement;
      this.refocus = search > 1 && (active === document.body || this.scroller.contains(active));
      this.search = search;
      this.items = [];
      this.total = total;
      this.current = 0;
      this.selected = new Set();
      this.highlighted = null;
      this.scroller.scrollTop = 0;
      this.top = 0;
      window.rsirPictures = total > 0;
      if (!total) this.releaseMap(search);
      this.sendToMap(true, !total, []);
    },
    push(search, items) {
      if (search !== this.search) return;
      const first = !this.items.length;
      const last = this.items.length + items.length === this.total;
      this.items.push(...items.map(Object.freeze));
      if (first && this.refocus) this.go(0);
      if (first) this.waitForPictures(search);
      this.sendToMap(first, last, items);
    },
    // Let the map load its tiles once the pictures in view are there.
    async waitForPictures(search) {
      await this.$nextTick();
      const view = this.scroller.getBoundingClientRect();
      const inView = (img) => {
        const { top, bottom } = img.getBoundingClientRect();
        return bottom > view.top && top < view.bottom && img.checkVisibility({ visibilityProperty: true });
      };
      const pictures = [...this.$el.querySelectorAll("img")].filter((img) => inView(img) && !img.complete);
      const all = Promise.all(pictures.map((img) => new Promise((done) => {
        img.addEventListener("load", done);
        img.addEventListener("error", done);
      })));
      // A picture that is scrolled away while it loads tells nothing.
      await Promise.race([all, new Promise((done) => setTimeout(done, MAP_WAITS))]);
      this.releaseMap(search);
    },
    releaseMap(search) {
      if (search !== this.search) return;
      window.rsirPictures = false;
      window.dispatchEvent(new Event("rsir:pictures"));
    },
    // Send results to the map; first, last: whether the list begins or ends with them.
    sendToMap(first, last, items) {
      window.dispatchEvent(new CustomEvent("rsir:items", { detail: { first, last, items } }));
    },
    showRatings(ratings) { this.ratings = ratings; },
    select(ids) {
      this.selected = new Set(ids);
      this.$emit("selected", [...this.selected]);
    },
    selectAll() { this.select(this.items.map((item) => item.id)); },

    rating(id) { return this.ratings[id] || 0; },
    rate(id, rating) { this.$emit("rate", { id, rating: this.rating(id) === rating ? 0 : rating }); },
    toggle(id) {
      const selected = new Set(this.selected);
      if (!selected.delete(id)) selected.add(id);
      this.select(selected);
    },
    hover(event, id) { if (event.pointerType === "mouse") this.highlight(id); }, // not for touch
    highlight(id) { window.dispatchEvent(new CustomEvent("rsir:highlight", { detail: id })); },
    accessibleName({ item, index }) {
      const rating = { 1: "rated like this", "-1": "rated not like this" }[this.rating(item.id)];
      const parts = ["score " + item.score, item.class, item.location, item.date, item.name, rating];
      return `Result ${index + 1}: ${parts.filter(Boolean).join(", ")}`;
    },
    offset() {
      return this.$el.getBoundingClientRect().top - this.scroller.getBoundingClientRect().top
        + this.scroller.scrollTop;
    },
    onFocus(event) {
      const card = event.target.closest(".card");
      if (!card) return;
      this.current = Number(card.dataset.index);
      if (event.target.matches(":focus-visible")) this.highlight(this.items[this.current].id);
    },
    onKey(event) {
      if (event.ctrlKey || event.altKey || event.metaKey || !this.items.length) return;
      const steps = {
        ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns,
        PageDown: this.columns * 3, PageUp: -this.columns * 3,
        Home: -this.items.length, End: this.items.length,
      };
      if (event.key in steps) {
        event.preventDefault();
        this.go(this.current + steps[event.key]);
        return;
      }
      if (!event.target.classList.contains("card")) return; // a button handles Enter and Space itself
      const id = this.items[this.current].id;
      const action = {
        Enter: () => this.$emit("details", id),
        " ": () => this.toggle(id),
        m: () => this.$emit("more", id),
        "+": () => this.rate(id, 1),
        "-": () => this.rate(id, -1),
      }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!action) return;
      event.preventDefault();
      action();
    },
    async go(index) {
      this.current = Math.min(this.items.length - 1, Math.max(0, index));
      const top = this.offset() + Math.floor(this.current / this.columns) * this.pitch;
      const bottom = top + this.pitch;
      if (top < this.scroller.scrollTop) this.scroller.scrollTop = top - GAP;
      else if (bottom > this.scroller.scrollTop + this.viewHeight) this.scroller.scrollTop = bottom - this.viewHeight + GAP;
      this.onScroll();
      this.focusing = true;
      await this.$nextTick();
      this.focusCurrent();
    },
    // The card may come into the document only after the list has its size.
    focusCurrent() {
      const card = this.focusing && this.$el.querySelector(`[data-index="${this.current}"]`);
      if (!card) return;
      this.focusing = false;
      card.focus({ preventScroll: true });
    },
  },
};
