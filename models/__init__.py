"""The patch network, its backbones and aggregations, and safe reading and writing of weights."""
