"""The gradient of one batch: by autograd, in closed form, clipped, or at SAM's perturbed weights."""
