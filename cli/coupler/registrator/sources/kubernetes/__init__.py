"""Kubernetes as a source: its API is listed and watched, and written to where a balancer has something to say."""
