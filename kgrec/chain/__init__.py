"""The stages of the chain, one module per part of the way; `kgrec.stages` tells them in order."""
