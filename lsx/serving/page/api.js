// The server's API: JSON over fetch, uploads over XMLHttpRequest (fetch tells nothing of how far an upload is).

import { askForKey } from "./key_dialog.js";

/** A refusal, as RFC 9457 has it. `errors` are of single fields. */
export class Problem extends Error {
    constructor(status, body, retryAfter = null) {
        super(body.detail || body.title || `The server answered ${status}.`);
        this.status = status;
        this.code = body.code ?? "";
        this.errors = (body.errors ?? []).map(({ loc, message }) => ({ path: pathOf(loc), message }));
        this.retryAfter = Number(retryAfter) || null;
    }

    /** The sentence to show. */
    get sentence() {
        return this.retryAfter === null ? this.message : `${this.message} Try again in ${this.retryAfter} s.`;
    }
}

/** The server could not be reached. */
export class NoConnection extends Error {
    constructor() {
        super("The server cannot be reached. Check the connection and try again.");
    }

    get sentence() {
        return this.message;
    }
}

/** What to show of an error, whichever it is. */
export const sentenceOf = (error) => error.sentence ?? `Something went wrong in the page: ${error.message}`;

/** `options.steps`, or ["body", "options", "steps"], as ["options", "steps"]. */
function pathOf(loc) {
    const path = Array.isArray(loc) ? loc.map(String) : String(loc ?? "").split(/[./]/);
    return path[0] === "body" ? path.slice(1) : path;
}

function problemOf(status, text, retryAfter) {
    try {
        return new Problem(status, JSON.parse(text), retryAfter);
    } catch {
        return new Problem(status, {}, retryAfter);
    }
}

/**
 * Call the API: the answer's JSON, or null where it has none.
 *
 * Asks for the key and calls again where the server wants one. Throws Problem and NoConnection.
 */
export async function call(path, { method = "GET", body, headers = {} } = {}) {
    const json = body === undefined ? {} : { "Content-Type": "application/json" };
    const request = {
        method,
        headers: { Accept: "application/json", ...json, ...headers },
        body: body && JSON.stringify(body),
    };
    let response;
    let text;
    try {
        response = await fetch(path, request);
        text = await response.text();
    } catch {
        throw new NoConnection();
    }
    if (response.status === 401) {
        await askForKey();
        return call(path, { method, body, headers });
    }
    if (!response.ok) throw problemOf(response.status, text, response.headers.get("Retry-After"));
    return text === "" ? null : JSON.parse(text);
}

/**
 * Upload a file: the asset. `onProgress` gets the share that is sent, 0 to 1; `signal` stops it.
 *
 * Throws Problem and NoConnection, and a DOMException named AbortError once stopped.
 */
export async function upload(file, name, { onProgress, signal }) {
    const { status, text, retryAfter } = await send(file, name, onProgress, signal);
    if (status === 401) {
        await askForKey();
        return upload(file, name, { onProgress, signal });
    }
    if (status < 200 || status > 299) throw problemOf(status, text, retryAfter);
    return JSON.parse(text);
}

function send(file, name, onProgress, signal) {
    return new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        request.open("POST", `/v1/assets?filename=${encodeURIComponent(name)}`);
        request.setRequestHeader("Content-Type", file.type.split(";")[0] || "application/octet-stream");
        request.upload.addEventListener("progress", (event) => {
            if (event.lengthComputable) onProgress(event.loaded / event.total);
        });
        request.addEventListener("load", () => {
            resolve({
                status: request.status,
                text: request.responseText,
                retryAfter: request.getResponseHeader("Retry-After"),
            });
        });
        request.addEventListener("error", () => reject(new NoConnection()));
        request.addEventListener("abort", () => reject(new DOMException("The upload was stopped.", "AbortError")));
        signal.addEventListener("abort", () => request.abort());
        request.send(file);
    });
}

/** A new Idempotency-Key. Not randomUUID, which pages over plain HTTP lack. */
export function newKey() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(
        "",
    );
}
