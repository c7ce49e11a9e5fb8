// The dialog that asks for the key. The key becomes a cookie that scripts cannot read; the page keeps nothing.

import { make, say } from "./dom.js";

let asked = null;

/** Resolves once the server took a key; calls that come meanwhile share the one dialog. */
export function askForKey() {
    asked ??= new Promise((resolve) => open(resolve)).finally(() => {
        asked = null;
    });
    return asked;
}

function open(resolve) {
    const { form, key, button, error } = keyForm();
    const dialog = make("dialog", { "aria-labelledby": "key-title", closedby: "none" }, form);
    let taken = false;
    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        button.disabled = true;
        const refusal = await logIn(key.value.trim());
        button.disabled = false;
        taken = refusal === "";
        if (taken) {
            dialog.close();
            return;
        }
        say(error, refusal);
        key.setAttribute("aria-invalid", "true");
        key.select();
    });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
        if (!taken) {
            dialog.showModal(); // nothing of the page works without a key
            return;
        }
        dialog.remove();
        resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
    key.focus();
}

function keyForm() {
    const key = make("input", {
        id: "key",
        name: "key",
        type: "password",
        required: true,
        maxLength: 200,
        autocomplete: "current-password",
        "aria-describedby": "key-help key-error",
        spellcheck: false,
    });
    const help = "Whoever runs the server makes one with: lsx serve key create";
    const error = make("p", { id: "key-error", class: "field-error", role: "alert", hidden: true });
    const button = make("button", { class: "primary", type: "submit", text: "Sign in" });
    // Password managers look for a name beside a password.
    const name = make("input", {
        type: "text",
        name: "username",
        autocomplete: "username",
        value: "lsx",
        hidden: true,
    });
    const label = make("label", { htmlFor: "key", text: "Key" });
    const form = make(
        "form",
        { class: "dialog-form", noValidate: true },
        make("h2", { id: "key-title", text: "This server needs a key" }),
        name,
        make("div", { class: "field" }, label, key, make("p", { id: "key-help", class: "help", text: help }), error),
        make("div", { class: "row end" }, button),
    );
    return { form, key, button, error };
}

/** Why the server refuses the key; empty where it takes it. */
async function logIn(key) {
    if (key === "") return "Give the key.";
    try {
        const response = await fetch("/login", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ key }),
        });
        if (response.ok) return "";
        const problem = await response.json().catch(() => ({}));
        return problem.detail || "The server does not know this key.";
    } catch {
        return "The server cannot be reached. Try again.";
    }
}
