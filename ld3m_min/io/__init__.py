"""Files, checkpoints, seeds and signals: nothing here knows what is distilled."""
