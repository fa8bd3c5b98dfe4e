"""One module per system; each defines SYSTEM. A module that is put here is a system: nothing else lists it."""
