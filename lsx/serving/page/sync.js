// The original beside the result: which of its moments belongs to one of the result, and keeping the two together.

const FAR = 0.25; // seconds apart from which the original jumps; below, it runs a little faster or slower
const STRONGEST = 0.3; // the most by which it does
const SAME = 0.001; // seconds
const LAST = 0.06; // seconds before its end: a video that has ended would begin anew when told to play

/** Seconds of 12.5, "12.5" or "1:02.5"; null of anything else. */
export function secondsOf(value) {
    if (value === null || value === undefined || value === "") return null;
    const seconds = String(value)
        .split(":")
        .reduce((sum, part) => 60 * sum + Number(part), 0);
    return Number.isFinite(seconds) ? seconds : null;
}

/**
 * Where the original is at a time of the result: {time, rate}. rate is 0 where it holds, and negative where it plays
 * backwards. The rules are those of lsx/runtime/timeline.py.
 *
 * options : the job's; durations in seconds.
 */
export function placeOf(at, options, original, result) {
    const start = Math.min(secondsOf(options.start) ?? 0, original);
    const stop = Math.min(secondsOf(options.end) ?? original, original);
    const lasts = stop - start;
    if (!(lasts > 0)) return { time: start, rate: 0 };
    if (options.extend === "loop") return { time: start + (at % lasts), rate: 1 };
    if (options.extend === "hold") return { time: start + Math.min(at, lasts), rate: at < lasts ? 1 : 0 };
    const limit = options.remap_limit ?? 2;
    const speed = options.extend === "remap" ? Math.min(Math.max(lasts / result, 1 / limit), limit) : 1;
    const round = (at * speed) % (2 * lasts);
    return round < lasts ? { time: start + round, rate: speed } : { time: start + 2 * lasts - round, rate: -speed };
}

/**
 * Keep the original's video where the result's is.
 *
 * Backwards, and while paused, the original is moved from frame to frame; forwards it plays, its rate corrected.
 */
export function keepTogether(result, original, options) {
    let isFollowing = false;
    let asked = null; // where the original was last sent while the result stands
    const place = () => {
        const isKnown = original.readyState >= HTMLMediaElement.HAVE_METADATA && result.duration > 0;
        return isKnown ? placeOf(result.currentTime, options, original.duration, result.duration) : null;
    };
    const align = () => {
        const at = place();
        // Sent once to each moment: a browser that lands beside it would be sent there without end.
        if (at === null || original.seeking || at.time === asked) return;
        asked = at.time;
        jump(original, at.time);
    };
    const follow = () => {
        if (result.paused || result.ended) {
            isFollowing = false;
            original.pause();
            align();
            return;
        }
        const at = place();
        if (at !== null) lead(original, at, result.playbackRate);
        requestAnimationFrame(follow);
    };
    result.addEventListener("play", () => {
        if (isFollowing) return;
        isFollowing = true;
        asked = null;
        follow();
    });
    for (const event of ["pause", "seeking", "seeked"]) result.addEventListener(event, () => result.paused && align());
    original.addEventListener("loadedmetadata", align);
    original.addEventListener("seeked", () => result.paused && align());
}

function jump(original, time) {
    if (!original.seeking && Math.abs(original.currentTime - time) > SAME) original.currentTime = time;
}

/** Bring a video that should play, or stand, where it should be. */
function lead(original, { time, rate }, resultRate) {
    if (rate <= 0 || time > original.duration - LAST) {
        original.pause();
        jump(original, time);
        return;
    }
    const apart = time - original.currentTime;
    if (Math.abs(apart) > FAR) jump(original, time);
    original.playbackRate = rate * resultRate * (1 + Math.max(-STRONGEST, Math.min(STRONGEST, 2 * apart)));
    if (original.paused) original.play().catch(() => {}); // a pause that comes meanwhile rejects it
}
