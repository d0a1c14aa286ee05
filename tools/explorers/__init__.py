"""Makes what the book's explorers show: one module each, and `output` that writes it."""
