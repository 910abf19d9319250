"""Stand-ins for programs of Kubernetes that no package registry has: what `cluster init` sees of them, and no pods.

They are strict where a mistake of ours would show: they take only the options that the real program's help names (see
tests/fixtures/kubernetes/flags), read every file that an option or a configuration names, and speak TLS with client
certificates. The API server keeps its objects in the real etcd. What they do not do is run pods, route packets, or
decide about rights.
"""
