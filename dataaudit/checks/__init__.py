"""The checks: one file a family, one function a defect. Adding a function here is all it takes; owns cleanlab."""
