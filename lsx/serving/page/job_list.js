// The caller's jobs, latest first, kept up to date while one of them is not over.

import { make, say } from "./dom.js";
import { actionsOf } from "./job_actions.js";
import { call, sentenceOf } from "./api.js";
import { counted, filesOf, isOver, nameOf, STATUS_WORDS, when } from "./words.js";

const PAGE = 10;
const MOST = 100; // the server's limit of a page
// A list is asked for, not listened to: browsers keep six connections to a server, and every event stream takes one.
const EVERY = 2000; // milliseconds

export class JobList {
    #toJob;
    #jobs = [];
    #rows = new Map();
    #cursor = null;
    #timer = null;
    #running = false;
    #status = "";
    #asked = 0;

    constructor(place, toJob) {
        this.#toJob = toJob;
        this.filter = make("select", { id: "status-filter" }, make("option", { value: "", text: "All" }));
        for (const [status, words] of Object.entries(STATUS_WORDS))
            this.filter.append(make("option", { value: status, text: words }));
        this.filter.addEventListener("change", () => this.#choose(this.filter.value));
        this.error = make("p", { class: "notice bad", role: "alert", hidden: true });
        this.none = make("p", { class: "soft none", hidden: true });
        this.list = make("ul", { class: "jobs", role: "list" });
        this.more = make("button", {
            type: "button",
            text: "Show more",
            hidden: true,
            on: { click: () => this.#next() },
        });
        place.append(
            make(
                "div",
                { class: "row between" },
                make("h2", { id: "jobs-title", text: "Jobs" }),
                make("div", { class: "row" }, make("label", { htmlFor: "status-filter", text: "Show" }), this.filter),
            ),
            this.error,
            this.none,
            this.list,
            make("div", { class: "row center" }, this.more),
        );
        document.addEventListener("visibilitychange", () => this.#running && !document.hidden && this.#refresh());
    }

    start() {
        this.#running = true;
        this.#refresh();
    }

    stop() {
        this.#running = false;
        clearTimeout(this.#timer);
    }

    #choose(status) {
        this.#status = status;
        this.#jobs = [];
        this.#refresh();
    }

    #ask(limit, cursor = null) {
        const query = new URLSearchParams({ limit: String(limit) });
        if (this.#status) query.set("status", this.#status);
        if (cursor) query.set("cursor", cursor);
        return call(`/v1/jobs?${query}`);
    }

    /** Ask anew for as many as are shown; those beyond the server's limit stay as they are. */
    async #refresh() {
        clearTimeout(this.#timer);
        this.#asked += 1;
        const mine = this.#asked;
        const limit = Math.min(MOST, Math.max(PAGE, this.#jobs.length));
        try {
            const { data, next_cursor: cursor } = await this.#ask(limit);
            if (mine !== this.#asked) return;
            if (this.#jobs.length <= limit) {
                this.#jobs = data;
                this.#cursor = cursor;
            } else {
                const news = new Set(data.map(({ id }) => id));
                this.#jobs = [...data, ...this.#jobs.slice(limit).filter(({ id }) => !news.has(id))];
            }
            say(this.error, "");
            this.#show();
        } catch (error) {
            say(this.error, sentenceOf(error));
        }
        const goesOn = this.#jobs.some((job) => !isOver(job)) || !this.error.hidden;
        if (this.#running && goesOn && !document.hidden) this.#timer = setTimeout(() => this.#refresh(), EVERY);
    }

    async #next() {
        this.#asked += 1; // an answer on its way would undo this one
        try {
            const { data, next_cursor: cursor } = await this.#ask(PAGE, this.#cursor);
            const first = data[0]?.id;
            this.#jobs = [...this.#jobs, ...data.filter(({ id }) => !this.#rows.has(id))];
            this.#cursor = cursor;
            this.#show();
            this.#rows.get(first)?.link.focus();
        } catch (error) {
            say(this.error, sentenceOf(error));
        }
        if (this.#running) this.#timer = setTimeout(() => this.#refresh(), EVERY);
    }

    #show() {
        say(this.none, this.#jobs.length > 0 ? "" : this.#status ? "No job has this status." : "No jobs yet.");
        this.more.hidden = this.#cursor === null || this.#cursor === undefined;
        const shown = new Set(this.#jobs.map(({ id }) => id));
        for (const [id, row] of this.#rows) {
            if (shown.has(id)) continue;
            row.element.remove();
            this.#rows.delete(id);
        }
        this.#jobs.forEach((job, index) => {
            const row = this.#rows.get(job.id) ?? this.#newRow(job);
            row.update(job);
            // Moved only where it is not in its place: moving takes the focus away.
            if (this.list.children[index] !== row.element)
                this.list.insertBefore(row.element, this.list.children[index] ?? null);
        });
    }

    #newRow(job) {
        const then = {
            onJob: () => this.#refresh(),
            onRetried: (next) => this.#toJob(next.id),
            onDeleted: () => {
                this.#refresh();
                this.filter.focus();
            },
            onError: (error) => {
                this.#refresh().then(() => say(this.error, sentenceOf(error)));
            },
        };
        const row = new JobRow(job, this.#toJob, then);
        this.#rows.set(job.id, row);
        return row;
    }
}

/** A job in the list. */
class JobRow {
    #then;
    #status = "";

    constructor(job, toJob, then) {
        this.#then = then;
        this.link = make("a", { href: `/job/${encodeURIComponent(job.id)}`, text: nameOf(job) });
        this.link.addEventListener("click", (event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab or window of its own
            event.preventDefault();
            toJob(job.id);
        });
        this.badge = make("span", { class: "badge" });
        this.progress = make("span", { class: "soft" });
        this.actions = make("div", { class: "row" });
        const created = make("time", { dateTime: job.created_at, text: when(job.created_at) });
        const files = filesOf(job);
        this.element = make(
            "li",
            {},
            make(
                "div",
                { class: "job-words" },
                make("p", { class: "job-name" }, this.link, this.badge),
                make("p", { class: "soft" }, files ? `${files} · ` : "created ", created, this.progress),
            ),
            this.actions,
        );
    }

    update(job) {
        this.badge.textContent = STATUS_WORDS[job.status] ?? job.status;
        this.badge.dataset.status = job.status;
        this.progress.textContent = progressOf(job);
        if (job.status === this.#status) return;
        this.#status = job.status;
        const hadFocus = this.actions.contains(document.activeElement);
        this.actions.replaceChildren(...actionsOf(job, this.#then));
        if (hadFocus) this.link.focus();
    }
}

function progressOf({ status, progress, queue_position: place, error }) {
    if (status === "PENDING" && place)
        return place === 1 ? " · next in the queue" : ` · ${counted(place - 1, "job")} before it`;
    if (status === "PROCESSING" && progress?.total > 0)
        return ` · ${Math.floor((100 * progress.frames) / progress.total)} %`;
    return error ? ` · ${error.message}` : "";
}
