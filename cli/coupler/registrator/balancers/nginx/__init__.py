"""Open-source nginx: files of ours inside the user's configuration, and a reload that loses no request."""
