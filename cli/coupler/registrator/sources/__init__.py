"""Where backends, endpoints and routes come from."""
