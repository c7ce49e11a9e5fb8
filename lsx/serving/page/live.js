// The page on which an avatar speaks: where it begins.

import { byId } from "./dom.js";
import { LiveView } from "./live_view.js";
import { showSession, themeButton } from "./shell.js";

themeButton();
await showSession(); // asks for the key, where one is needed, before the rest asks for anything
new LiveView(byId("live")).start();
