"""How each method writes spans and reads them back: one file per way of writing, two functions each."""
