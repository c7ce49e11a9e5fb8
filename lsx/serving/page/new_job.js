// The form for a new job: two files, the options, and the button that submits them.

import { announce, make, say } from "./dom.js";
import { call, newKey, sentenceOf } from "./api.js";
import { AvatarChoice } from "./avatar_choice.js";
import { FileSlot } from "./file_slot.js";
import { OptionsForm } from "./options_form.js";
import { bytes, roughly } from "./words.js";

const MOST_METADATA = 500; // characters, the server's limit
const MOST_NAME = 60; // characters of a model's name or digest

export class NewJob {
    #place;
    #onJob;
    #video = new FileSlot("video");
    #audio = new FileSlot("audio");
    #avatars = new AvatarChoice(this.#video);
    #options = null;
    #key = newKey();
    #sent = "";

    /** place : the section to fill; onJob gets the submitted job and the video's File, or null. */
    constructor(place, onJob) {
        this.#place = place;
        this.#onJob = onJob;
        this.model = make("p", { class: "soft model" });
        this.groups = make("div", { class: "groups" });
        this.error = make("p", { class: "notice bad", role: "alert", hidden: true });
        this.button = make("button", { type: "submit", class: "primary", text: "Start" });
        this.name = make("input", {
            id: "output-name",
            type: "text",
            maxLength: 120,
            autocomplete: "off",
            placeholder: "default",
        });
        this.nameError = make("p", { id: "output-name-error", class: "field-error", role: "alert", hidden: true });
        place.append(this.#heading(), this.#form());
    }

    #heading() {
        return make(
            "div",
            { class: "title" },
            make("h1", { id: "new-job-title", text: "New job" }),
            make("p", {
                class: "soft",
                text: "Give a video and a sound: the result is the video, its mouth moving to the sound.",
            }),
        );
    }

    #form() {
        const reset = make("button", {
            type: "button",
            class: "quiet",
            text: "Reset options",
            on: { click: () => this.#options?.reset() },
        });
        const form = make(
            "form",
            { noValidate: true, "aria-labelledby": "new-job-title" },
            make("div", { class: "slots" }, this.#video.element, this.#audio.element),
            this.#avatars.element,
            make(
                "section",
                { class: "panel", "aria-labelledby": "options-title" },
                make("div", { class: "row between" }, make("h2", { id: "options-title", text: "Options" }), reset),
                this.groups,
                this.#nameField(),
            ),
            this.error,
            make("div", { class: "row submit" }, this.button, this.model),
        );
        form.addEventListener("submit", (event) => {
            event.preventDefault();
            this.#submit();
        });
        return form;
    }

    #nameField() {
        this.name.setAttribute("aria-describedby", "output-name-help output-name-error");
        return make(
            "div",
            { class: "field name-field" },
            make("label", { htmlFor: "output-name", text: "Name of the result" }),
            this.name,
            make("p", { id: "output-name-help", class: "help", text: "A file name. Empty leaves it to the server." }),
            this.nameError,
        );
    }

