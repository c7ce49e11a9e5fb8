// Numbers, times and statuses as words.

export const STATUS_WORDS = {
    PENDING: "Waiting",
    PROCESSING: "Running",
    COMPLETED: "Done",
    REJECTED: "Rejected",
    FAILED: "Failed",
    CANCELED: "Cancelled",
};

const OVER = new Set(["COMPLETED", "REJECTED", "FAILED", "CANCELED"]);

/** Whether a job's status is its last. */
export const isOver = (job) => OVER.has(job.status);

/** Whether the server takes a retry of it. */
export const canRetry = (job) => job.status === "FAILED" || job.status === "CANCELED";

/** What a job is called: its result's name. */
export const nameOf = (job) => job.output_file_name || job.id;

/** The names of its files, where this page submitted it. */
export function filesOf(job) {
    const { video, sound } = job.metadata ?? {};
    return [video, sound].filter(Boolean).join(" with ");
}

/** A number with one place after the point at most, and none from 100 on. */
export const short = (value) => String(Number(value.toFixed(value < 100 ? 1 : 0)));

export function bytes(count) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    let value = count;
    for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
    return `${short(value)} ${units[unit]}`;
}

/** Seconds as 1:02, or 1:02.50 with `places` 2. */
export function clock(seconds, places = 0) {
    const scale = 10 ** places;
    const whole = Math.floor(Math.max(seconds, 0) * scale + 1e-6) / scale;
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
    const rest = (whole % 60).toFixed(places).padStart(places === 0 ? 2 : 3 + places, "0");
    return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** How long something takes, roughly: 40 s, 12 min, 3 h 5 min. */
export function roughly(seconds) {
    if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const DATE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const TODAY = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });

/** An ISO time as a <time> element's text: of today the hour alone. */
export function when(iso) {
    const date = new Date(iso);
    return date.toDateString() === new Date().toDateString() ? `today, ${TODAY.format(date)}` : DATE.format(date);
}

/** What an upload is: 12.4 MB, 1920 × 1080, 25 frames a second, 0:42. */
export function factsOf(asset) {
    const facts = [bytes(asset.size)];
    if (asset.width && asset.height) facts.push(`${asset.width} × ${asset.height}`);
    if (asset.fps) facts.push(`${Number(asset.fps.toFixed(3))} fps`);
    if (asset.duration) facts.push(clock(asset.duration, 1));
    return facts.join(" · ");
}

/** 1 frame, 2 frames. */
export const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
