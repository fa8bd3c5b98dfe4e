"""The phases of a build, one per file: each is a function of frozen arguments with a frozen result.
`vlacompile/pipeline.py` calls them in order."""
