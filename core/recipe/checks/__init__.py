"""The rules between the fields of a new job or preview. core/recipe/parse.py alone calls them, once per request."""
