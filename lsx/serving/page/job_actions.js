// What a user does with a job, wherever it is shown: cancel, retry, delete.

import { announce, make } from "./dom.js";
import { call, newKey } from "./api.js";
import { confirmed } from "./shell.js";
import { canRetry, isOver, nameOf } from "./words.js";

const pathOf = (job) => `/v1/jobs/${encodeURIComponent(job.id)}`;

/** Whether the job still runs: a worker stops at the next chunk. */
async function cancel(job, { onJob }) {
    const next = await call(`${pathOf(job)}/cancel`, { method: "POST" });
    announce(`${nameOf(job)}: cancelling.`);
    onJob(next);
    return !isOver(next);
}

async function retry(job, { onRetried }) {
    const next = await call(`${pathOf(job)}/retry`, { method: "POST", headers: { "Idempotency-Key": newKey() } });
    announce(`${nameOf(job)}: submitted again.`);
    onRetried(next);
}

async function remove(job, { onDeleted }) {
    await call(pathOf(job), { method: "DELETE" });
    announce(`${nameOf(job)}: deleted.`);
    onDeleted(job);
}

function wantsDeletion(job) {
    const text = `${nameOf(job)} and its files are removed from the server. This cannot be undone.`;
    return confirmed("Delete this job?", text, "Delete");
}

/** A button; `ask` resolves to whether the user means it, `action` to whether it goes on after the server's answer. */
function actionButton(job, words, then, action, ask = () => true) {
    const label = `${words} ${nameOf(job)}`;
    const button = make("button", { type: "button", text: words, "aria-label": label });
    button.addEventListener("click", async () => {
        if (!(await ask(job))) return;
        button.disabled = true;
        let goesOn = false;
        try {
            goesOn = await action(job, then);
        } catch (error) {
            then.onError(error);
        }
        button.disabled = Boolean(goesOn);
        if (goesOn) button.textContent = "Cancelling";
    });
    return button;
}

/**
 * The buttons that a job's status allows.
 *
 * then : {onJob, onRetried, onDeleted, onError}, each called once the server has answered.
 */
export function actionsOf(job, then) {
    if (!isOver(job)) return [actionButton(job, "Cancel", then, cancel)];
    const again = canRetry(job) ? [actionButton(job, "Retry", then, retry)] : [];
    return [...again, actionButton(job, "Delete", then, remove, wantsDeletion)];
}
