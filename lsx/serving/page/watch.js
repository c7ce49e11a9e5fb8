// Following one job: the server's events, and asking again where they break off.

import { call, Problem } from "./api.js";
import { isOver } from "./words.js";

const FIRST_WAIT = 1000; // milliseconds
const LONGEST_WAIT = 15000;

/** A job, followed from its making until it is over or `stop` is called. */
export class JobWatch {
    #path;
    #heard;
    #source = null;
    #timer = null;
    #wait = FIRST_WAIT;
    #stopped = false;

    /**
     * heard : {onJob, onLink, onGone}, called with the job whenever it changes, with whether the server is heard, and
     * with the Problem where there is no such job.
     */
    constructor(id, heard) {
        this.#path = `/v1/jobs/${encodeURIComponent(id)}`;
        this.#heard = heard;
        this.#ask();
    }

    stop() {
        this.#stopped = true;
        this.#source?.close();
        clearTimeout(this.#timer);
    }

    async #ask() {
        try {
            this.#take(await call(this.#path));
            if (!this.#stopped) this.#listen();
        } catch (error) {
            if (this.#stopped) return;
            const isGone = error instanceof Problem && error.status < 500 && error.status !== 429;
            if (isGone) this.#heard.onGone(error);
            else this.#askLater();
        }
    }

    #take(job) {
        if (this.#stopped) return;
        this.#wait = FIRST_WAIT;
        this.#heard.onLink(true);
        if (isOver(job)) this.stop();
        this.#heard.onJob(job);
    }

    #askLater() {
        this.#heard.onLink(false);
        this.#timer = setTimeout(() => this.#ask(), this.#wait);
        this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT);
    }

    #listen() {
        const source = new EventSource(`${this.#path}/events`);
        this.#source = source;
        source.addEventListener("job", (event) => this.#take(JSON.parse(event.data)));
        source.addEventListener("open", () => this.#heard.onLink(true));
        source.addEventListener("error", () => {
            // While CONNECTING the browser tries again by itself; CLOSED is a refusal, whose reason a call tells.
            if (this.#stopped) return;
            if (source.readyState === EventSource.CLOSED) this.#askLater();
            else this.#heard.onLink(false);
        });
    }
}
