"""One module for each outside program. Adapters never import each other."""
