"""Basin's core: the recipe, the engine and the domain that the api and the worker share."""
