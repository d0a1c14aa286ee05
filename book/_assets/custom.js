// Names that the theme leaves out, for screen readers.
document.addEventListener("DOMContentLoaded", () => {
  for (const s of document.querySelectorAll(".bd-sidebar-primary details > summary"))
    s.setAttribute("aria-label", "Sections of " + (s.parentElement.previousElementSibling?.textContent || "this chapter").trim());
  // the button's text ("Search Ctrl+K") is its name; the theme's label leaves half of it out
  for (const b of document.querySelectorAll(".search-button-field[aria-label]")) b.removeAttribute("aria-label");
  // a signature on several lines is laid out as a list without terms
  for (const e of document.querySelectorAll(".sig dl, .sig dl > dd")) e.setAttribute("role", "none");
  for (const e of document.querySelectorAll(".citation-list > .citation")) e.setAttribute("role", "listitem");
  const side = document.querySelector(".bd-sidebar-primary .sidebar-primary-items__start, .bd-sidebar-primary");
  if (side) { side.setAttribute("role", "complementary"); side.setAttribute("aria-label", "Book"); }
});
// Where the book is read from the disk, a browser lets no page read another: the search shows titles, no passages.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
