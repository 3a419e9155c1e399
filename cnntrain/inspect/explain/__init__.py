"""What a trained network has learned, as pictures: filters, feature maps, favourite images, evidence, and limits."""
