"""The load-balancer registrator: sources make one desired state, and balancers are moved there.

A program of its own inside the package: of the project it imports `coupler.errors` alone.
"""
