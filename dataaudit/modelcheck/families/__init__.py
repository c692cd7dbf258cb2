"""What each code of the model side means: text only, one file a family, discovered by the registry."""
