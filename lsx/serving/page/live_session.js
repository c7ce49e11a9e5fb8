// A live session as docs/live.md has it: JSON as text, sound up as int16, pictures and sound down with a head each.

const [JPEG, PCM] = [1, 2];
const [SPEAKING, LAST] = [1, 2];
const HEAD = 16;
const MOST_WAITING = 1 << 18; // bytes on their way up
const PAUSE = 50; // ms

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE));

/** Frames of an avatar, from `open` until it is closed. */
export class LiveSession {
    #socket = null;
    #samples = null;
    #refusal = "";

    /** onReady gets the picture's facts; onFrame every frame; onClosed the sentence of why, empty where it was us. */
    constructor({ onReady, onFrame, onClosed }) {
        this.onReady = onReady;
        this.onFrame = onFrame;
        this.onClosed = onClosed;
    }

    /** Ask for a session with an avatar. options : as docs/live.md has them. */
    open(avatar, options) {
        const address = new URL("/v1/live", location.href);
        address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
        const socket = new WebSocket(address);
        socket.binaryType = "arraybuffer";
        socket.addEventListener("open", () => this.#tell({ type: "start", avatar_id: avatar, options }));
        socket.addEventListener("message", ({ data }) => this.#take(data));
        socket.addEventListener("close", ({ code }) => {
            if (this.#socket !== socket) return; // it was us
            this.#socket = null;
            const why = code === 1006 ? "The server cannot be reached, or refused." : "The session ended. Start again.";
            this.onClosed(this.#refusal || why);
        });
        this.#socket = socket;
    }

    get isOpen() {
        return this.#socket?.readyState === WebSocket.OPEN;
    }

    /** Say a piece of sound, an Int16Array at 16 kHz; resolves when there is room for the next one. */
    async say(samples) {
        if (this.isOpen) this.#socket.send(samples);
        while (this.isOpen && this.#socket.bufferedAmount > MOST_WAITING) await pause();
    }

    /** The utterance is whole. */
    end() {
        this.#tell({ type: "end" });
    }

    /** Stop speaking. */
    clear() {
        this.#tell({ type: "clear" });
    }

    close() {
        const socket = this.#socket;
        this.#socket = null;
        socket?.close(1000);
    }

    #tell(message) {
        if (this.isOpen) this.#socket.send(JSON.stringify(message));
    }

    #take(data) {
        if (this.#socket === null) return;
        if (typeof data === "string") {
            const event = JSON.parse(data);
            if (event.type === "ready") this.onReady(event);
            if (event.type === "error") this.#refusal = `The server refused: ${event.message}.`;
            return;
        }
        const head = new DataView(data);
        const [kind, flags] = [head.getUint8(0), head.getUint8(1)];
        if (kind === PCM) this.#samples = new Int16Array(data, HEAD);
        if (kind !== JPEG) return;
        this.onFrame({
            seconds: Number(head.getBigUint64(8)) / 1e6,
            speaking: (flags & SPEAKING) !== 0,
            last: (flags & LAST) !== 0,
            samples: this.#samples,
            jpeg: new Uint8Array(data, HEAD),
        });
    }
}
