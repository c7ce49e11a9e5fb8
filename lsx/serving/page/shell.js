// What all documents have round their content: who is signed in, the theme, and a dialog that asks before a deletion.

import { call, sentenceOf } from "./api.js";
import { byId, make, say } from "./dom.js";

/** Show whose key is used, and a button to drop it; asks for a key where one is needed. */
export async function showSession() {
    let session;
    try {
        session = await call("/v1/session");
    } catch (error) {
        byId("main").prepend(make("p", { class: "notice bad", role: "alert", text: sentenceOf(error) }));
        return;
    }
    if (session.auth !== "key") return;
    say(byId("session-name"), session.name ?? "");
    const out = byId("sign-out");
    out.hidden = false;
    out.addEventListener("click", async () => {
        await fetch("/logout", { method: "POST" });
        location.assign("/");
    });
}

/** The button that changes between dark and light, and remembers it. */
export function themeButton() {
    const button = byId("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
    const show = () => {
        button.textContent = isDark() ? "Light theme" : "Dark theme";
    };
    button.addEventListener("click", () => {
        const theme = isDark() ? "light" : "dark";
        document.documentElement.dataset.theme = theme;
        try {
            localStorage.setItem("lsx-theme", theme);
        } catch {
            // Storage can be forbidden: then the theme lasts as long as the page.
        }
        show();
    });
    system.addEventListener("change", show);
    show();
}

/** Ask before what cannot be undone: whether to go on. */
export function confirmed(title, text, action) {
    return new Promise((resolve) => {
        const dialog = make("dialog", { "aria-labelledby": "confirm-title", "aria-describedby": "confirm-text" });
        const close = (answer) => () => dialog.close(answer);
        dialog.append(
            make(
                "div",
                { class: "dialog-form" },
                make("h2", { id: "confirm-title", text: title }),
                make("p", { id: "confirm-text", text }),
                make(
                    "div",
                    { class: "row end" },
                    make("button", { type: "button", text: "Keep it", autofocus: true, on: { click: close("") } }),
                    make("button", { type: "button", class: "danger", text: action, on: { click: close("yes") } }),
                ),
            ),
        );
        dialog.addEventListener("close", () => {
            dialog.remove();
            resolve(dialog.returnValue === "yes");
        });
        document.body.append(dialog);
        dialog.showModal();
    });
}
