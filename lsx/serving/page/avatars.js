// The caller's avatars, as selects offer them.

import { call } from "./api.js";
import { make } from "./dom.js";

/** Those that are ready. Throws Problem and NoConnection. */
export async function readyAvatars() {
    const { data } = await call("/v1/avatars?limit=100");
    return data.filter(({ status }) => status === "READY");
}

/** An option for each. */
export const optionsOf = (avatars) => avatars.map(({ id, name }) => make("option", { value: id, text: name || id }));
