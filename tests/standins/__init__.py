"""Stand-ins for programs that no package registry has: what `cluster init` sees of them, and no pods.

They are strict where a mistake of ours would show: they take only the options that the real program's help names (see
tests/fixtures/flags), read every file that an option or a configuration names, and speak TLS with client certificates.
The API server keeps its objects in the real etcd, flanneld its leases, fleetd its machines and units, locksmithctl its
lock, each as the real program does. What they do not do is run pods, and decide about rights.
"""
