"""Point Transformer V3 and its descendants: Sonata and Concerto, Utonia, LitePT."""
