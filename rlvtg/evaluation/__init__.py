"""evaluation: predictions -> metrics -> report."""
