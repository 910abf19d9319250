"""The steps of the workflows: one file each, a title and what it does."""
