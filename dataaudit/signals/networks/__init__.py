"""Networks as torch modules; a package of their own, so that looking for signals doesn't import torch."""
