// Original and result at the same moment: one over the other with a wipe, beside each other, or the result alone.

import { icon, make, say } from "./dom.js";
import { keepTogether } from "./sync.js";
import { clock } from "./words.js";

const MODEL_RATE = 25; // frames a second, also of results unless asked otherwise
const LAYOUTS = [
    ["wipe", "Wipe"],
    ["side", "Side by side"],
    ["result", "Result"],
];

export class Player {
    /** result : address of the result; original : of the video, or null; options : the job's. */
    constructor({ result, original, options }) {
        this.frame = 1 / (Number(options.fps) || MODEL_RATE);
        this.result = make("video", { class: "result", src: result, preload: "auto", playsInline: true });
        this.original = make("video", { class: "original", muted: true, preload: "auto", playsInline: true });
        this.message = make("p", { class: "notice", role: "status", hidden: true });
        this.#makeStage();
        this.#makeWipe();
        const controls = make(
            "div",
            { class: "controls" },
            ...this.#buttons(),
            ...this.#seeking(),
            this.mute,
            this.full,
        );
        this.element = make(
            "section",
            { class: "player panel", "aria-labelledby": "player-title", data: { layout: "wipe" } },
            make("div", { class: "row between" }, make("h2", { id: "player-title", text: "Result" }), this.#layouts()),
            this.stage,
            this.wipeRow,
            controls,
            this.message,
            make("p", {
                class: "help",
                text: "Keys in the player: K plays and pauses; comma and full stop step by a frame.",
            }),
        );
        this.element.addEventListener("keydown", (event) => this.#key(event));
        this.#listen();
        this.#takeOriginal(original, options);
    }

    #makeStage() {
        this.line = make("div", { class: "wipe-line" });
        this.stage = make(
            "div",
            { class: "stage" },
            this.original,
            this.result,
            this.line,
            make("span", { class: "tag tag-original", text: "Original" }),
            make("span", { class: "tag tag-result", text: "Result" }),
        );
        const move = (event) => {
            const { left, width } = this.stage.getBoundingClientRect();
            this.#setWipe((100 * (event.clientX - left)) / width);
        };
        this.stage.addEventListener("pointerdown", (event) => {
            if (this.element.dataset.layout !== "wipe" || event.button !== 0) return;
            this.stage.setPointerCapture(event.pointerId);
            move(event);
        });
        this.stage.addEventListener(
            "pointermove",
            (event) => this.stage.hasPointerCapture(event.pointerId) && move(event),
        );
    }

    #makeWipe() {
        this.wipe = make("input", { id: "wipe", type: "range", min: 0, max: 100, step: 1, value: 50 });
        this.wipe.addEventListener("input", () => this.#setWipe(Number(this.wipe.value)));
        this.wipeRow = make(
            "div",
            { class: "wipe-row" },
            make("label", { htmlFor: "wipe", class: "unseen", text: "Wipe" }),
            this.wipe,
        );
        this.#setWipe(50);
    }

    #setWipe(value) {
        const share = Math.round(Math.max(0, Math.min(100, value)));
        this.wipe.value = share;
        this.wipe.setAttribute("aria-valuetext", `${share} % original`);
        this.stage.style.setProperty("--wipe", `${share}%`);
    }

