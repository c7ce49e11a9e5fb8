// The form of a job's options, built from the server's schema.

import { make, say } from "./dom.js";
import { shapeOf } from "./option_shape.js";
import { GROUPS, helpOf, KNOWN, labelOf } from "./options_table.js";

const NUMBER = /^-?\d+(\.\d+)?$/;

/** One option: its control, its help and its error. */
class OptionField {
    constructor(name, schema, shape) {
        this.name = name;
        this.shape = shape;
        const known = KNOWN[name] ?? {};
        const id = `option-${name}`;

        this.error = make("p", { class: "field-error", id: `${id}-error`, hidden: true });
        this.control = this.#control(id, known);
        this.control.setAttribute("aria-describedby", `${id}-help ${id}-error`);
        const label = make("label", { htmlFor: id, text: labelOf(name, schema) });
        const described = make("p", { class: "help", id: `${id}-help`, text: helpOf(name, schema) });
        const isCheckbox = shape.kind === "checkbox";
        const row = isCheckbox ? [make("div", { class: "check" }, this.control, label)] : [label, this.control];
        this.element = make("div", { class: "field", data: { option: name } }, ...row, described, this.error);
        this.#suggest(known.suggestions ?? (shape.kind === "text" ? shape.choices.map(String) : []), id);
        this.control.addEventListener("input", () => this.refuse(""));
    }

    #control(id, known) {
        const { kind, fallback, minimum, maximum, whole } = this.shape;
        if (kind === "select") return this.#select(id, known);
        if (kind === "checkbox")
            return make("input", {
                id,
                type: "checkbox",
                checked: fallback === true,
                defaultChecked: fallback === true,
            });
        const text = {
            id,
            autocomplete: "off",
            spellcheck: false,
            placeholder: fallback === null ? "default" : undefined,
        };
        const shown = fallback === null ? "" : String(fallback);
        if (kind === "text") return make("input", { ...text, type: "text", defaultValue: shown });
        const bounds = {
            min: minimum,
            max: maximum,
            step: whole ? "1" : "any",
            inputMode: whole ? "numeric" : "decimal",
        };
        return make("input", { ...text, type: "number", ...bounds, defaultValue: shown });
    }

    #select(id, known) {
        const { choices, nullable, fallback } = this.shape;
        const words = (value) =>
            known.choices?.[value] ?? (typeof value === "boolean" ? (value ? "Yes" : "No") : String(value));
        const options = choices.map((value, index) => {
            return make("option", { value: String(index), text: words(value), defaultSelected: value === fallback });
        });
        const unset = nullable || fallback === null;
        if (unset)
            options.unshift(
                make("option", { value: "", text: known.unset ?? "Default", defaultSelected: fallback === null }),
            );
        return make("select", { id }, ...options);
    }

    #suggest(suggestions, id) {
        if (suggestions.length === 0 || this.shape.kind !== "text") return;
        const list = make("datalist", { id: `${id}-list` }, ...suggestions.map((value) => make("option", { value })));
        this.control.setAttribute("list", list.id);
        this.element.append(list);
    }

    /** What is chosen; undefined where it is the default, or left to it. */
    get value() {
        const { kind, choices, fallback, numeric } = this.shape;
        let value;
        if (kind === "checkbox") value = this.control.checked;
        else if (kind === "select") value = this.control.value === "" ? null : choices[Number(this.control.value)];
        else {
            const text = this.control.value.trim();
            if (text === "") value = null;
            else value = kind === "number" || (numeric && NUMBER.test(text)) ? Number(text) : text;
        }
        return value === fallback || (value === null && !(kind === "select" && this.shape.nullable))
            ? undefined
            : value;
    }

    /** Whether the browser takes what is in the control; says what is wrong beside it. */
    check() {
        if (!this.control.checkValidity()) this.refuse(this.control.validationMessage);
        return this.error.hidden;
    }

    /** Say what is wrong with it; empty takes that back. */
    refuse(message) {
        say(this.error, message);
        if (message === "") this.control.removeAttribute("aria-invalid");
        else this.control.setAttribute("aria-invalid", "true");
    }

    /** Bring it to the user's eyes. */
    show() {
        const group = this.element.closest("details");
        if (group) group.open = true;
        this.control.focus();
    }
}

/** All options of a schema, grouped. */
export class OptionsForm {
    #fields = new Map();
    #counts = new Map();

    /** place : the element that the groups go into; schema : a JSON schema of an object. */
    constructor(place, schema) {
        const groups = new Map(GROUPS.map(([group]) => [group, []]));
        for (const [name, property] of ordered(schema.properties ?? {})) {
            const shape = shapeOf(property, schema.$defs ?? {});
            if (shape === null) continue;
            const field = new OptionField(name, property, shape);
            this.#fields.set(name, field);
            groups.get(KNOWN[name]?.group ?? "more").push(field);
        }
        for (const [group, title] of GROUPS) {
            if (groups.get(group).length > 0) place.append(this.#group(group, title, groups.get(group)));
        }
        place.addEventListener("input", () => this.#count());
    }

    #group(group, title, fields) {
        const grid = make("div", { class: "fields" }, ...fields.map((field) => field.element));
        if (group === "main") return grid;
        const count = make("span", { class: "count", hidden: true });
        this.#counts.set(count, fields);
        return make("details", { class: "group" }, make("summary", {}, make("span", { text: title }), count), grid);
    }

    #count() {
        for (const [count, fields] of this.#counts) {
            const changed = fields.filter((field) => field.value !== undefined).length;
            say(count, changed === 0 ? "" : `${changed} changed`);
        }
    }

    /** The options that differ from their defaults; null where one is not valid, which then has the focus. */
    values() {
        const wrong = [...this.#fields.values()].filter((field) => !field.check());
        if (wrong.length > 0) {
            wrong[0].show();
            return null;
        }
        const chosen = [...this.#fields].map(([name, field]) => [name, field.value]);
        return Object.fromEntries(chosen.filter(([, value]) => value !== undefined));
    }

    /** Show a refusal beside the option it is about; false where there is no such option. */
    refuse(name, message) {
        const field = this.#fields.get(name);
        if (!field) return false;
        field.refuse(message);
        field.show();
        return true;
    }

    /** All options as they were at first. */
    reset() {
        for (const field of this.#fields.values()) {
            const { control } = field;
            if (control.type === "checkbox") control.checked = control.defaultChecked;
            else if (control.tagName === "SELECT")
                control.selectedIndex = Math.max(
                    0,
                    [...control.options].findIndex((option) => option.defaultSelected),
                );
            else control.value = control.defaultValue;
            field.refuse("");
        }
        this.#count();
    }
}

/** The known options in their table's order, then the server's others in its own. */
function ordered(properties) {
    const known = Object.keys(KNOWN).filter((name) => name in properties);
    const others = Object.keys(properties).filter((name) => !(name in KNOWN));
    return [...known, ...others].map((name) => [name, properties[name]]);
}
