"""What a prediction reads: files of clouds, in metres with z up, their images, and what is to be said of them."""
