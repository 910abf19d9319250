"""The ordered lists of steps that make a verb: what happens, in which order, visible in one place each."""
