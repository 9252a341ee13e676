"""What every source shares: tables in, manifests out."""
