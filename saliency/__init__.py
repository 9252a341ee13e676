"""Where the model looks: evidence maps, class activation maps, and their place in the film."""
