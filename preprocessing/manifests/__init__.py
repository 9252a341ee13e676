"""Code that all sources share: tables in, manifests out."""
