// Runs before anything is drawn, so that a chosen theme does not flash: hence no module.
try {
    const theme = localStorage.getItem("lsx-theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
    // Storage can be forbidden: then the system's theme it is.
}
