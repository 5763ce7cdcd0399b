"""The pages that a hub serves to browsers."""