    /** Ask the server what it offers, and take drops anywhere on the page. */
    async start() {
        document.addEventListener("dragover", (event) => event.preventDefault());
        document.addEventListener("drop", (event) => this.#drop(event));
        this.#avatars.start();
        try {
            const { data } = await call("/v1/models");
            if (data.length > 0) this.#offer(data[0]);
            else say(this.error, "The server has no model yet: no worker has been seen.");
        } catch (error) {
            say(this.error, sentenceOf(error));
        }
    }

    #offer(model) {
        const { max_upload_bytes: most, max_seconds: seconds, max_steps: steps } = model.limits ?? {};
        this.#options = new OptionsForm(this.groups, withMost(model.options ?? {}, "steps", steps));
        if (most) for (const slot of [this.#video, this.#audio]) slot.limit(most);
        const limits = [most && `files up to ${bytes(most)}`, seconds && `clips up to ${roughly(seconds)}`].filter(
            Boolean,
        );
        const name = model.bundle ?? model.id ?? "No worker has been seen yet: jobs wait for one";
        const facts = [
            name.slice(0, MOST_NAME),
            model.resolution && `${model.resolution} px`,
            model.backend,
            model.precision,
            ...limits,
        ];
        this.model.textContent = facts.filter(Boolean).join(" · ");
    }

    #drop(event) {
        event.preventDefault();
        const files = [...(event.dataTransfer?.files ?? [])];
        if (files.length === 0 || this.#place.closest("[hidden]")) return;
        const over = event.target.closest?.(".slot")?.dataset.kind;
        for (const file of files) {
            const isSound = files.length === 1 && over ? over === "audio" : file.type.startsWith("audio/");
            (isSound ? this.#audio : this.#video).take(file);
        }
    }

    #isComplete() {
        const missing = [
            [this.#video, "Choose a video first."],
            [this.#audio, "Choose a sound first."],
        ].filter(([slot]) => !slot.isFilled && !(slot === this.#video && this.#avatars.chosen));
        for (const [slot, message] of missing) if (slot.error.hidden) slot.refuse(message);
        if (missing.length > 0)
            missing[0][0].element.querySelector("input:not([hidden]), button:not([hidden])").focus();
        return missing.length === 0;
    }

    async #submit() {
        for (const element of [this.error, this.nameError]) say(element, "");
        this.name.removeAttribute("aria-invalid");
        if (this.button.disabled || !this.#isComplete()) return;
        const options = this.#options?.values() ?? (this.#options ? null : {});
        if (options === null) return;
        this.#busy(true);
        try {
            const avatar = this.#avatars.chosen;
            const [video, audio] = await Promise.all([avatar ?? this.#video.asset(), this.#audio.asset()]);
            const job = await this.#send(this.#body(video, audio, options));
            announce("Job submitted.");
            this.#key = newKey();
            this.#onJob(job, avatar ? null : this.#video.file);
        } catch (error) {
            this.#refused(error);
        } finally {
            this.#busy(false);
        }
    }

    #busy(is) {
        this.button.disabled = is;
        this.button.textContent = is ? "Submitting" : "Start";
    }

    /** video : an upload, or an avatar. */
    #body(video, audio, options) {
        const isAvatar = video === this.#avatars.chosen;
        const names = { video: isAvatar ? video.name : this.#video.file.name, sound: this.#audio.file.name };
        const metadata = Object.fromEntries(
            Object.entries(names).map(([key, name]) => [key, name.slice(0, MOST_METADATA)]),
        );
        const input = [
            isAvatar ? { type: "avatar", avatar_id: video.id } : { type: "video", asset_id: video.id },
            { type: "audio", asset_id: audio.id },
        ];
        const name = this.name.value.trim();
        return { input, options, metadata, ...(name === "" ? {} : { output_file_name: name }) };
    }

    /** The same submission keeps its key: sent again after a lost connection it is still one job. */
    #send(body) {
        const text = JSON.stringify(body);
        if (text !== this.#sent) this.#key = newKey();
        this.#sent = text;
        return call("/v1/jobs", { method: "POST", body, headers: { "Idempotency-Key": this.#key } });
    }

    #refused(error) {
        if (error.name === "AbortError") return;
        const slots = [this.#video, this.#audio];
        if (slots.some((slot) => slot.element.dataset.state === "failed")) return; // said beside the file
        const elsewhere = (error.errors ?? []).filter(({ path, message }) => !this.#refuseField(path, message));
        say(this.error, [sentenceOf(error), ...elsewhere.map(({ message }) => message)].join(" "));
    }

    #refuseField([first, second], message) {
        if (first === "options") return this.#options?.refuse(second, message) ?? false;
        if (first === "input" && (second === "0" || second === "1")) {
            [this.#video, this.#audio][Number(second)].refuse(message);
            return true;
        }
        if (first !== "output_file_name") return false;
        say(this.nameError, message);
        this.name.setAttribute("aria-invalid", "true");
        this.name.focus();
        return true;
    }
}

/** A schema in which a number is at most what this server makes. */
function withMost(schema, name, most) {
    const property = schema.properties?.[name];
    if (!property || !most) return schema;
    const maximum = Math.min(most, property.maximum ?? Infinity);
    return { ...schema, properties: { ...schema.properties, [name]: { ...property, maximum } } };
}
