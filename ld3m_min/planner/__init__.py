"""What a run will cost before it starts, and the plan that fits (section 3.3)."""
