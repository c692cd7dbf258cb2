"""The checks: one file a family, one function a defect; a new function is all it takes. Owns cleanlab."""
