"""What a callback of a trainer does: tries the first step, watches gradients, keeps curves and dynamics."""
