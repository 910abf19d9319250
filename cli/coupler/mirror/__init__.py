"""The mirror: a folder of programs and images that nodes fetch from, and what it takes to fill, check and serve it."""
