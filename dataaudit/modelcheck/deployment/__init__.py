"""Is what is deployed what was trained: the model in another runtime, and the images before it?"""
