"""What a person demands of a classifier: guarantee files and what they claim."""
