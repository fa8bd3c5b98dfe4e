"""The systems of the survey of vision-language-action models, as policies without trained weights: `zoo:NAME`."""
