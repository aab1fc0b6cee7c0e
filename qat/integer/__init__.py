"""The integer side: programs of typed integer operations, their arithmetic, and the interpreter that defines it."""
