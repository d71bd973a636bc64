"""The frozen blocks of SAM and SAM 2 as plain modules; numbers and children come from outside."""
