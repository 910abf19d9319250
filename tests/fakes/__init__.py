"""Stand-ins for programs that cannot run here, each held to recordings of the real one."""
