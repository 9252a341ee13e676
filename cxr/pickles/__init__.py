"""Pickles read as plain values: nothing in a file is built, called or trusted."""
