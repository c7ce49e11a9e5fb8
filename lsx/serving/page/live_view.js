// The page on which an avatar speaks: choose one, start, and give it sound from a file or the microphone.

import { call, sentenceOf } from "./api.js";
import { optionsOf, readyAvatars } from "./avatars.js";
import { announce, make, say } from "./dom.js";
import { LiveSession } from "./live_session.js";
import { hasMicrophone, Microphone, soundOf } from "./live_speech.js";
import { LiveStage } from "./live_stage.js";
import { refusalOf } from "./recorder.js";

const PIECE = 3200; // samples of a file that are sent at once: 0.2 s

export class LiveView {
    #session = null;
    #stage = null;
    #file = 0; // of those that were said, the number of the one that is being sent
    #microphone = new Microphone((samples) => this.#hear(samples));
    #asked = null; // when the first sound after a silence went out
    #speaking = false;

    /** place : the element to fill. */
    constructor(place) {
        this.#makeStart();
        this.#makeSpeech();
        this.canvas = make("canvas", { class: "live-picture", width: 640, height: 480, hidden: true });
        this.canvas.setAttribute("role", "img");
        this.canvas.setAttribute("aria-label", "The avatar");
        this.status = make("p", { class: "soft", hidden: true });
        this.error = make("p", { class: "field-error", role: "alert", hidden: true });
        place.append(
            make("h1", { text: "Live" }),
            make("p", { class: "soft", text: "An avatar says what it is given, while it is given." }),
            this.choice,
            this.error,
            this.speech,
            make("section", { class: "stack", "aria-label": "Picture" }, this.status, this.canvas),
        );
    }

    #makeStart() {
        this.select = make("select", { id: "live-avatar" });
        this.steps = make("input", { type: "number", id: "live-steps", min: 1, step: 1, "aria-describedby": "steps-help" });
        this.toggle = make("button", {
            type: "button",
            class: "primary",
            text: "Start",
            on: { click: () => (this.#session === null ? this.#begin() : this.#finish("")) },
        });
        this.choice = make(
            "section",
            { class: "panel live-choice", "aria-label": "Avatar" },
            make("div", { class: "field" }, make("label", { htmlFor: "live-avatar", text: "Avatar" }), this.select),
            make(
                "div",
                { class: "field" },
                make("label", { htmlFor: "live-steps", text: "Steps" }),
                this.steps,
            ),
            this.toggle,
            make("p", {
                id: "steps-help",
                class: "help",
                text: "Fewer steps are sooner seen. Where none are given they are the model's own.",
            }),
        );
    }

    #makeSpeech() {
        this.input = make("input", { type: "file", id: "live-file", class: "unseen", accept: "audio/*" });
        this.input.addEventListener("change", () => {
            const [file] = this.input.files;
            this.input.value = ""; // so that the same file can be chosen again
            if (file) this.#sayFile(file);
        });
        this.talk = make("button", {
            type: "button",
            text: "Use the microphone",
            hidden: !hasMicrophone(),
            on: { click: () => this.#talk() },
        });
        const clear = make("button", { type: "button", text: "Interrupt", on: { click: () => this.#interrupt() } });
        this.heard = make("input", { type: "checkbox", id: "live-heard", checked: true });
        this.heard.addEventListener("change", () => {
            this.#stage.isHeard = this.heard.checked;
        });
        this.speech = make(
            "section",
            { class: "panel row", "aria-label": "Speech", hidden: true },
            this.input,
            make("label", { class: "button", htmlFor: "live-file", text: "Say a sound file" }),
            this.talk,
            clear,
            make("span", { class: "row" }, this.heard, make("label", { htmlFor: "live-heard", text: "Heard here" })),
        );
    }

    /** Ask which avatars there are. */
    async start() {
        try {
            const [models, ready] = await Promise.all([call("/v1/models"), readyAvatars()]);
            this.select.replaceChildren(...optionsOf(ready));
            this.toggle.disabled = ready.length === 0;
            if (ready.length === 0) say(this.error, "There is no avatar yet: keep a video as one on the first page.");
            else if (!models.data.some(({ live }) => live)) say(this.error, "No worker for live sessions is there now.");
        } catch (error) {
            this.toggle.disabled = true;
            say(this.error, sentenceOf(error));
        }
    }

    #begin() {
        if (!this.steps.reportValidity()) return;
        say(this.error, "");
        say(this.status, "It is being opened.");
        this.toggle.textContent = "End";
        this.select.disabled = this.steps.disabled = true;
        this.#stage = new LiveStage(this.canvas);
        this.#stage.isHeard = this.heard.checked;
        this.#session = new LiveSession({
            onReady: () => this.#ready(),
            onFrame: (frame) => this.#stage.show(frame, () => this.#shown(frame)),
            onClosed: (why) => this.#finish(why),
        });
        this.#session.open(this.select.value, this.steps.value === "" ? {} : { steps: Number(this.steps.value) });
    }

    #ready() {
        this.canvas.hidden = this.speech.hidden = false;
        say(this.status, "It listens.");
        announce("The avatar listens.");
    }

    /** why : what the user is told; empty where it was the user. */
    #finish(why) {
        this.#file += 1;
        this.#stopTalking();
        this.#session?.close();
        this.#stage?.close();
        this.#session = this.#stage = this.#asked = null;
        this.#speaking = false;
        this.canvas.hidden = this.speech.hidden = true;
        this.toggle.textContent = "Start";
        this.select.disabled = this.steps.disabled = false;
        say(this.status, "");
        say(this.error, why);
    }

    #shown({ speaking }) {
        if (speaking === this.#speaking) return;
        this.#speaking = speaking;
        if (!speaking) {
            say(this.status, "It listens.");
            return;
        }
        const seconds = this.#asked === null ? null : (performance.now() - this.#asked) / 1000;
        this.#asked = null;
        const after = seconds === null ? "" : ` Its first picture came ${seconds.toFixed(1)} s after the first sound.`;
        say(this.status, `It speaks.${after}`);
    }

    #say(samples) {
        if (!this.#speaking) this.#asked ??= performance.now();
        return this.#session?.say(samples);
    }

    async #sayFile(file) {
        say(this.error, "");
        let samples;
        try {
            samples = await soundOf(file);
        } catch {
            say(this.error, `The browser finds no sound in ${file.name}.`);
            return;
        }
        this.#stopTalking();
        this.#file += 1;
        const number = this.#file;
        const goesOn = () => this.#file === number && this.#session !== null;
        for (let start = 0; start < samples.length && goesOn(); start += PIECE)
            await this.#say(samples.slice(start, start + PIECE));
        if (goesOn()) this.#session.end();
    }

    async #talk() {
        say(this.error, "");
        if (this.#microphone.isOn) {
            this.#stopTalking();
            return;
        }
        this.#file += 1; // what is left of a file is not said
        try {
            await this.#microphone.start();
        } catch (error) {
            say(this.error, refusalOf(error));
            return;
        }
        if (this.#session === null) this.#microphone.stop(); // ended while the browser asked
        else this.talk.textContent = "Stop the microphone";
    }

    #stopTalking() {
        if (!this.#microphone.isOn) return;
        this.#microphone.stop();
        this.talk.textContent = "Use the microphone";
        this.#session?.end();
    }

    #hear(samples) {
        if (this.#session !== null) this.#say(samples);
    }

    #interrupt() {
        this.#file += 1;
        this.#asked = null;
        this.#session.clear();
    }
}
