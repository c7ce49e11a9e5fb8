// A canvas and a loudspeaker in step: every frame is drawn when the sound beside it is heard.

const RATE = 16000;
const AHEAD = 0.1; // seconds by which frames wait, so that the network may be uneven
const LATE = 0.02; // seconds before its time that a frame must be here, or the clock is set anew
const EARLY = 0.4; // seconds that an idle frame may be here before its time: more is what a hold-up left
const MOST_HELD = 100; // frames, where nothing is drawn, as in a tab that is not seen

/** Shows frames on a canvas. The loudspeaker's clock decides. */
export class LiveStage {
    #context;
    #volume;
    #zero = null; // the loudspeaker's time of the session's second 0
    #held = [];
    #drawing = null;

    /** Made on a click: browsers let no page sound before one. */
    constructor(canvas) {
        this.canvas = canvas;
        this.#context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
        this.#volume = new GainNode(this.#context);
        this.#volume.connect(this.#context.destination);
        this.#context.resume();
        this.#drawing = requestAnimationFrame(() => this.#draw());
    }

    /** Whether it is heard. */
    set isHeard(is) {
        this.#volume.gain.value = is ? 1 : 0;
    }

    /** Take the next frame. onShown is called when it is drawn. */
    show({ seconds, speaking, samples, jpeg }, onShown) {
        const now = this.#context.currentTime;
        const left = this.#zero === null ? 0 : this.#zero + seconds - now;
        if (left < LATE || (left > EARLY && !speaking))
            this.#zero = Math.round((now + AHEAD - seconds) * RATE) / RATE;
        const at = this.#zero + seconds;
        if (speaking) this.#sound(samples, at);
        const frame = { at, onShown, image: null };
        this.#held.push(frame);
        createImageBitmap(new Blob([jpeg], { type: "image/jpeg" })).then((image) => {
            if (this.#drawing === null) image.close();
            else frame.image = image;
        });
        if (this.#held.length > MOST_HELD) this.#held.shift().image?.close();
    }

    #sound(samples, at) {
        const buffer = this.#context.createBuffer(1, samples.length, RATE);
        buffer.copyToChannel(
            Float32Array.from(samples, (value) => value / 32768),
            0,
        );
        const source = new AudioBufferSourceNode(this.#context, { buffer });
        source.connect(this.#volume);
        source.start(at);
    }

    #draw() {
        this.#drawing = requestAnimationFrame(() => this.#draw());
        const heard = this.#context.currentTime - (this.#context.outputLatency || 0);
        let due = null;
        while (this.#held.length > 0 && this.#held[0].at <= heard && this.#held[0].image !== null) {
            due?.image.close();
            due = this.#held.shift();
        }
        if (due === null) return;
        const { width, height } = due.image;
        if (this.canvas.width !== width) this.canvas.width = width;
        if (this.canvas.height !== height) this.canvas.height = height;
        this.canvas.getContext("2d").drawImage(due.image, 0, 0);
        due.image.close();
        due.onShown();
    }

    close() {
        cancelAnimationFrame(this.#drawing);
        this.#drawing = null;
        for (const { image } of this.#held) image?.close();
        this.#held = [];
        this.#context.close();
    }
}
