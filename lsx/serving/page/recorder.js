// Recording the sound from the microphone, where the browser has one to offer and says so.

import { clock } from "./words.js";
import { make } from "./dom.js";

const TYPES = ["audio/webm;codecs=opus", "audio/webm", "audio/ogg;codecs=opus"];

/** The type that would be recorded; null without a microphone, which pages over plain HTTP lack, or a type. */
export function recordingType() {
    if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return null;
    return TYPES.find((type) => MediaRecorder.isTypeSupported(type)) ?? null;
}

/** The sentence for an error of getUserMedia. */
export const refusalOf = (error) =>
    error.name === "NotAllowedError" ? "The browser did not allow the microphone." : "No microphone was found.";

/** A button that records, and hands over what was recorded as a file. */
export class Recorder {
    #recorder = null;
    #parts = [];
    #started = 0;
    #ticking = null;

    /** onFile gets the File; onError a sentence, empty when it no longer holds. */
    constructor({ onFile, onError }) {
        this.onFile = onFile;
        this.onError = onError;
        this.button = make("button", { type: "button", text: "Record", on: { click: () => this.#toggle() } });
        this.time = make("span", { class: "record-time", hidden: true });
        this.element = make("span", { class: "recorder" }, this.button, this.time);
    }

    #toggle() {
        if (this.#recorder === null) this.#start();
        else this.#recorder.stop();
    }

    async #start() {
        this.onError("");
        let stream;
        try {
            stream = await navigator.mediaDevices.getUserMedia({ audio: true });
        } catch (error) {
            this.onError(refusalOf(error));
            return;
        }
        this.#parts = [];
        this.#recorder = new MediaRecorder(stream, { mimeType: recordingType() });
        this.#recorder.addEventListener("dataavailable", (event) => this.#parts.push(event.data));
        this.#recorder.addEventListener("stop", () => this.#stopped(stream));
        this.#recorder.start();
        this.#started = performance.now();
        this.#ticking = setInterval(() => this.#tick(), 250);
        this.button.textContent = "Stop recording";
        this.button.classList.add("recording");
        this.time.hidden = false;
        this.#tick();
    }

    #tick() {
        this.time.textContent = clock((performance.now() - this.#started) / 1000);
    }

    #stopped(stream) {
        clearInterval(this.#ticking);
        for (const track of stream.getTracks()) track.stop();
        const type = this.#recorder.mimeType.split(";")[0] || "audio/webm";
        this.#recorder = null;
        this.button.textContent = "Record";
        this.button.classList.remove("recording");
        this.time.hidden = true;
        const name = `recording ${new Date().toTimeString().slice(0, 8).replaceAll(":", "-")}.${type.split("/")[1]}`;
        this.onFile(new File(this.#parts, name, { type }));
    }
}