    #buttons() {
        const button = (name, label, click) =>
            make("button", { type: "button", class: "tool", "aria-label": label, on: { click } }, icon(name));
        this.play = button("play", "Play", () => this.#toggle());
        this.mute = button("sound", "Mute", () => {
            this.result.muted = !this.result.muted;
        });
        this.full = button("full", "Full screen", () => {
            if (document.fullscreenElement) document.exitFullscreen();
            else this.element.requestFullscreen();
        });
        this.full.hidden = !document.fullscreenEnabled;
        return [
            this.play,
            button("back", "One frame back", () => this.#step(-1)),
            button("forward", "One frame on", () => this.#step(1)),
        ];
    }

    #seeking() {
        this.seek = make("input", {
            type: "range",
            class: "seek",
            min: 0,
            max: 1,
            step: "any",
            value: 0,
            "aria-label": "Position",
        });
        this.seek.addEventListener("input", () => {
            this.result.currentTime = Number(this.seek.value);
        });
        this.time = make("span", { class: "time" });
        return [this.seek, this.time];
    }

    #layouts() {
        this.choice = make(
            "fieldset",
            { class: "segments" },
            make("legend", { class: "unseen", text: "How to compare" }),
        );
        for (const [value, words] of LAYOUTS) {
            const radio = make("input", {
                type: "radio",
                name: "layout",
                value,
                checked: value === "wipe",
                id: `layout-${value}`,
                class: "unseen",
            });
            radio.addEventListener("change", () => this.#lay(value));
            this.choice.append(radio, make("label", { htmlFor: radio.id, text: words }));
        }
        return this.choice;
    }

    #lay(layout) {
        this.element.dataset.layout = layout;
        this.wipeRow.hidden = layout !== "wipe";
    }

    #listen() {
        const { result } = this;
        const shown = () => this.#showPlaying();
        for (const event of ["play", "pause", "ended"]) result.addEventListener(event, shown);
        for (const event of ["timeupdate", "seeking", "seeked"]) result.addEventListener(event, () => this.#showTime());
        result.addEventListener("volumechange", () => this.#showSound());
        result.addEventListener("loadedmetadata", () => {
            this.seek.max = result.duration;
            this.element.style.setProperty("--aspect", String(result.videoWidth / result.videoHeight || 1));
            this.#showTime();
        });
        result.addEventListener("error", () => {
            for (const part of [this.stage, this.wipeRow, this.choice, this.play.parentElement]) part.hidden = true;
            say(
                this.message,
                "This browser cannot play the result: its format is unknown here, or it is no longer kept.",
            );
        });
    }

    #takeOriginal(address, options) {
        const without = (words) => {
            this.choice.hidden = true;
            this.#lay("result");
            say(this.message, words);
        };
        if (!address) {
            without("");
            return;
        }
        this.original.addEventListener("error", () => {
            without("The original cannot be shown: its format is unknown to this browser, or it is no longer kept.");
        });
        this.original.src = address;
        keepTogether(this.result, this.original, options);
    }

    #toggle() {
        if (this.result.paused)
            this.result.play().catch(() => {}); // the error event says why
        else this.result.pause();
    }

    #step(frames) {
        this.result.pause();
        const { currentTime, duration } = this.result;
        this.result.currentTime = Math.max(0, Math.min(duration || 0, currentTime + frames * this.frame));
    }

    #key(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const action = { k: () => this.#toggle(), ",": () => this.#step(-1), ".": () => this.#step(1) }[
            event.key.toLowerCase()
        ];
        if (!action) return;
        event.preventDefault();
        action();
    }

    #showPlaying() {
        const { paused } = this.result;
        this.play.replaceChildren(icon(paused ? "play" : "pause"));
        this.play.setAttribute("aria-label", paused ? "Play" : "Pause");
    }

    #showSound() {
        const { muted } = this.result;
        this.mute.replaceChildren(icon(muted ? "silent" : "sound"));
        this.mute.setAttribute("aria-label", muted ? "Unmute" : "Mute");
    }

    #showTime() {
        const { currentTime, duration } = this.result;
        this.seek.value = currentTime;
        this.seek.setAttribute("aria-valuetext", `${clock(currentTime, 2)} of ${clock(duration || 0, 2)}`);
        this.time.textContent = `${clock(currentTime, 2)} / ${clock(duration || 0, 2)}`;
    }

    /** Stop and let go of both files. */
    close() {
        for (const video of [this.result, this.original]) {
            video.pause();
            video.removeAttribute("src");
            video.load();
        }
    }
}
