"use strict";

// Pictures side by side in one frame, with a handle between them. The hidden range
// input takes the keyboard and speaks to screen readers; pointers move the frame itself.
for (const slider of document.querySelectorAll(".slider")) {
  const frame = slider.querySelector(".frame");
  const input = slider.querySelector("input");
  const shown = slider.querySelector(".shown");

  const move = (percent) => {
    frame.style.setProperty("--split", `${percent}%`);
    input.setAttribute("aria-valuetext", `${Math.round(percent)} %`);
  };
  const follow = (event) => {
    const box = frame.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const percent = 100 * Math.min(1, Math.max(0, share));
    input.value = percent;
    move(percent);
  };

  input.addEventListener("input", () => move(Number(input.value)));
  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    frame.setPointerCapture(event.pointerId);
    follow(event);
    input.focus({ preventScroll: true });
  });
  frame.addEventListener("pointermove", (event) => {
    if (frame.hasPointerCapture(event.pointerId)) follow(event);
  });
  // The browser would take the focus from the input, or drag a picture away.
  frame.addEventListener("mousedown", (event) => event.preventDefault());

  // Browsers keep the value of an input when a page is loaded again.
  move(Number(input.value));
  new ResizeObserver(() => {
    const percent = (100 * frame.clientWidth) / Number(shown.dataset.width);
    shown.hidden = Math.abs(percent - 100) < 0.5;
    shown.textContent = `Shown at ${percent.toFixed(percent < 10 ? 1 : 0)} % of its size.`;
  }).observe(frame);
}
