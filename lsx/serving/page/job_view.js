// One job: its progress while it runs, its result when it is done, and why it has none.

import { announce, byId, focusOn, make, say } from "./dom.js";
import { actionsOf } from "./job_actions.js";
import { call, sentenceOf } from "./api.js";
import { labelOf, wordsOf } from "./options_table.js";
import { Player } from "./player.js";
import { ProgressPanel } from "./progress_panel.js";
import { JobWatch } from "./watch.js";
import { clock, filesOf, isOver, nameOf, roughly, STATUS_WORDS, when } from "./words.js";

export class JobView {
    #place;
    #links;
    #watched = null;
    #player = null;
    #address = null;
    #status = "";
    #buttons = "";

    /** links : {id, original (the video's File, or undefined), toJob(id), toHome()}. */
    constructor(place, links) {
        this.#place = place;
        this.#links = links;
        this.title = make("h1", { id: "job-title", text: "Job" });
        this.badge = make("span", { class: "badge", hidden: true });
        this.meta = make("p", { class: "soft" });
        this.error = make("div", { class: "notice bad", role: "alert", hidden: true });
        this.progress = new ProgressPanel();
        this.progress.element.hidden = true;
        this.result = make("div", { class: "result-place" });
        this.actions = make("div", { class: "row actions" });
        this.details = make("div", {});
        const home = make("a", { href: "/", text: "New job and all jobs" });
        home.addEventListener("click", (event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return;
            event.preventDefault();
            links.toHome();
        });
        place.replaceChildren(
            make("p", { class: "crumb" }, home),
            make("div", { class: "title" }, make("div", { class: "row" }, this.title, this.badge), this.meta),
            this.error,
            this.progress.element,
            this.result,
            this.actions,
            this.details,
        );
    }

    start() {
        focusOn(this.title);
        this.#watch();
    }

    stop() {
        this.#watched?.stop();
        this.#player?.close();
        if (this.#address) URL.revokeObjectURL(this.#address);
        this.#place.replaceChildren();
    }

    #watch() {
        this.#watched?.stop();
        this.#watched = new JobWatch(this.#links.id, {
            onJob: (job) => this.#show(job),
            onLink: (is) => this.progress.linked(is),
            onGone: (error) => {
                this.title.textContent = "No such job";
                this.progress.element.hidden = true;
                say(this.error, sentenceOf(error));
            },
        });
    }

    #show(job) {
        this.title.textContent = nameOf(job);
        this.badge.hidden = false;
        this.badge.textContent = STATUS_WORDS[job.status] ?? job.status;
        this.badge.dataset.status = job.status;
        this.meta.textContent = [filesOf(job), `created ${when(job.created_at)}`].filter(Boolean).join(" · ");
        this.progress.element.hidden = isOver(job);
        if (!isOver(job)) this.progress.update(job);
        document.title = titleOf(job);
        this.#showActions(job);
        if (job.status === this.#status) return;
        this.#status = job.status;
        say(this.error, job.error ? job.error.message : "");
        if (isOver(job))
            announce(`${nameOf(job)}: ${STATUS_WORDS[job.status].toLowerCase()}. ${job.error?.message ?? ""}`);
        if (job.status === "COMPLETED") this.#showResult(job);
        this.details.replaceChildren(detailsOf(job));
    }

    /** Buttons are made anew when the status changes alone: one that has the focus keeps it. */
    #showActions(job) {
        if (this.#buttons === job.status) return;
        this.#buttons = job.status;
        const hadFocus = this.actions.contains(document.activeElement);
        const download = make("a", { class: "button primary", href: downloadOf(job), text: "Download", download: "" });
        const buttons = actionsOf(job, {
            onJob: (changed) => this.#show(changed),
            onRetried: (next) => this.#links.toJob(next.id),
            onDeleted: () => this.#links.toHome(),
            onError: (error) => this.#refused(error),
        });
        this.actions.replaceChildren(...(job.status === "COMPLETED" ? [download] : []), ...buttons);
        if (hadFocus) focusOn(this.title);
    }

    /** A refusal is often news: the job went on meanwhile. */
    #refused(error) {
        say(this.error, sentenceOf(error));
        this.#watch();
    }

    async #showResult(job) {
        const { original, options } = await this.#originalOf(job);
        if (!this.result.isConnected) return; // left meanwhile
        this.#player = new Player({ result: job.output_url ?? outputOf(job), original, options });
        this.result.replaceChildren(this.#player.element);
    }

    /** Address of the video that a job was made of, or null, and the job's options with those the video came with. */
    async #originalOf({ input, options }) {
        const { asset_id: asset, avatar_id: avatar } = input.find(({ type }) => type !== "audio") ?? {};
        if (this.#links.original) {
            this.#address = URL.createObjectURL(this.#links.original);
            return { original: this.#address, options };
        }
        if (asset) return { original: `/v1/assets/${encodeURIComponent(asset)}/content`, options };
        if (!avatar) return { original: null, options };
        try {
            const prepared = await call(`/v1/avatars/${encodeURIComponent(avatar)}`);
            return { original: prepared.urls.video, options: { ...options, ...prepared.options } };
        } catch {
            return { original: null, options }; // it was deleted since, or cannot be reached
        }
    }
}

const outputOf = (job) => `/v1/jobs/${encodeURIComponent(job.id)}/output`;
const downloadOf = (job) => `${outputOf(job)}?download=1`;

/** What the browser's tab says. */
function titleOf(job) {
    const { progress } = job;
    const isMaking = job.status === "PROCESSING" && progress?.stage === "denoise" && progress.total > 0;
    const state = isMaking ? `${Math.floor((100 * progress.frames) / progress.total)} %` : STATUS_WORDS[job.status];
    return `${state} · ${nameOf(job)} · lsx`;
}

/** The facts, options and notes of a job, under a fold. */
function detailsOf(job) {
    const took =
        job.started_at && job.completed_at ? (Date.parse(job.completed_at) - Date.parse(job.started_at)) / 1000 : null;
    const facts = [
        ["Job", job.id],
        ["Length of the result", job.output_duration && clock(job.output_duration, 2)],
        ["Time taken", took !== null && roughly(took)],
        ["Attempts", job.attempts > 1 && String(job.attempts)],
        ["Retry of", job.retry_of],
        ["Files are kept until", job.expires_at && when(job.expires_at)],
        ...Object.entries(job.options ?? {}).map(([name, value]) => [labelOf(name), wordsOf(name, value)]),
    ];
    const list = make("dl", { class: "facts" });
    for (const [term, value] of facts.filter(([, known]) => known)) {
        list.append(make("div", {}, make("dt", { text: term }), make("dd", { text: value })));
    }
    const notes = (job.notes ?? []).map((note) => make("li", { text: note }));
    const said =
        notes.length > 0
            ? make("section", { class: "panel" }, make("h2", { text: "Notes" }), make("ul", {}, ...notes))
            : null;
    const fold = make("details", { class: "group" }, make("summary", {}, make("span", { text: "Details" })), list);
    return make("div", { class: "stack" }, said, fold);
}
