"""MME: yes/no questions about images, two per image."""
