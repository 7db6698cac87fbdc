"""The PyTorch engine: runs wherever PyTorch does, and is the reference that other engines are compared with."""
