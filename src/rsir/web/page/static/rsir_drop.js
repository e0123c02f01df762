// Choose an image by a file dialogue, by dropping it anywhere on the page, or by pasting it.
// The file goes to this service by HTTP; the event `sent` carries its token.

export default {
  template: `
    <label class="drop" :class="{ busy, over }">
      <i class="material-icons" aria-hidden="true">add_photo_alternate</i>
      <span class="drop-text"><b>{{ busy ? "Sending …" : "Choose an image" }}</b>
        <span class="drop-more">or drop or paste one anywhere on this page</span></span>
      <input type="file" :accept="accept" :disabled="busy" :aria-label="label" @change="chosen">
    </label>
  `,
  props: { url: String, label: String, accept: String, most: Number },
  data: () => ({ busy: false, over: 0 }),
  mounted() {
    this.handlers = {
      dragenter: (event) => { if (this.holdsFile(event)) { event.preventDefault(); this.over++; } },
      dragleave: (event) => { if (this.holdsFile(event)) this.over = Math.max(0, this.over - 1); },
      dragover: (event) => { if (this.holdsFile(event)) event.preventDefault(); },
      drop: (event) => {
        if (!this.holdsFile(event)) return;
        event.preventDefault();
        this.over = 0;
        this.send(event.dataTransfer.files[0]);
      },
      paste: (event) => this.send(event.clipboardData?.files[0]),
    };
    for (const [name, handler] of Object.entries(this.handlers)) window.addEventListener(name, handler);
  },
  unmounted() {
    for (const [name, handler] of Object.entries(this.handlers)) window.removeEventListener(name, handler);
  },
  methods: {
    holdsFile: (event) => Boolean(event.dataTransfer?.types.includes("Files")),
    chosen(event) {
      this.send(event.target.files[0]);
      event.target.value = ""; // so that the visitor can choose the same file again
    },
    async send(file) {
      if (!file || this.busy) return;
      if (file.size > this.most) {
        this.$emit("refused", `The image has ${(file.size / 2 ** 20).toFixed(0)} MB; the service takes ` +
          `at most ${(this.most / 2 ** 20).toFixed(0)} MB.`);
        return;
      }
      this.busy = true;
      try {
        const response = await fetch(this.url, {
          method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" },
        });
        const body = await response.json();
        if (response.ok) this.$emit("sent", body.token);
        else this.$emit("refused", body.detail || `The service refused the image (${response.status}).`);
      } catch {
        this.$emit("refused", "The service cannot be reached; is it still running?");
      } finally {
        this.busy = false;
      }
    },
  },
};
