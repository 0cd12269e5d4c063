"""Charts: the data of jobs and recipes in the form that core.plot draws."""
