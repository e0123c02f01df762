// Results as a feed of cards. Only the rows near the visible part are in the document, so that
// 5,000 results are as quick as 50. All text goes through Vue's interpolation: it is never HTML.

const CARD = 140; // least width of a card, pixels
const TEXT = 68; // height of a card's text
const GAP = 12;
const ROWS_AROUND = 3; // rows kept above and below the visible ones

export default {
  template: `
    <div class="results" role="feed" :aria-label="label" :aria-busy="items.length < total"
         @keydown="onKey" @focusin="onFocus">
      <div :style="{ height: height + 'px', position: 'relative' }">
        <article v-for="cell in visible" :key="cell.item.id" class="card"
                 :class="{ lit: cell.item.id === lit, picked: picked.has(cell.item.id),
                           liked: rating(cell.item.id) > 0, disliked: rating(cell.item.id) < 0 }"
                 :style="cell.style" :data-place="cell.place"
                 :tabindex="cell.place === current ? 0 : -1"
                 :aria-posinset="cell.place + 1" :aria-setsize="total"
                 :aria-label="spoken(cell)" aria-keyshortcuts="Enter Space M + -"
                 @pointerenter="hover($event, cell.item.id)" @pointerleave="hover($event, null)">
          <div class="picture" @click="$emit('details', cell.item.id)">
            <img v-if="!broken.has(cell.item.id)" :src="cell.item.picture" :alt="cell.item.alt"
                 loading="lazy" decoding="async" draggable="false" @error="broken.add(cell.item.id)">
            <div v-else class="no-picture">No picture: its file is gone or cannot be read</div>
            <span class="rank" aria-hidden="true">{{ cell.place + 1 }}</span>
          </div>
          <label class="pick" :title="'Select result ' + (cell.place + 1)">
            <input type="checkbox" :checked="picked.has(cell.item.id)"
                   :tabindex="cell.place === current ? 0 : -1"
                   :aria-label="'Select result ' + (cell.place + 1)"
                   @change="pick(cell.item.id)">
          </label>
          <div class="text">
            <div class="line"><b>{{ cell.item.score }}</b><span class="class">{{ cell.item.class }}</span></div>
            <div class="place">{{ cell.item.place || cell.item.name }}</div>
            <div class="date">{{ cell.item.date }}</div>
          </div>
          <div class="acts">
            <button v-for="act in acts" :key="act.icon" type="button" :title="act.title"
                    :aria-label="act.title + ', result ' + (cell.place + 1)"
                    :aria-pressed="act.rating ? rating(cell.item.id) === act.rating : undefined"
                    :tabindex="cell.place === current ? 0 : -1" @click="act.run(cell.item.id)">
              <i class="material-icons" aria-hidden="true">{{ act.icon }}</i>
            </button>
          </div>
        </article>
      </div>
    </div>
  `,
  props: { label: String },
  data() {
    return {
      items: [], total: 0, run: "", ratings: {}, picked: new Set(), broken: new Set(),
      lit: null, current: 0, top: 0, width: 0, tall: 800,
    };
  },
  created() {
    this.acts = [
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
      this.tall = this.scroller.clientHeight;
      this.onScroll();
    });
    this.observer.observe(this.$el);
    this.observer.observe(this.scroller);
    this.onLight = (event) => { this.lit = event.detail; };
    window.addEventListener("rsir:light", this.onLight);
  },
  updated() { this.focusCurrent(); },
  unmounted() {
    this.scroller.removeEventListener("scroll", this.onScroll);
    this.observer.disconnect();
    window.removeEventListener("rsir:light", this.onLight);
  },
  computed: {
    columns() { return Math.max(2, Math.floor((this.width + GAP) / (CARD + GAP))); },
    side() { return Math.max(0, (this.width - GAP * (this.columns - 1)) / this.columns); },
    pitch() { return this.side + TEXT + GAP; },
    height() { return Math.ceil(this.items.length / this.columns) * this.pitch; },
    visible() {
      if (!this.width) return [];
      const first = Math.max(0, Math.floor(this.top / this.pitch) - ROWS_AROUND);
      const last = Math.ceil((this.top + this.tall) / this.pitch) + ROWS_AROUND;
      const places = [];
      const end = Math.min(this.items.length, last * this.columns);
      for (let place = first * this.columns; place < end; place++) places.push(place);
      // The card that has the focus stays in the document, or the focus would be lost.
      if (this.items[this.current] && !places.includes(this.current)) places.push(this.current);
      return places.map((place) => ({
        place,
        item: this.items[place],
        style: {
          width: this.side + "px",
          height: this.side + TEXT + "px",
          transform: `translate(${(place % this.columns) * (this.side + GAP)}px, ` +
            `${Math.floor(place / this.columns) * this.pitch}px)`,
        },
      }));
    },
  },
  methods: {
    // From the server: a new list begins; a part of it comes; what is rated and selected.
    begin(run, total) {
      // Whoever went from result to result goes on so, though the results are others.
      const active = document.activeElement;
      this.refocus = run > 1 && (active === document.body || this.scroller.contains(active));
      this.run = run;
      this.items = [];
      this.total = total;
      this.current = 0;
      this.picked = new Set();
      this.lit = null;
      this.scroller.scrollTop = 0;
      this.top = 0;
      this.tell(true, !total, []);
    },
    push(run, items) {
      if (run !== this.run) return;
      const first = !this.items.length;
      const last = this.items.length + items.length === this.total;
      this.items.push(...items.map(Object.freeze));
      if (first && this.refocus) this.go(0);
      this.tell(first, last, items);
    },
    // To the map: the first of the results, more of them, the last.
    tell(first, last, items) {
      window.dispatchEvent(new CustomEvent("rsir:items", { detail: { first, last, items } }));
    },
    rated(ratings) { this.ratings = ratings; },
    choose(ids) {
      this.picked = new Set(ids);
      this.$emit("picked", [...this.picked]);
    },
    chooseAll() { this.choose(this.items.map((item) => item.id)); },
    reveal(id) {
      const place = this.items.findIndex((item) => item.id === id);
      if (place >= 0) this.go(place);
    },

    rating(id) { return this.ratings[id] || 0; },
    rate(id, rating) { this.$emit("rate", { id, rating: this.rating(id) === rating ? 0 : rating }); },
    pick(id) {
      const picked = new Set(this.picked);
      if (!picked.delete(id)) picked.add(id);
      this.choose(picked);
    },
    hover(event, id) { if (event.pointerType === "mouse") this.light(id); }, // not of a touch
    light(id) { window.dispatchEvent(new CustomEvent("rsir:light", { detail: id })); },
    spoken({ item, place }) {
      const rating = { 1: "rated like this", "-1": "rated not like this" }[this.rating(item.id)];
      const parts = ["score " + item.score, item.class, item.place, item.date, item.name, rating];
      return `Result ${place + 1}: ${parts.filter(Boolean).join(", ")}`;
    },
    offset() {
      return this.$el.getBoundingClientRect().top - this.scroller.getBoundingClientRect().top
        + this.scroller.scrollTop;
    },
    onFocus(event) {
      const card = event.target.closest(".card");
      if (!card) return;
      this.current = Number(card.dataset.place);
      if (event.target.matches(":focus-visible")) this.light(this.items[this.current].id);
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
      if (!event.target.classList.contains("card")) return; // Enter and Space on a button are its own
      const id = this.items[this.current].id;
      const act = {
        Enter: () => this.$emit("details", id),
        " ": () => this.pick(id),
        m: () => this.$emit("more", id),
        "+": () => this.rate(id, 1),
        "-": () => this.rate(id, -1),
      }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act) return;
      event.preventDefault();
      act();
    },
    async go(place) {
      this.current = Math.min(this.items.length - 1, Math.max(0, place));
      const top = this.offset() + Math.floor(this.current / this.columns) * this.pitch;
      const bottom = top + this.pitch;
      if (top < this.scroller.scrollTop) this.scroller.scrollTop = top - GAP;
      else if (bottom > this.scroller.scrollTop + this.tall) this.scroller.scrollTop = bottom - this.tall + GAP;
      this.onScroll();
      this.focusing = true;
      await this.$nextTick();
      this.focusCurrent();
    },
    // The card may come into the document only after the list has got its size.
    focusCurrent() {
      const card = this.focusing && this.$el.querySelector(`[data-place="${this.current}"]`);
      if (!card) return;
      this.focusing = false;
      card.focus({ preventScroll: true });
    },
  },
};
