"""Pages about a distillation of one's own images: while it runs, and at its end."""
