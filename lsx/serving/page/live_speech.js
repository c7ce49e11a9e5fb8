// Sound to be said, as int16 at 16 kHz: of a file, or of the microphone as it comes.

const RATE = 16000;

const whole = (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32768)));

/** A file's sound, one channel. Throws where the browser reads none in it. */
export async function soundOf(file) {
    const context = new OfflineAudioContext(1, 1, RATE); // which decodes to its own rate
    const sound = await context.decodeAudioData(await file.arrayBuffer());
    const channels = Array.from({ length: sound.numberOfChannels }, (_, number) => sound.getChannelData(number));
    const mean = (place) => channels.reduce((sum, channel) => sum + channel[place], 0) / channels.length;
    return Int16Array.from({ length: sound.length }, (_, place) => whole(mean(place)));
}

/** Whether there can be a microphone: pages over plain HTTP from another machine have none. */
export const hasMicrophone = () => Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);

/** The microphone's sound, piece by piece. */
export class Microphone {
    #stream = null;
    #context = null;

    /** onPiece gets an Int16Array. */
    constructor(onPiece) {
        this.onPiece = onPiece;
    }

    get isOn() {
        return this.#stream !== null;
    }

    /** Throws what getUserMedia does. */
    async start() {
        const wanted = { echoCancellation: true, noiseSuppression: true, channelCount: 1 };
        this.#stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
        this.#context = new AudioContext(); // at the device's rate: Firefox connects a microphone to no other
        await this.#context.audioWorklet.addModule("/page/live_microphone.js");
        const node = new AudioWorkletNode(this.#context, "to-16-khz", { numberOfOutputs: 0 });
        node.port.addEventListener("message", ({ data }) => this.onPiece(Int16Array.from(data, whole)));
        node.port.start();
        this.#context.createMediaStreamSource(this.#stream).connect(node);
    }

    stop() {
        for (const track of this.#stream?.getTracks() ?? []) track.stop();
        this.#stream = null;
        this.#context?.close();
        this.#context = null;
    }
}
