"""What a person looks at: measures, flags, previews, the page of a run."""
