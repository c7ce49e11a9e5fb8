// Names, help and order of the options that are well known. Which options there are, and their bounds, the server
// says: one that is missing there is not shown, and one that is missing here is shown under "More" in the server's
// words.

/** Groups in their order; the first is always open. */
export const GROUPS = [
    ["main", "Main"],
    ["timing", "Timing"],
    ["sampling", "Sampling"],
    ["finish", "Finish"],
    ["encoding", "Encoding"],
    ["more", "More"],
];

export const KNOWN = {
    steps: { group: "main", label: "Steps", help: "Denoising steps. 20 is usual; fewer are faster, more are finer." },
    speaker: {
        group: "main",
        label: "Speaker",
        help: "Whose mouth moves: a rule, a track's number, or box=X,Y,W,H@SECONDS.",
        suggestions: ["largest", "left", "center", "right", "active", "all"],
    },
    extend: {
        group: "main",
        label: "Where the video is too short",
        help: "What it does until the sound ends.",
        choices: {
            bounce: "Bounce: back and forth",
            loop: "Loop: again from the start",
            hold: "Hold its last frame",
            cut_off: "Cut off: end with what ends first",
            silence: "Silence: extend the sound instead",
            remap: "Remap: change the video's speed",
        },
    },
    length: {
        group: "timing",
        label: "Length",
        help: "How long the result lasts.",
        unset: "As the sound lasts",
        choices: { audio: "Sound", video: "Video", shortest: "The shorter", longest: "The longer" },
    },
    start: { group: "timing", label: "Start in the video", help: "Seconds, as 12.5 or 1:02.5." },
    end: { group: "timing", label: "End in the video", help: "Seconds. Empty is the video's end." },
    audio_offset: {
        group: "timing",
        label: "Sound offset",
        help: "Seconds by which the sound comes later; may be negative.",
    },
    silence: {
        group: "timing",
        label: "Mouth in silences",
        help: "In silences of 0.4 s and more.",
        choices: { sync: "Sync: as the model has it", keep: "Keep the video's own mouth", close: "Close the mouth" },
    },
    fps: {
        group: "timing",
        label: "Frames a second",
        help: "Of the result: a number, or source for the video's own.",
        suggestions: ["25", "source"],
    },
    guidance: {
        group: "sampling",
        label: "Guidance",
        help: "How strongly the sound leads. 1.5 is usual; 1 is off, and faster.",
    },
    sampler: {
        group: "sampling",
        label: "Sampler",
        help: "DPM-Solver++ needs about half the steps. Trailing is for four of them or fewer.",
        choices: { ddim: "DDIM", "dpm++2m": "DPM-Solver++ 2M", "ddim-trailing": "DDIM, trailing" },
    },
    cache_interval: { group: "sampling", label: "Cache interval", help: "A full U-Net every so many steps, or off." },
    seed: { group: "sampling", label: "Seed", help: "The same seed gives the same result." },
    overlap: {
        group: "finish",
        label: "Overlap",
        help: "Frames over which one chunk leads to the next. 4 cost a third more time.",
    },
    sharpen: { group: "finish", label: "Sharpen", help: "0 is not at all, 1 is visible." },
    colour_match: { group: "finish", label: "Match colours", help: "Move the made face's colours to those round it." },

    codec: {
        group: "encoding",
        label: "Video codec",
        help: "Browsers play H.264, and often AV1.",
        unset: "Default: H.264",
        choices: { h264: "H.264", hevc: "HEVC", av1: "AV1", prores: "ProRes" },
    },
    crf: { group: "encoding", label: "Quality (CRF)", help: "Lower is better; 18 of H.264 is visually lossless." },
    preset: { group: "encoding", label: "Preset", help: "The encoder's own word, as medium, slow or hq." },
    pix_fmt: { group: "encoding", label: "Pixel format", help: "FFmpeg's name, as yuv420p10le." },
    audio_codec: {
        group: "encoding",
        label: "Sound codec",
        help: "Of the result's sound.",
        choices: { aac: "AAC", opus: "Opus", pcm: "PCM", copy: "Copy: the sound's own packets" },
    },
};

/** An option's label, by its name and the server's schema of it. */
export function labelOf(name, schema = {}) {
    return KNOWN[name]?.label ?? capitalised((schema.title ?? name).replaceAll("_", " ").toLowerCase());
}

/** An option's help: this page's, or the server's. */
export const helpOf = (name, schema) => KNOWN[name]?.help ?? capitalised(schema.description ?? "");

const capitalised = (words) => words.charAt(0).toUpperCase() + words.slice(1);

/** A value as the page shows it. */
export function wordsOf(name, value) {
    if (typeof value === "boolean") return value ? "yes" : "no";
    return KNOWN[name]?.choices?.[value] ?? (typeof value === "object" ? JSON.stringify(value) : String(value));
}
