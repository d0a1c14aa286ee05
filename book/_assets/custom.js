// Names that the theme leaves out, for screen readers.
document.addEventListener("DOMContentLoaded", () => {
  for (const s of document.querySelectorAll(".bd-sidebar-primary details > summary"))
    s.setAttribute("aria-label", "Sections of " + (s.parentElement.previousElementSibling?.textContent || "this chapter").trim());
  const side = document.querySelector(".bd-sidebar-primary .sidebar-primary-items__start, .bd-sidebar-primary");
  if (side) { side.setAttribute("role", "complementary"); side.setAttribute("aria-label", "Book"); }
});
