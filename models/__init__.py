"""What computes: the patch network, its backbones, and safe reading and writing of weights."""
