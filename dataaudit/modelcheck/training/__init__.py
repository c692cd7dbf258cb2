"""Training: overfitting one batch, gradients, learning rates, and several processes against one."""
