// How far a job is: its place in the queue, its stages, a bar, and the time that is left.

import { announce, make, say } from "./dom.js";
import { counted, roughly, short } from "./words.js";

const STAGES = [
    ["probe", "Read the files"],
    ["look", "Look for faces"],
    ["denoise", "Make the frames"],
    ["publish", "Write the result"],
];
const ANNOUNCED_SHARE = 0.25; // a screen reader hears of every quarter, not of every frame

export class ProgressPanel {
    #heard = "";

    constructor() {
        this.stages = STAGES.map(([, words]) => make("li", {}, make("span", { text: words })));
        this.bar = make("progress", { "aria-labelledby": "progress-title" });
        this.numbers = make("p", { class: "numbers" });
        this.faces = make("p", { class: "soft", hidden: true });
        this.link = make("p", { class: "notice", hidden: true });
        this.element = make(
            "section",
            { class: "panel progress", "aria-labelledby": "progress-title" },
            make("h2", { id: "progress-title", text: "Progress" }),
            make("ol", { class: "stages" }, ...this.stages),
            this.bar,
            this.numbers,
            this.faces,
            this.link,
        );
    }

    /** Show a job that is not over. */
    update(job) {
        const { progress } = job;
        const isWaiting = job.status === "PENDING" || progress === null;
        this.#showStage(isWaiting ? -1 : STAGES.findIndex(([stage]) => stage === progress.stage));
        const share = isWaiting ? null : shareOf(progress);
        if (share === null) this.bar.removeAttribute("value");
        else this.bar.value = share;
        this.bar.hidden = job.status === "PENDING";
        this.numbers.textContent = isWaiting ? waitingWords(job) : stageWords(progress);
        const looks = !isWaiting && progress.stage === "denoise" && progress.looked < progress.to_look;
        say(this.faces, looks ? `Faces: ${progress.looked} of ${counted(progress.to_look, "frame")} looked at` : "");
        this.#tell(isWaiting, progress, share);
    }

    /** Whether the server is heard. */
    linked(is) {
        say(this.link, is ? "" : "The connection is lost. The job goes on; this page tries again.");
    }

    #showStage(current) {
        this.stages.forEach((item, index) => {
            item.dataset.state = index < current ? "past" : index === current ? "current" : "ahead";
            if (index === current) item.setAttribute("aria-current", "step");
            else item.removeAttribute("aria-current");
        });
    }

    #tell(isWaiting, progress, share) {
        const quarter = share === null ? "" : Math.floor(share / ANNOUNCED_SHARE);
        const step = isWaiting ? `waiting ${this.numbers.textContent}` : `${progress.stage} ${quarter}`;
        if (step === this.#heard) return;
        this.#heard = step;
        announce(this.numbers.textContent);
    }
}

/** The share of its stage that is done, 0 to 1; null where that is not known. */
function shareOf({ stage, frames, total, looked, to_look: toLook }) {
    if (stage === "look" && toLook > 0) return looked / toLook;
    if (stage === "denoise" && total > 0) return frames / total;
    return null;
}

function waitingWords({ status, queue_position: place, attempts }) {
    if (status === "PROCESSING") return "A worker has taken the job.";
    const again = attempts > 0 ? " again" : "";
    if (!place) return `Waiting${again} for a worker.`;
    return place <= 1
        ? `Waiting${again}: this job is next.`
        : `Waiting${again}: ${counted(place - 1, "job")} before this one.`;
}

function stageWords(progress) {
    const { stage, frames, total, fps, eta_seconds: left, looked, to_look: toLook } = progress;
    if (stage === "probe") return "Reading the files.";
    if (stage === "publish") return "Writing the result.";
    if (stage === "look")
        return toLook > 0 ? `${looked} of ${counted(toLook, "frame")} looked at` : "Looking for faces.";
    const words = [`${frames} of ${counted(total, "frame")}`];
    if (fps > 0) words.push(`${short(fps)} a second`);
    if (left !== null && left !== undefined) words.push(`about ${roughly(left)} left`);
    return words.join(" · ");
}
