"""The verbs of `cluster`: one verb, one file. A file holds the signature, one call and one result."""
