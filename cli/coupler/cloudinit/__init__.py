"""How coreos-cloudinit reads, validates and applies a `#cloud-config`, in both of its lineages.

Stands alone: it also runs on nodes, as a program of its own (`python -m coupler.cloudinit`).
"""
