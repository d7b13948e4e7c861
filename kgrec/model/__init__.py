"""The network, as functions and modules of tensors only."""
