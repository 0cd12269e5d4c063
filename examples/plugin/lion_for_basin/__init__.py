"""An example of a plug-in: `specs` is what Basin's api and workers import, the other modules are for its engine."""
