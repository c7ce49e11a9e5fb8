// Making elements. Text goes in as text alone: nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id that the document is known to have. */
export const byId = (id) => document.getElementById(id);

/**
 * An element with its properties and children.
 *
 * `class`, `data`, `on` (listeners by event) and `text` are understood; whatever else is set as a property where the
 * element has one of that name, and as an attribute otherwise.
 */
export function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
        if (value === undefined || value === null) continue;
        if (name === "class") element.className = value;
        else if (name === "text") element.textContent = value;
        else if (name === "data") Object.assign(element.dataset, value);
        else if (name === "on")
            for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
        else if (name in element && name !== "list") element[name] = value;
        else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
}

const ICONS = {
    play: "M7 4.5v15l12-7.5z",
    pause: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
    back: "M8 5h2.5v14H8zM18 5.5v13L11.5 12z",
    forward: "M13.5 5H16v14h-2.5zM6 5.5v13L12.5 12z",
    sound: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM14.5 8.5a4.5 4.5 0 0 1 0 7M17 6a8 8 0 0 1 0 12",
    silent: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM15 9.5l5 5M20 9.5l-5 5",
    full: "M5 9.5V5h4.5M14.5 5H19v4.5M19 14.5V19h-4.5M9.5 19H5v-4.5",
};
const OUTLINED = new Set(["full", "sound", "silent"]);

/** A drawing that says nothing to a screen reader: its button has a name. */
export function icon(name) {
    const svg = document.createElementNS(SVG, "svg");
    const path = document.createElementNS(SVG, "path");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    svg.setAttribute("class", OUTLINED.has(name) ? "icon outlined" : "icon");
    path.setAttribute("d", ICONS[name]);
    svg.append(path);
    return svg;
}

/** Put the keyboard's focus on what takes none by itself, as a heading. */
export function focusOn(element) {
    element.tabIndex = -1;
    element.focus({ preventScroll: true });
}

/** Tell a screen reader; sighted users see the same elsewhere. */
export function announce(text) {
    byId("announcements").textContent = text;
}

/** A message with what the user can do about it; empty, it is not there. */
export function say(element, text) {
    element.textContent = text;
    element.hidden = text === "";
}
