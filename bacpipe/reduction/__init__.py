"""Maps of embeddings in two or three dimensions."""
