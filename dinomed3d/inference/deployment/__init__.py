"""Networks of trained models as files that other runtimes read, with a description of what happens around them."""
