"""What a head and those who evaluate for it say to each other, and how it keeps account of that."""
