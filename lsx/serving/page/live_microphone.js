// On the audio thread: the microphone's sound at its own rate becomes pieces of 40 ms at 16 kHz.

const RATE = 16000;
const PIECE = 640;
const ZEROS = 16; // zero crossings of the sinc on either side

/** A low-pass filter at the lower of both Nyquist frequencies: a sinc under a Hann window. */
function weight(distance, cutoff, reach) {
    if (Math.abs(distance) >= reach) return 0;
    const turn = Math.PI * cutoff * distance;
    const sinc = distance === 0 ? 1 : Math.sin(turn) / turn;
    return cutoff * sinc * (0.5 + 0.5 * Math.cos((Math.PI * distance) / reach));
}

class To16kHz extends AudioWorkletProcessor {
    #step = sampleRate / RATE; // samples of the microphone's for one of ours
    #cutoff = Math.min(1, RATE / sampleRate) * 0.95;
    #reach = ZEROS / this.#cutoff;
    #weights = new Map(); // by how far a sample of ours lies behind one of the microphone's
    #heard = [];
    #at = this.#reach; // of the next sample, in `#heard`
    #piece = [];

    process([[channel]]) {
        if (channel) this.#heard.push(...channel);
        while (this.#at + this.#reach + 1 < this.#heard.length) {
            this.#piece.push(this.#sample());
            this.#at += this.#step;
        }
        const done = Math.floor(this.#at - this.#reach);
        if (done > 0) {
            this.#heard.splice(0, done);
            this.#at -= done;
        }
        while (this.#piece.length >= PIECE) this.port.postMessage(Float32Array.from(this.#piece.splice(0, PIECE)));
        return true;
    }

    #sample() {
        const place = Math.floor(this.#at);
        const weights = this.#weightsOf(this.#at - place);
        const first = place - (weights.length - 1) / 2;
        return weights.reduce((sum, weight, number) => sum + (this.#heard[first + number] ?? 0) * weight, 0);
    }

    #weightsOf(behind) {
        const key = Math.round(behind * 1e6);
        if (!this.#weights.has(key)) {
            const half = Math.ceil(this.#reach);
            const places = Array.from({ length: 2 * half + 1 }, (_, number) => number - half - behind);
            this.#weights.set(
                key,
                places.map((distance) => weight(distance, this.#cutoff, this.#reach)),
            );
        }
        return this.#weights.get(key);
    }
}

registerProcessor("to-16-khz", To16kHz);
