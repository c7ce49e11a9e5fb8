// Where the page begins: which of the three documents this is by its address, and what it shows.

import { byId, focusOn } from "./dom.js";
import { JobList } from "./job_list.js";
import { JobView } from "./job_view.js";
import { LiveView } from "./live_view.js";
import { NewJob } from "./new_job.js";
import { showSession, themeButton } from "./shell.js";

const JOB = /^\/job\/([^/]+)\/?$/;
const LIVE = /^\/live\/?$/;

/** The id in the address, or null on the first page. */
function jobInAddress() {
    const found = JOB.exec(location.pathname);
    return found === null ? null : decodeURIComponent(found[1]);
}

/** The document of one job, as a reload or a link opens it. */
function jobDocument() {
    const place = byId("job");
    place.hidden = false;
    const view = new JobView(place, {
        id: jobInAddress(),
        toJob: (id) => location.assign(`/job/${id}`),
        toHome: () => location.assign("/"),
    });
    view.start();
    // A reload keeps the history of the first page, whose entries now belong to this document.
    addEventListener("popstate", () => location.reload());
}

/** The document on which an avatar speaks. */
function liveDocument() {
    const place = byId("live");
    place.hidden = false;
    document.title = "Live - lsx";
    new LiveView(place).start();
}

/** The first document: new job and list, and the job that was just submitted in their place. */
class Home {
    #home = byId("home");
    #place = byId("job");
    #view = null;
    #originals = new Map();
    #list;

    constructor() {
        const newJob = new NewJob(byId("new-job"), (job, video) => {
            this.#originals.set(job.id, video);
            this.#go(`/job/${job.id}`);
        });
        this.#list = new JobList(byId("jobs"), (id) => this.#go(`/job/${id}`));
        this.#home.hidden = false;
        newJob.start();
        this.#list.start();
        addEventListener("popstate", () => this.#show());
    }

    #go(path) {
        history.pushState(null, "", path);
        this.#show();
        scrollTo(0, 0);
    }

    #show() {
        const id = jobInAddress();
        this.#view?.stop();
        this.#view = null;
        this.#home.hidden = id !== null;
        this.#place.hidden = id === null;
        if (id === null) {
            document.title = "lsx";
            this.#list.start();
            focusOn(byId("new-job-title"));
            return;
        }
        this.#list.stop();
        for (const preview of this.#home.querySelectorAll("video, audio")) preview.pause();

        const links = {
            id,
            original: this.#originals.get(id),
            toJob: (other) => this.#go(`/job/${other}`),
            toHome: () => this.#go("/"),
        };
        this.#view = new JobView(this.#place, links);
        this.#view.start();
    }
}

themeButton();
await showSession(); // asks for the key, where one is needed, before the rest asks for anything
if (LIVE.test(location.pathname)) liveDocument();
else if (jobInAddress() !== null) jobDocument();
else new Home();
