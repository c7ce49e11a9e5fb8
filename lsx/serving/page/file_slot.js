// A place for the video or the sound: choose, drop or record, upload at once, and what the server says of it.

import { announce, make, say } from "./dom.js";
import { sentenceOf, upload } from "./api.js";
import { Recorder, recordingType } from "./recorder.js";
import { bytes, factsOf } from "./words.js";

const WORDS = {
    video: {
        title: "Video",
        choose: "Choose a video",
        accept: "video/*,.mkv,.mxf,.mov",
        hint: "or drop it here. The face whose mouth is to move.",
    },
    audio: {
        title: "Sound",
        choose: "Choose a sound",
        accept: "audio/*",
        hint: "or drop it here. What the face is to say.",
    },
};

/** A card with one file. `element` is what to place; `file` is null until one is chosen. */
export class FileSlot {
    file = null;
    #kind;
    #asset = null; // promise of the upload that runs or is done
    #stopUpload = null;
    #address = null;
    #mostBytes = Infinity;

    /** kind: "video" or "audio". */
    constructor(kind) {
        this.#kind = kind;
        const words = WORDS[kind];
        this.input = make("input", { type: "file", id: `${kind}-file`, class: "unseen", accept: words.accept });
        this.input.setAttribute("aria-describedby", `${kind}-error`);
        this.input.addEventListener("change", () => {
            const [file] = this.input.files;
            this.input.value = ""; // so that the same file can be chosen again
            if (file) this.take(file);
        });
        this.error = make("p", { id: `${kind}-error`, class: "field-error", role: "alert", hidden: true });
        this.#makeChosen();
        this.empty = make(
            "div",
            { class: "drop-inner" },
            make(
                "div",
                { class: "row center" },
                this.input,
                make("label", { class: "button", htmlFor: this.input.id, text: words.choose }),
                kind === "audio" && recordingType() ? this.#recorder().element : null,
            ),
            make("p", { class: "help", text: words.hint }),
        );
        this.element = make(
            "section",
            { class: "slot", data: { state: "empty", kind }, "aria-labelledby": `${kind}-title` },
            make("h2", { id: `${kind}-title`, text: words.title }),
            this.empty,
            this.chosen,
            this.error,
        );
        this.#takeDrops();
    }

    #makeChosen() {
        this.preview = make("div", { class: "preview" });
        this.name = make("p", { class: "file-name" });
        this.facts = make("p", { class: "soft" });
        this.bar = make("progress", { max: 1, value: 0, "aria-label": "Upload" });
        this.again = make("button", {
            type: "button",
            text: "Try again",
            hidden: true,
            on: { click: () => this.take(this.file) },
        });
        this.remove = make("button", { type: "button", text: "Remove", on: { click: () => this.clear(true) } });
        this.chosen = make(
            "div",
            { class: "chosen", hidden: true },
            this.preview,
            this.name,
            this.facts,
            this.bar,
            make("div", { class: "row" }, this.again, this.remove),
        );
    }

    #recorder() {
        return new Recorder({ onFile: (file) => this.take(file), onError: (message) => this.refuse(message) });
    }

    #takeDrops() {
        const over = (is) => () => this.element.classList.toggle("over", is);
        this.element.addEventListener("dragenter", over(true));
        this.element.addEventListener("dragover", over(true));
        this.element.addEventListener("dragleave", (event) => {
            if (!this.element.contains(event.relatedTarget)) over(false)();
        });
        this.element.addEventListener("drop", over(false));
    }

    /** Files larger than this are refused before they are sent. */
    limit(mostBytes) {
        this.#mostBytes = mostBytes;
    }

    /** Take a file, and upload it. */
    take(file) {
        const hadFocus = this.empty.contains(document.activeElement);
        this.#forget();
        this.file = file;
        this.name.textContent = file.name;
        this.#show("uploading");
        if (hadFocus) this.remove.focus(); // what had it is hidden now
        this.#makePreview(file);
        if (file.size > this.#mostBytes) {
            this.#fail(`This file has ${bytes(file.size)}; this server takes at most ${bytes(this.#mostBytes)}.`);
            return;
        }
        this.#upload();
    }

    /** The uploaded asset; rejects with what went wrong. Uploads again what the server no longer keeps. */
    async asset() {
        const asset = await this.#asset;
        const isGone = asset.expires_at && Date.parse(asset.expires_at) < Date.now();
        if (!isGone) return asset;
        this.#upload();
        return this.#asset;
    }

    #upload() {
        const stop = new AbortController();
        this.#stopUpload = stop;
        this.bar.value = 0;
        const progress = (share) => {
            this.bar.value = share;
            this.facts.textContent =
                share < 1 ? `Uploading, ${Math.floor(share * 100)} % of ${bytes(this.file.size)}` : "Checking the file";
        };
        progress(0);
        this.#asset = upload(this.file, this.file.name, { onProgress: progress, signal: stop.signal });
        this.#asset.then(
            (asset) => this.#uploaded(asset, stop),
            (error) => this.#notUploaded(error, stop),
        );
    }

    #uploaded(asset, stop) {
        if (this.#stopUpload !== stop) return;
        this.facts.textContent = factsOf(asset);
        this.#show("ready");
        announce(`${WORDS[this.#kind].title} uploaded.`);
    }

    #notUploaded(error, stop) {
        if (this.#stopUpload === stop && error.name !== "AbortError") this.#fail(sentenceOf(error));
    }

    #fail(message) {
        this.#asset = null;
        this.facts.textContent = bytes(this.file.size);
        this.#show("failed");
        this.refuse(message);
    }

    /** Say what is wrong with the file; empty takes that back. */
    refuse(message) {
        say(this.error, message);
    }

    /** Whether a file is here that the server took, or is taking. */
    get isFilled() {
        return this.#asset !== null;
    }

    /** No file again; an upload that runs is stopped. */
    clear(byUser = false) {
        const wasUploading = this.element.dataset.state === "uploading";
        this.#forget();
        this.#show("empty");
        if (!byUser) return;
        announce(wasUploading ? "Upload cancelled." : `${WORDS[this.#kind].title} removed.`);
        this.input.focus();
    }

    #forget() {
        this.#stopUpload?.abort();
        this.#stopUpload = null;
        this.#asset = null;
        this.file = null;
        this.refuse("");
        this.preview.replaceChildren();
        if (this.#address) URL.revokeObjectURL(this.#address);
        this.#address = null;
    }

    #show(state) {
        this.element.dataset.state = state;
        this.empty.hidden = state !== "empty";
        this.chosen.hidden = state === "empty";
        this.bar.hidden = state !== "uploading";
        this.again.hidden = state !== "failed";
        this.remove.textContent = state === "uploading" ? "Cancel upload" : "Remove";
    }

    #makePreview(file) {
        this.#address = URL.createObjectURL(file);
        const label = `Preview of the ${this.#kind === "video" ? "video" : "sound"}`;
        const player = make(this.#kind, { controls: true, preload: "metadata", "aria-label": label });
        // A format that the server knows and this browser does not.
        player.addEventListener("error", () => player.remove());
        player.src = this.#address;
        this.preview.replaceChildren(player);
    }
}
