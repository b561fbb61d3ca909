"""Config files of every format become marked plain data here; nothing is executed, imported or checked."""
