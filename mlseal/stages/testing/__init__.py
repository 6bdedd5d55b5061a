"""Before a model is let out: is its code, are its dependencies, is its file what they should be?"""
