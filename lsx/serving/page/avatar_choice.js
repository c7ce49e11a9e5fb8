// Avatars: a video that is kept prepared, and jobs that take one in the place of a video.

import { announce, make, say } from "./dom.js";
import { call, sentenceOf } from "./api.js";
import { optionsOf, readyAvatars } from "./avatars.js";

const NONE = ""; // the video above
const MOST_NAME = 120; // characters, the server's limit
const WAIT = 30; // seconds that one request waits

/** A panel with the caller's avatars. `element` is what to place. */
export class AvatarChoice {
    #slot;
    #avatars = [];

    /** slot : the FileSlot of the video that can be kept. */
    constructor(slot) {
        this.#slot = slot;
        this.select = make("select", { id: "avatar" });
        this.select.setAttribute("aria-describedby", "avatar-help");
        this.field = make(
            "div",
            { class: "field name-field", hidden: true },
            make("label", { htmlFor: "avatar", text: "Face" }),
            this.select,
        );
        this.keep = make("button", {
            type: "button",
            text: "Keep the video as an avatar",
            on: { click: () => this.#keep() },
        });
        this.said = make("p", { class: "soft", hidden: true });
        this.error = make("p", { class: "field-error", role: "alert", hidden: true });
        this.element = make(
            "section",
            { class: "panel stack", "aria-labelledby": "avatar-title" },
            make("h2", { id: "avatar-title", text: "Avatar" }),
            make("p", {
                id: "avatar-help",
                class: "help",
                text: "A video that is prepared once. Jobs take it in the place of a file, and need less time.",
            }),
            this.field,
            make("div", { class: "row" }, this.keep, this.said),
            this.error,
        );
    }

    /** The avatar that jobs are to take, or null. */
    get chosen() {
        return this.#avatars.find(({ id }) => id === this.select.value) ?? null;
    }

    /** Ask the server for the caller's avatars, and offer those that are ready. */
    async start() {
        try {
            this.#offer(await readyAvatars());
        } catch (error) {
            say(this.error, sentenceOf(error));
        }
    }

    #offer(avatars, chosen = this.select.value) {
        this.#avatars = avatars;
        this.select.replaceChildren(
            make("option", { value: NONE, text: "The video above" }),
            ...optionsOf(this.#avatars),
        );
        this.select.value = this.#avatars.some(({ id }) => id === chosen) ? chosen : NONE;
        this.field.hidden = this.#avatars.length === 0;
    }

    async #keep() {
        say(this.error, "");
        if (!this.#slot.isFilled) {
            this.#slot.refuse("Give a video first.");
            this.#slot.input.focus();
            return;
        }
        this.keep.disabled = true;
        try {
            const { name } = this.#slot.file;
            const asset = await this.#slot.asset();
            const body = { asset_id: asset.id, name: name.slice(0, MOST_NAME) };
            await this.#ready(await call("/v1/avatars", { method: "POST", body }));
        } catch (error) {
            say(this.error, sentenceOf(error));
        } finally {
            say(this.said, "");
            this.keep.disabled = false;
        }
    }

    /** Follow an avatar until it can be chosen, and choose it. */
    async #ready(avatar) {
        let now = avatar;
        while (now.status === "PENDING" || now.status === "PROCESSING") {
            say(this.said, "It is being prepared.");
            now = await call(`${avatar.urls.get}?wait=${WAIT}`);
        }
        if (now.status === "FAILED") {
            say(this.error, `The avatar could not be prepared. ${now.error?.message ?? ""}`);
            return;
        }
        this.#offer([now, ...this.#avatars], now.id);
        announce("The avatar is ready, and chosen.");
    }
}
